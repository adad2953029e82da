"""Settings of a trainer with which many projects run; cuts are at epochs 1 and 3, or at the steps given."""

from functools import partial
from itertools import pairwise

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, RichProgressBar, TQDMProgressBar
from torch import nn

from seg_pruning.callbacks import IterativePruning, Schedule
from tests.callbacks.interrupted import GOING_ON
from tests.callbacks.modules import Data, SkipNet, Stranger, fit, pruning, size, trainer_in

pytestmark = [
    *GOING_ON,
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train:UserWarning"),
]
DENSE = size(Stranger())


class Sizes(L.Callback):
    """Epoch, optimizer steps and parameters as each batch ends; what each validation saw."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append((trainer.current_epoch, trainer.global_step, size(pl_module)))

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(int(trainer.callback_metrics["val/params"]))

    @property
    def changes(self) -> list[tuple[int, int]]:
        """Epoch, and steps before it, of each batch that was the first with fewer parameters."""
        known = [(0, 0, DENSE), *self.batches]
        return [(now[0], before[1]) for before, now in pairwise(known) if now[2] < before[2]]


def by_step() -> IterativePruning:
    schedule = Schedule("linear", start_step=3, every_n_steps=2, end_step=5)
    return IterativePruning(budget={"params": 0.5}, criterion="taylor", schedule=schedule)


BY_EPOCH = partial(pruning, criterion="taylor")


@pytest.mark.parametrize(
    ("own", "settings", "changes", "steps"),
    [
        (BY_EPOCH, {"overfit_batches": 2}, [(1, 2), (3, 6)], 10),
        (BY_EPOCH, {"limit_train_batches": 1}, [(1, 1), (3, 3)], 5),
        (BY_EPOCH, {"limit_train_batches": 0.7, "limit_val_batches": 1}, [(1, 2), (3, 6)], 10),
        (BY_EPOCH, {"max_epochs": -1, "max_steps": 13}, [(1, 3), (3, 9)], 13),
        (BY_EPOCH, {"max_epochs": None, "max_steps": 13}, [(1, 3), (3, 9)], 13),
        (BY_EPOCH, {"val_check_interval": 0.5, "images": 8}, [(1, 4), (3, 12)], 20),
        (BY_EPOCH, {"val_check_interval": 5, "check_val_every_n_epoch": None}, [(1, 3), (3, 9)], 15),
        (BY_EPOCH, {"check_val_every_n_epoch": 2}, [(1, 3), (3, 9)], 15),
        (BY_EPOCH, {"accumulate_grad_batches": 2}, [(1, 2), (3, 6)], 10),
        (BY_EPOCH, {"accumulation": {0: 1, 2: 3}}, [(1, 3), (3, 7)], 9),
        (BY_EPOCH, {"num_sanity_val_steps": 0, "log_every_n_steps": 50}, [(1, 3), (3, 9)], 15),
        (BY_EPOCH, {"reload_dataloaders_every_n_epochs": 1}, [(1, 3), (3, 9)], 15),
        (BY_EPOCH, {"gradient_clip_val": 0.1, "detect_anomaly": True}, [(1, 3), (3, 9)], 15),
        (BY_EPOCH, {"inference_mode": False, "use_distributed_sampler": False}, [(1, 3), (3, 9)], 15),
        (by_step, {"max_epochs": -1, "max_steps": 8}, [(1, 3), (1, 5)], 8),
        (by_step, {"accumulation": {0: 1, 1: 3}, "max_epochs": 6}, [(1, 3), (3, 5)], 8),
        (by_step, {"val_check_interval": 1}, [(1, 3), (1, 5)], 15),
        (by_step, {"overfit_batches": 1, "max_epochs": 9}, [(3, 3), (5, 5)], 9),
    ],
    ids=lambda value: None if callable(value) else str(value),  # of functions str says where they are
)
def test_cuts_are_where_they_were_planned(tmp_path, own, settings, changes, steps):
    settings = dict(settings)
    settings["data"] = Data(settings.pop("images", 6))
    plan = settings.pop("accumulation", None)
    others = [GradientAccumulationScheduler(plan)] if plan else []
    sizes, module = Sizes(), Stranger()
    trainer = fit(tmp_path, module, own(), sizes, *others, **settings)
    assert sizes.changes == changes
    assert trainer.global_step == steps
    assert sizes.batches[-1][2] == size(module) <= 0.5 * DENSE
    assert sizes.validated[-1] == size(module)
    assert set(sizes.validated) <= {DENSE, *(parameters for _, _, parameters in sizes.batches)}


@pytest.mark.parametrize("batches", [True, 3])
def test_a_run_of_a_few_batches_cuts_nothing_and_says_nothing(tmp_path, batches):
    """But it traces the network, so that what cannot be pruned is found."""
    module, own = Stranger(), pruning(criterion="taylor")
    fit(tmp_path, module, own, fast_dev_run=batches)
    assert size(module) == DENSE == own.dense.params
    assert own.done == []


def test_an_endless_training_ends_when_it_is_told_to(tmp_path):
    class Enough(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch == 5

    module = Stranger()
    trainer = fit(tmp_path, module, BY_EPOCH(), Enough(), max_epochs=-1)
    assert trainer.current_epoch == 6
    assert size(module) <= 0.5 * DENSE


@pytest.mark.parametrize("bar", [RichProgressBar, TQDMProgressBar])
def test_progress_bars_show_what_they_show(tmp_path, bar, capsys):
    module = Stranger()
    fit(tmp_path, module, pruning(), bar(), enable_progress_bar=True, enable_model_summary=True)
    assert size(module) <= 0.5 * DENSE
    assert "Epoch 4" in capsys.readouterr().out


def test_nothing_is_kept_where_nothing_is_to_be_kept(tmp_path):
    module = Stranger()
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        callbacks=[pruning()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        max_epochs=5,
    )
    trainer.fit(module, Data())
    assert size(module) <= 0.5 * DENSE
    assert not list(tmp_path.iterdir())


class Late(Stranger):
    """Its layers are made in `configure_model`, which Lightning calls after the setup of callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = None

    def configure_model(self):
        if self.net is None:
            self.net = SkipNet()


class Partial(Stranger):
    """Keeps a frozen part out of its checkpoints, as adapters of large models do."""

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False
        self.frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)

    def forward(self, images):
        return self.net(self.frozen(images))

    def state_dict(self, *args, **kwargs):
        held = super().state_dict(*args, **kwargs)
        return {name: value for name, value in held.items() if "frozen" not in name}


class Last(Stranger):
    """Laid out with channels last in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.net.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [Late, Partial, Last])
def test_saved_tested_and_gone_on_with(tmp_path, kind):
    module = kind()
    fit(tmp_path, module, pruning(selection=None, budget={"macs": 0.5}))
    small, files = size(module), tmp_path / "checkpoints"
    fresh = kind()
    fit(tmp_path, fresh, pruning(budget={"macs": 0.5}), ckpt_path=files / "epoch=2.ckpt")
    assert size(fresh) == small < (DENSE if kind is Late else size(kind()))
    for name in ("epoch=0.ckpt", "last.ckpt"):
        trainer = trainer_in(tmp_path, [pruning()], logger=False)
        found = trainer.test(other := kind(), Data(), ckpt_path=files / name, verbose=False)
        assert found[0]["val/params"] == size(other)
    for network in (module, fresh, other) if kind is Last else ():
        kernels = [network.net.first[0].weight, network.net.down[0].weight]
        assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
        assert not any(kernel.is_contiguous() for kernel in kernels)

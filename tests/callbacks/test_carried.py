import copy
import pickle
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from seg_pruning.callbacks import DENSE_CHECKPOINT, Recovery, Schedule, Scoring
from seg_pruning.callbacks.carried import carry_structure_
from seg_pruning.pruning.criteria import Activation
from seg_pruning.surgery.errors import PruningError
from seg_pruning.tasks import SemanticSegmentation
from tests.callbacks.modules import Data, Mixed, Stranger, fit, pruning, size, trainer_in

IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def answer(module: L.LightningModule) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(IMAGES)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with the checkpoints of a run with cuts at epochs 1 and 3."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    fit(folder, Stranger(), pruning())
    return folder / "checkpoints"


def held(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
@pytest.mark.parametrize("name", ["epoch=0", "epoch=2", "last"])
@pytest.mark.parametrize("start", ["dense", "epoch=2", "epoch=4"])
@pytest.mark.parametrize("entry", ["validate", "test", "predict"])
def test_any_file_is_taken_by_a_network_of_any_width(tmp_path, files, entry, start, name):
    module = Stranger()
    trainer = trainer_in(tmp_path, [pruning()], logger=False)
    if start != "dense":
        trainer.validate(module, Data(), ckpt_path=files / f"{start}.ckpt", verbose=False)
    getattr(trainer, entry)(module, Data(), ckpt_path=files / f"{name}.ckpt")
    wanted = held(files / f"{name}.ckpt")
    assert {n: v.shape for n, v in module.state_dict().items()} == {n: v.shape for n, v in wanted.items()}
    assert all(torch.equal(value, wanted[n]) for n, value in module.state_dict().items())
    assert (
        module.net.down[0].out_channels == len(wanted["net.down.0.weight"]) == module.net.down[1].num_features
    )


@pytest.mark.parametrize("loop", ["best", "last"])
@pytest.mark.parametrize("weights_only", [True, False])
def test_best_and_last_after_a_fit(tmp_path, loop, weights_only):
    saver = ModelCheckpoint(tmp_path, monitor="val/loss", save_last=True, save_weights_only=weights_only)
    module = Stranger()
    trainer = fit(tmp_path, module, pruning(), saver)
    small, file = size(module), held(saver.best_model_path if loop == "best" else saver.last_model_path)
    results = trainer.test(module, Data(), ckpt_path=loop, verbose=False)
    assert results[0]["val/params"] == small == size(module)
    assert torch.equal(module.net.head.weight, file["net.head.weight"])


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning")
@pytest.mark.parametrize("entry", ["validate", "test", "predict"])
def test_last_in_a_new_trainer_and_best_without_a_module(tmp_path, entry):
    """As a script does that only tests, and as one that goes on after its fit."""

    def saver() -> ModelCheckpoint:
        return ModelCheckpoint(tmp_path / "c", monitor="val/loss", save_last=True)

    module, new = Stranger(), Stranger()
    trainer = fit(tmp_path, module, pruning(), saver())
    small, best = size(module), trainer.checkpoint_callback.best_model_path
    getattr(trainer_in(tmp_path, [pruning(), saver()], logger=False), entry)(new, Data(), ckpt_path="last")
    last = held(tmp_path / "c" / "last.ckpt")
    assert size(new) == small < size(Stranger())
    assert all(torch.equal(value, last[n]) for n, value in new.state_dict().items())
    getattr(trainer, entry)(datamodule=Data(), ckpt_path="best")
    assert all(torch.equal(value, held(best)[n]) for n, value in module.state_dict().items())


RICH = Schedule(recovery=Recovery(compensate=2, rewarm=2, rewind="weights"))


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning", "ignore:Experiment logs:UserWarning")
@pytest.mark.parametrize(
    "options",
    [
        {"criterion": "taylor", "schedule": RICH},
        {"criterion": Scoring(Activation(), batches=2)},
        {"budget": {"params": 0.5, "min": {"val/params": 1.0}}},
    ],
    ids=["recovery", "a pass", "a floor"],
)
def test_a_fit_goes_on_from_plain_types_alone(tmp_path, options):
    """`weights_only=True` refuses all but tensors and plain types."""
    fit(tmp_path, Stranger(), pruning(**options))
    for epoch in (0, 1, 4):
        file = tmp_path / "checkpoints" / f"epoch={epoch}.ckpt"
        module, trainer = Stranger(), trainer_in(tmp_path, [pruning(**options)], max_epochs=6, logger=False)
        trainer.fit(module, Data(), ckpt_path=file, weights_only=True)
        assert size(module) <= 0.5 * size(Stranger())


def test_the_best_before_any_cut_is_taken_after_it(tmp_path):
    """A file of weights alone from before the first cut makes the pruned module dense again, and back."""
    module = Stranger()
    dense = size(module)
    trainer = fit(tmp_path, module, pruning())
    small, weights = size(module), {n: v.clone() for n, v in module.state_dict().items()}
    trainer.test(module, Data(), ckpt_path=tmp_path / "checkpoints" / DENSE_CHECKPOINT, verbose=False)
    assert size(module) == dense
    trainer.test(module, Data(), ckpt_path="last", verbose=False)
    assert size(module) == small
    assert all(torch.equal(value, weights[n]) for n, value in module.state_dict().items())


def test_the_dense_network_is_kept_as_it_was_before_the_first_cut(tmp_path):
    module = Stranger()
    fit(tmp_path, module, pruning())
    dense, last = (held(tmp_path / "checkpoints" / n) for n in (DENSE_CHECKPOINT, "epoch=0.ckpt"))
    assert all(torch.equal(value, last[n]) for n, value in dense.items())


class Hooked(Stranger):
    """Has hooks of its own."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["mine"] = 1

    def on_load_checkpoint(self, checkpoint):
        self.mine = checkpoint["mine"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")
def test_hooks_of_the_module_still_run(tmp_path):
    fit(tmp_path, Hooked(), pruning())
    module = Hooked()
    trainer = trainer_in(tmp_path, [pruning()], logger=False)
    trainer.validate(module, Data(), ckpt_path=tmp_path / "checkpoints" / "epoch=4.ckpt", verbose=False)
    assert module.mine == 1
    assert size(module) < size(Hooked())


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"]
)
def test_a_copy_of_the_module_carries_its_own_structure(files, twin):
    module = Stranger()
    carry_structure_(module)
    other = twin(module)
    checkpoint = torch.load(files / "epoch=4.ckpt", weights_only=True)
    other.on_load_checkpoint(checkpoint)
    assert size(other) < size(module) == size(Stranger())
    written = {"state_dict": other.state_dict()}
    other.on_save_checkpoint(written)
    assert written["seg_pruning"]["structure"] == checkpoint["seg_pruning"]["structure"]


def test_hooks_are_wrapped_once():
    module = Stranger()
    carry_structure_(module)
    first = module.on_load_checkpoint
    carry_structure_(module)
    assert module.on_load_checkpoint is first


def test_the_file_of_another_network_is_refused_and_the_module_stays(files):
    module = Stranger(width=7)
    carry_structure_(module)
    before = answer(module)
    with pytest.raises(PruningError, match="another network"):
        module.on_load_checkpoint(torch.load(files / "epoch=4.ckpt", weights_only=True))
    assert torch.equal(answer(module), before)


def check_in_new_process(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def task() -> SemanticSegmentation:
    return SemanticSegmentation("unet", encoder="resnet18", classes=1)


class Batches(Data):
    """What our task takes, at the smallest size that its network does."""

    def val_dataloader(self):
        images = torch.linspace(0, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        items = [{"image": x, "mask": (x[0] > 0.5).long(), "name": "x"} for x in images]
        return torch.utils.data.DataLoader(items, batch_size=2)

    train_dataloader = test_dataloader = val_dataloader


def test_our_task_is_loaded_in_a_fresh_process(tmp_path):
    module = task()
    dense = size(module)
    own = pruning(criterion="taylor", budget={"macs": 0.5}, end_epoch=1)
    fit(tmp_path, module, own, data=Batches(), max_epochs=2)
    assert size(module) < dense
    image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        torch.save(module.eval()(image), tmp_path / "answer.pt")
    check_in_new_process(f"""
import torch
from seg_pruning.tasks import SemanticSegmentation
task = SemanticSegmentation.load_from_checkpoint(
    {str(tmp_path / "checkpoints" / "last.ckpt")!r}, weights_only=True).eval()
image = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
torch.testing.assert_close(task(image), torch.load({str(tmp_path / "answer.pt")!r}))
assert sum(p.numel() for p in task.parameters()) == {size(module)}
""")


def test_a_module_with_the_mixin_is_loaded_in_a_fresh_process(tmp_path):
    module = Mixed(width=5)
    fit(tmp_path, module, pruning())
    torch.save(answer(module), tmp_path / "answer.pt")
    check_in_new_process(f"""
import sys, torch
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.callbacks.modules import Mixed
from tests.callbacks.test_carried import answer
module = Mixed.load_from_checkpoint({str(tmp_path / "checkpoints" / "last.ckpt")!r}, weights_only=True)
torch.testing.assert_close(answer(module), torch.load({str(tmp_path / "answer.pt")!r}))
assert sum(p.numel() for p in module.parameters()) == {size(module)} < 1000
""")


def test_several_files_go_through_one_module_with_the_mixin(tmp_path):
    fit(tmp_path, Mixed(), pruning())
    for epoch in (4, 0, 2):
        file = tmp_path / "checkpoints" / f"epoch={epoch}.ckpt"
        module = Mixed.load_from_checkpoint(file)
        assert size(module) == sum(held(file)[name].numel() for name, _ in module.named_parameters())

"""Modules that save only part of their weights, and one whose hyperparameters hold a network."""

import lightning as L
import pytest
import torch
from torch import nn

from seg_pruning.callbacks import IterativePruning
from tests.callbacks.interrupted import SeedEachStep, assert_equal
from tests.callbacks.modules import Data, SkipNet, Stranger, fit, pruning, size, trainer_in

FROZEN = ("net.first.", "net.down.")
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Judge(nn.Sequential):
    """A frozen network that the loss asks, as perceptual losses do."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
        torch.manual_seed(5)
        for parameter in self.parameters():
            parameter.data = 0.1 * torch.randn_like(parameter)
        self.requires_grad_(False)


class Judged(Stranger):
    def __init__(self) -> None:
        super().__init__()
        self.judge = Judge()

    def training_step(self, batch, batch_idx):
        images, masks = batch
        same = self.judge(self(images).sigmoid()) - self.judge(masks)
        return super().training_step(batch, batch_idx) + same.square().mean()


class DropsOnSaving(Judged):
    """Takes the frozen part out of the checkpoint, and is not strict."""

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def on_save_checkpoint(self, checkpoint):
        for name in [name for name in checkpoint["state_dict"] if name.startswith("judge.")]:
            del checkpoint["state_dict"][name]


class DropsInState(Judged):
    """Leaves it out of its state."""

    left_out = ("judge.",)

    def __init__(self) -> None:
        super().__init__()
        self.strict_loading = False

    def state_dict(self, *args, **kwargs):
        found = super().state_dict(*args, **kwargs)
        return {name: value for name, value in found.items() if not name.startswith(self.left_out)}


class Frozen(Stranger):
    """Its first layers are frozen, lose channels with the rest, and are in no checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.net.first.requires_grad_(False)
        self.net.down.requires_grad_(False)
        self.strict_loading = False

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.log("val/dice", 0.9 if size(self) > 700 else 0.5)

    def on_save_checkpoint(self, checkpoint):
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in state if not name.startswith(FROZEN)}


class FrozenInState(DropsInState, Frozen):
    left_out = FROZEN


@pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning", "ignore:The dirpath:UserWarning")
@pytest.mark.parametrize("kind", [DropsOnSaving, DropsInState])
@pytest.mark.parametrize("floor", [{}, {"min": {"val/params": 1.0}}], ids=["", "floor"])
def test_the_frozen_part_is_in_no_checkpoint(tmp_path, kind, floor):
    module = kind()
    fit(tmp_path, module, pruning(budget={"params": 0.8, **floor}))
    file = tmp_path / "checkpoints" / "last.ckpt"
    assert not [name for name in torch.load(file, weights_only=True)["state_dict"] if "judge" in name]
    resumed, tested = kind(), kind()
    fit(tmp_path / "b", resumed, pruning(budget={"params": 0.8, **floor}), ckpt_path=file, max_epochs=6)
    trainer_in(tmp_path / "c", [pruning()], logger=False).test(tested, Data(), ckpt_path=file, verbose=False)
    assert size(tested) == size(module) == size(resumed) < size(kind())
    with torch.no_grad():
        torch.testing.assert_close(tested.eval()(IMAGES), module.eval()(IMAGES))


class OfANetwork(L.LightningModule):
    """A network is an argument of the module, and so one of its hyperparameters."""

    def __init__(self, net: nn.Module, rate: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net

    forward = Stranger.forward

    def training_step(self, batch, batch_idx):
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)


@pytest.mark.filterwarnings("ignore:The dirpath:UserWarning")
@pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of `nn.Module`:UserWarning")
@pytest.mark.filterwarnings("ignore:.*is an instance of `nn.Module` and is already saved:UserWarning")
def test_a_network_among_the_hyperparameters(tmp_path):
    module = OfANetwork(SkipNet())
    fit(tmp_path, module, pruning(criterion="taylor"))
    file = tmp_path / "checkpoints" / "last.ckpt"
    other = OfANetwork(SkipNet())
    trainer = trainer_in(tmp_path / "b", [IterativePruning(budget={"params": 0.5})], logger=False)
    trainer.validate(other, Data(), ckpt_path=file, weights_only=False, verbose=False)
    assert size(other) == size(module)


@pytest.mark.filterwarnings("ignore:The dirpath:UserWarning")
@pytest.mark.parametrize("kind", [Frozen, FrozenInState])
def test_a_frozen_part_that_loses_channels_is_in_no_state_dict(tmp_path, kind):
    """With a floor that the second cut breaks, so that it is taken back."""

    def own() -> IterativePruning:
        return pruning(budget={"params": 0.5, "min": {"val/dice": 0.8}}, schedule="one_shot")

    module = kind()
    data = {"data": Data(by_epoch=True), "max_epochs": 6}
    fit(tmp_path, module, SeedEachStep(), own(), **data)
    file = tmp_path / "checkpoints" / "epoch=3.ckpt"
    assert not [n for n in torch.load(file, weights_only=True)["state_dict"] if n.startswith(FROZEN)]
    assert 700 < size(module) < size(kind())
    resumed = kind()
    fit(tmp_path / "b", resumed, SeedEachStep(), own(), ckpt_path=file, **data)
    mine, other = (nn.Module.state_dict(one.net) for one in (resumed, module))
    counts = {f"{layer}1.num_batches_tracked" for layer in ("first.", "down.")}  # nobody stored these
    assert_equal(
        {n: mine[n] for n in mine if n not in counts}, {n: other[n] for n in other if n not in counts}
    )

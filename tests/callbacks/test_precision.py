"""Scores under mixed precision, gradient scaling, clipping and accumulation are those of plain float32."""

import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from seg_pruning.pruning.score import RunningScores
from seg_pruning.surgery.trial import trace
from tests.callbacks.modules import Stranger, fit, pruning, size

FUSED = {"fused": True}


class Still(Stranger):
    """Its weights stay, so that all runs have the same gradients; no noise."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.settings = settings

    def training_step(self, batch, batch_idx):
        images, masks = batch
        return torch.nn.functional.binary_cross_entropy_with_logits(self(images).float(), masks)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0, **self.settings)


class Watch(L.Callback):
    """Notes gradients and, before the first cut, what the pruning gathered; named before it."""

    def __init__(self, own) -> None:
        self.running: RunningScores = own.scores.running
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append({name: p.grad.clone() for name, p in pl_module.named_parameters()})

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.count, self.skipped = self.running.count, self.running.skipped
            self.scores = self.running.compute()


class Scaler(torch.amp.GradScaler):
    """Scales on a CPU as on a GPU, more after each step; the gradients of the steps in `bad` overflow."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__("cpu", init_scale=256.0, growth_factor=4.0, growth_interval=1)
        self.bad = bad
        self.calls = 0

    def scale(self, outputs):
        self.calls += 1
        return super().scale(outputs) * (float("inf") if self.calls - 1 in self.bad else 1.0)


def run(folder, *, settings=None, **options) -> tuple[Watch, L.Trainer]:
    torch.manual_seed(0)
    own = pruning(criterion="taylor", end_epoch=1)
    watch, module = Watch(own), Still(**(settings or {}))
    trainer = fit(folder, module, watch, own, max_epochs=2, logger=False, **options)
    assert size(module) <= 0.5 * size(Still())
    return watch, trainer


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Watch:
    return run(tmp_path_factory.mktemp("plain"))[0]


def assert_near(found, wanted, tolerance):
    """The same scores, within a fraction of the largest of a group."""
    assert found.keys() == wanted.keys()
    for group, values in wanted.items():
        largest = values.abs().max()
        assert largest > 0
        torch.testing.assert_close(found[group] / largest, values / largest, atol=tolerance, rtol=0)


def scaled(*bad: int) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", Scaler(bad))


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"precision": "bf16-mixed"}, 0.15),
        ({"precision": "bf16-true"}, 0.15),
        ({"plugins": scaled()}, 0.01),
        ({"plugins": scaled(), "settings": FUSED}, 0.01),
        ({"gradient_clip_val": 1e-5, "gradient_clip_algorithm": "value"}, 0.0),
        ({"gradient_clip_val": 1e-5, "gradient_clip_algorithm": "norm"}, 0.0),
        ({"plugins": scaled(), "gradient_clip_val": 1e-5}, 0.01),
    ],
    ids=["bf16", "true bf16", "fp16", "fp16 fused", "by value", "by norm", "fp16 by norm"],
)
def test_scores_are_those_of_float32(tmp_path, plain, options, tolerance):
    watch, _ = run(tmp_path, **options)
    assert watch.count == plain.count == 3
    assert_near(watch.scores, plain.scores, tolerance)


@pytest.mark.parametrize("settings", [{}, FUSED], ids=["", "fused"])
def test_steps_that_overflow_do_not_count(tmp_path, plain, settings):
    watch, trainer = run(tmp_path, plugins=scaled(1), settings=settings)
    assert (watch.count, watch.skipped) == (2, 1)
    assert (
        trainer.precision_plugin.scaler.get_scale() == 256.0 * 4**5 / 2
    )  # five good steps, and one that was skipped
    rest = [plain.gradients[0], plain.gradients[2]]
    assert_near(watch.scores, expected(rest), 0.01)


@pytest.mark.parametrize("options", [{}, {"plugins": scaled()}], ids=["float32", "fp16"])
def test_accumulated_gradients_are_read_once(tmp_path, plain, options):
    watch, _ = run(tmp_path, accumulate_grad_batches=3, **options)
    assert watch.count == 1
    three = plain.gradients[:3]
    mean = {name: sum(each[name] for each in three) / 3 for name in three[0]}
    assert_near(watch.scores, expected([mean]), 0.01 if options else 1e-5)


def expected(gradients) -> dict[str, torch.Tensor]:
    """The scores of steps with these gradients."""
    torch.manual_seed(0)
    module = Still()
    running, graph = RunningScores("taylor"), trace(module, torch.rand(1, 3, 8, 8))
    for each in gradients:
        running.update(graph, dict(module.named_parameters()), each)
    return running.compute()

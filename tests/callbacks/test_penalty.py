import lightning as L
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn

from seg_pruning.callbacks import Scoring
from seg_pruning.callbacks.penalty import gradient_scale, penalised
from seg_pruning.pruning.selection import Selection
from seg_pruning.surgery.trial import trace
from tests.callbacks.modules import SkipNet, Stranger, fit, pruning, trainer_in


class Gradients(L.Callback):
    """What the optimizer was given in its first step, and the scales before it."""

    def __init__(self) -> None:
        self.given: dict[str, torch.Tensor] = {}
        self.scales: dict[str, torch.Tensor] = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.scales:
            self.scales = {n: p.detach().clone() for n, p in pl_module.named_parameters()}

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if trainer.global_step == 1 and not self.given:
            self.given = {n: p.grad.clone() for n, p in pl_module.named_parameters()}


def first_gradients(folder, strength: float, **settings) -> Gradients:
    torch.manual_seed(0)
    module, seen = Stranger("sgd"), Gradients()
    with torch.no_grad():
        module.net.first[1].weight[:3] *= -1
    plugin = settings.pop("plugin", None)
    options = {"plugins": [plugin()]} if plugin else {}
    own = pruning(criterion=Scoring("l2", bn_penalty=strength), selection=settings.pop("selection", None))
    fit(folder, module, own, seen, max_epochs=4, **options, **settings)
    return seen


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"accumulate_grad_batches": 2},
        {"plugin": lambda: MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))},
    ],
    ids=["plain", "accumulated", "scaled"],
)
def test_the_sign_of_each_scale_is_added_once(tmp_path, settings):
    """Also where the loss was multiplied by 1024, or where one step sums two backward passes."""
    plain, penalty = (first_gradients(tmp_path / str(s), s, **settings) for s in (0.0, 0.25))
    for name, gradient in plain.given.items():
        extra = 0.25 * plain.scales[name].sign() if name.endswith("1.weight") else torch.zeros(())
        torch.testing.assert_close(penalty.given[name], gradient + extra, rtol=1e-4, atol=1e-6)
    assert (plain.scales["net.first.1.weight"] < 0).sum() == 3


def test_clipping_bounds_it_too(tmp_path):
    seen = first_gradients(tmp_path, 100.0, gradient_clip_val=0.5)
    norm = torch.stack([gradient.norm() for gradient in seen.given.values()]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_only_what_may_leave(tmp_path):
    """Protected groups and networks without a norm have nothing to penalise."""
    selection = Selection(protect=("net.first",), scope="local")
    plain, penalty = (first_gradients(tmp_path / str(s), s, selection=selection) for s in (0.0, 0.25))
    changed = {n for n, gradient in plain.given.items() if not torch.equal(gradient, penalty.given[n])}
    assert changed == {"net.down.1.weight"}
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert penalised(net, trace(net, torch.rand(1, 3, 4, 4)), ()) == {}


def test_scales_are_found_with_their_channels():
    net = SkipNet()
    found = penalised(net, trace(net, torch.rand(1, 3, 8, 8)), ())
    assert {id(scale) for scale in found} == {id(net.first[1].weight), id(net.down[1].weight)}
    assert all(mask.all() for mask in found.values())


@pytest.mark.parametrize(("fused", "scale"), [(False, 1.0), (True, 512.0)])
def test_fused_optimizers_get_it_scaled(tmp_path, fused, scale):
    """They divide gradients by the scale inside their step, after the penalty was added."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=512.0))
    plugin.scaler.scale(torch.ones(()))  # a scaler makes its scale when it is first used
    trainer = trainer_in(tmp_path, plugins=[plugin])
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))], fused=fused)
    assert gradient_scale(trainer, optimizer) == scale
    assert gradient_scale(trainer_in(tmp_path), optimizer) == 1.0

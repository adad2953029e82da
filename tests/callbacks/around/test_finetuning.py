"""An encoder that is frozen at first and thawed later; cuts are at epochs 1, 2, ... 5, of 3 steps each."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch import nn

from seg_pruning.callbacks import Scoring
from seg_pruning.callbacks.thawing import warn_frozen
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.callbacks.interrupted import GOING_ON, assert_goes_on
from tests.callbacks.modules import Stranger, fit, pruning, size

pytestmark = [*GOING_ON, pytest.mark.filterwarnings("ignore:The provided params to be frozen:UserWarning")]
DENSE = size(Stranger())


class Tuned(Stranger):
    """As `BackboneFinetuning` wants it; the rest of the network reads two widths of the backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleList([self.net.first, self.net.down])

    def configure_optimizers(self):
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=0.01)


class Deep(Stranger):
    """Nothing that is trained at first reads the first width; of norms the callback trains the scales."""

    def __init__(self) -> None:
        super().__init__()
        layers = [(3, 6), (6, 8), (8, 8)]
        self.backbone = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU()) for i, o in layers)
        )
        self.net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, images):
        return self.net(self.backbone(images))

    configure_optimizers = Tuned.configure_optimizers


class Widths(L.Callback):
    """Output channels of each convolution as each epoch ends."""

    def __init__(self) -> None:
        self.at: list[dict[str, int]] = []

    def on_train_epoch_end(self, trainer, pl_module):
        convs = {n: m.out_channels for n, m in pl_module.named_modules() if isinstance(m, nn.Conv2d)}
        self.at.append(convs)


def thawing(epoch: int = 3) -> BackboneFinetuning:
    return BackboneFinetuning(unfreeze_backbone_at_epoch=epoch, train_bn=False, backbone_initial_lr=0.005)


def often(**options):
    return pruning(**{"criterion": "taylor", "every_n_epochs": 1, "end_epoch": 5, **options})


@pytest.mark.parametrize("position", ["before", "after"])
def test_frozen_layers_wait_and_are_cut_once_they_are_trained(tmp_path, position):
    """The first width of the backbone waits; what the head reads is scored by what the head does with it."""
    module, widths = Deep(), Widths()
    parts = [often(), thawing()]
    trainer = fit(tmp_path, module, *(parts if position == "after" else parts[::-1]), widths, max_epochs=7)
    first = [at["backbone.0.0"] for at in widths.at]
    head = [at["net.0"] for at in widths.at]
    assert first[:4] == [6] * 4  # thawed at epoch 3, at whose start it was not trained yet
    assert first[-1] < 6
    assert head[2] < 8
    assert size(module) <= 0.5 * size(Deep())
    assert len(trainer.optimizers[0].param_groups) == 2
    held = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in module.parameters()}
    for parameter, state in trainer.optimizers[0].state.items():
        assert all(value.shape == parameter.shape for value in state.values() if value.ndim)


def test_what_waits_takes_no_share_of_the_others(tmp_path):
    """All together lose half; the others alone would have to lose far more to make up for what waits."""
    module, widths = Deep(), Widths()
    fit(tmp_path, module, often(schedule="linear"), thawing(), widths, max_epochs=7)
    assert widths.at[2]["net.0"] >= 5  # two of five cuts: a fifth of what can leave
    assert widths.at[2]["net.0"] < 8


def test_a_module_that_is_read_twice_is_cut_and_thawed(tmp_path):
    module = Tuned()
    fit(tmp_path, module, often(), thawing(), max_epochs=7)
    assert size(module) <= 0.5 * DENSE


def test_what_is_still_frozen_at_the_last_cut_is_refused(tmp_path):
    with pytest.raises(PruningError, match=r"no parameter of .*backbone\.0.* ever had a gradient: unfreeze"):
        fit(tmp_path, Deep(), often(end_epoch=2), thawing(6), max_epochs=7)


@pytest.mark.filterwarnings("ignore:nothing trains:UserWarning")
def test_without_a_callback_that_thaws_it_is_refused_at_once(tmp_path):
    module = Deep()
    module.backbone.requires_grad_(False)
    refusal = r"no parameter of .*backbone\.0.* ever had a gradient: unfreeze"
    with pytest.raises(PruningError, match=refusal):
        fit(tmp_path, module, often(), max_epochs=7)
    assert size(module) == size(Deep())


def test_scores_in_a_pass_of_their_own_wait_too(tmp_path):
    def loss(output, batch):
        return nn.functional.binary_cross_entropy_with_logits(output, batch[1])

    module, widths = Deep(), Widths()
    scoring = Scoring("taylor", batches=2, loss=loss)
    fit(tmp_path, module, often(criterion=scoring), thawing(), widths, max_epochs=7)
    assert widths.at[2]["backbone.0.0"] == 6
    assert size(module) <= 0.5 * size(Deep())


def test_it_goes_on_to_the_bit(tmp_path):
    """From before the thaw; from later on Lightning's own callback leaves the backbone frozen."""

    class Plain(Deep):
        def configure_optimizers(self):
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
            return {"optimizer": optimizer, "lr_scheduler": scheduler}

    assert_goes_on(tmp_path, lambda: [thawing(), often()], epoch=1, module=Plain, max_epochs=7)


def test_what_nothing_trains_is_named_before_training():
    module = Deep()
    graph = trace(module, torch.zeros(1, 3, 8, 8))
    warn_frozen(graph, module, ())  # nothing: warnings are errors here
    module.backbone.requires_grad_(False)
    with pytest.warns(UserWarning, match=r"nothing trains 2 groups \(backbone\.0\.0, backbone\.1\.0\)"):
        warn_frozen(graph, module, ())
    warn_frozen(graph, module, ("backbone.0.0", "backbone.1.0"))

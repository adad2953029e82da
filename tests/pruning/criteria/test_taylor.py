import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from seg_pruning.pruning.criteria import Taylor
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGroup
from tests.pruning.groups import MIDDLE, STREAM, Net, channel_masks


def loss_when_scaled(net: Net, image: Tensor, masks: dict[str, Tensor], alpha: float) -> float:
    """The loss with all weights of one channel multiplied by alpha."""
    scaled = {
        name: torch.where(masks[name], alpha * weight, weight) if name in masks else weight
        for name, weight in net.named_parameters()
    }
    with torch.no_grad():
        return float(functional_call(net, scaled, (image,)).square().mean())


@pytest.mark.parametrize("of", [STREAM, MIDDLE], ids=lambda g: g.name)
@pytest.mark.parametrize("members", ["all", "out"])
@pytest.mark.parametrize("form", ["squared", "abs"])
def test_is_the_slope_of_the_loss_as_the_channel_is_scaled_away(
    form: str, members: str, of: ChannelGroup
) -> None:
    """d loss / d alpha at alpha = 1 by central differences, without any gradient."""
    torch.manual_seed(1)
    net = Net().double().eval()
    image = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    net(image).square().mean().backward()
    weights = dict(net.named_parameters())
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    step = 1e-5
    slopes = torch.tensor(
        [
            (loss_when_scaled(net, image, masks, 1 + step) - loss_when_scaled(net, image, masks, 1 - step))
            / (2 * step)
            for masks in channel_masks(net, of, consumers=members == "all")
        ]
    )
    assert slopes.abs().min() > 1e-4, "the example says nothing"
    scores = Taylor(form=form, members=members)(of, weights, gradients)  # type: ignore[arg-type]
    torch.testing.assert_close(
        scores, slopes.square() if form == "squared" else slopes.abs(), rtol=1e-3, atol=0
    )


def test_opposite_contributions_cancel_before_the_square() -> None:
    weights = {"middle.weight": torch.ones(2, 3, 3, 3), "middle.bias": torch.tensor([1.0, 2.0])}
    gradients = {"middle.weight": torch.full((2, 3, 3, 3), 1 / 27), "middle.bias": torch.tensor([-1.0, 1.0])}
    assert Taylor(members="out")(MIDDLE, weights, gradients).tolist() == pytest.approx([0, 9], abs=1e-5)


def test_a_missing_gradient_is_zero() -> None:
    weights = {name: torch.ones(2) for name in ("middle.bias",)}
    scores = Taylor(form="abs")(MIDDLE, weights, {"middle.bias": torch.tensor([3.0, -4.0])})
    assert scores.tolist() == [3.0, 4.0]
    assert Taylor()(MIDDLE, weights, {}).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("wrong", [{"of": "activation"}, {"form": "signed"}])
def test_what_there_is_not_is_refused_with_the_legal_set(wrong: dict[str, str]) -> None:
    value = next(iter(wrong.values()))
    with pytest.raises(PruningError, match=rf"one of \(.*\), but got '{value}'"):
        Taylor(**wrong)  # type: ignore[arg-type]

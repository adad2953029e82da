from typing import Any
from zlib import crc32

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from seg_pruning.pruning.criteria import Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGroup
from seg_pruning.surgery.trial import trace
from tests.pruning.groups import MIDDLE, STREAM, Net, channel_masks
from tests.pruning.tapped import Residual, images, made


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


@pytest.mark.parametrize(
    "wrong", [{"of": "activations"}, {"form": "signed"}, {"gradient": "noise"}, {"reduce": "median"}]
)
def test_what_there_is_not_is_refused_with_the_legal_set(wrong: dict[str, str]) -> None:
    value = next(iter(wrong.values()))
    with pytest.raises(PruningError, match=rf"one of \(.*\), but got '{value}'"):
        Taylor(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"of": "weight", "form": "signed"}, r"form of Taylor to be one of \('abs', 'squared'\)"),
        ({"of": "activation", "members": "out"}, "members='out' chooses among weights"),
        ({"of": "activation", "form": "cubed"}, r"\('signed', 'abs', 'squared'\), but got 'cubed'"),
    ],
)
def test_illegal_combinations_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        Taylor(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ({}, "gradients"),
        ({"form": "abs", "members": "out"}, "gradients"),
        ({"normalise": True}, "pass"),
        ({"gradient": "random"}, "pass"),
        ({"of": "activation"}, "pass"),
    ],
)
def test_says_where_its_scores_come_from(arguments: dict[str, Any], needs: str) -> None:
    assert Taylor(**arguments).needs == needs
    assert Taylor.gradients


def test_outputs_are_no_matter_of_weights() -> None:
    with pytest.raises(PruningError, match="call `score` with `data`"):
        Taylor(of="activation")(MIDDLE, {}, {})


@pytest.mark.parametrize("form", ["squared", "abs"])
@pytest.mark.parametrize("gradient", ["loss", "random"])
def test_normalised_weight_form_is_the_slope_of_the_output_along_the_unit_gradient(
    form: Any, gradient: Any
) -> None:
    """Sum over samples of g_n . d output_n / d alpha, by central differences; g_n of unit norm."""
    net = made(Residual).double()
    graph, [image] = trace(net, images(1)[0].double()), images(3)
    image = image.double()
    criterion = Taylor(form=form, gradient=gradient, normalise=True, seed=7)
    with torch.no_grad():
        output = net(image)
    if gradient == "loss":
        raw = 2 * output  # of the sum of squares
    else:
        seeds = [crc32(f"7/{n}".encode()) for n in range(3)]
        noise = [torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds]
        raw = torch.stack(noise).double()
    unit = raw / raw.flatten(1).norm(dim=1)[:, None, None, None]

    def along(channel: int, alpha: float) -> float:
        scaled = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        for name in ("inner.weight", "inner.bias"):
            scaled[name][channel] *= alpha
        scaled["outer.weight"][:, channel] *= alpha
        return float((functional_call(net, scaled, (image,)) * unit).sum())

    slopes = torch.tensor([(along(c, 1 + 1e-6) - along(c, 1 - 1e-6)) / 2e-6 for c in range(7)])
    data = [(image, torch.zeros(3))]
    found = score(graph, net, criterion, data=data, loss=lambda output, _: output.square().sum())["inner"]
    torch.testing.assert_close(
        found, slopes.square() if form == "squared" else slopes.abs(), rtol=1e-3, atol=1e-6
    )

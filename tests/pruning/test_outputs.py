from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.criteria import Activation, OutputCriterion, Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.pruning.tapped import (
    FORMED,
    NETWORKS,
    PreActivation,
    Residual,
    Shared,
    assert_scores,
    by_sample,
    channels,
    data_for,
    images,
    made,
    with_weight,
)


@pytest.mark.parametrize(("form", "normalise"), list(product(FORMED, (False, True))))
@pytest.mark.parametrize("kind", NETWORKS)
def test_taylor_of_outputs_is_that_of_single_samples(
    kind: type[nn.Module], form: str, normalise: bool
) -> None:
    net = made(kind)
    graph, data = trace(net, images(1)[0]), data_for(net, 3, 2)
    expected = by_sample(net.double(), [(x.double(), t) for x, t in data], form, normalise=normalise)
    criterion = Taylor(of="activation", form=form, normalise=normalise)  # type: ignore[arg-type]
    assert_scores(score(graph, net.float(), criterion, data=data, loss=with_weight), expected)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_scores_of_several_makers_are_reduced_as_asked(reduce: Any) -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    expected = by_sample(net, data, "abs", normalise=True, reduce=reduce)
    criterion = Taylor(of="activation", form="abs", normalise=True, reduce=reduce)
    assert_scores(score(graph, net, criterion, data=data, loss=with_weight), expected)


def test_signed_at_a_norm_is_gamma_dgamma_plus_beta_dbeta() -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 4, 4)
    sums = torch.zeros(2, 10)
    for image, target in data:
        net.zero_grad()
        with_weight(net(image), target).backward()
        for row, norm in enumerate((net.norm, net.last)):
            sums[row] += (norm.weight * norm.weight.grad + norm.bias * norm.bias.grad).detach()
    scores = score(graph, net, Taylor(of="activation", form="signed"), data=data, loss=with_weight)
    torch.testing.assert_close(scores["stem"], (sums / 8).abs().sum(0))


def test_batches_do_not_matter_to_normalised_scores() -> None:
    net = made(Residual)
    graph, [(image, target)] = trace(net, images(1)[0]), data_for(net, 6)
    uneven = [(image[:1], target[:1]), (image[1:], target[1:])]
    criterion = Taylor(of="activation", form="squared", normalise=True)
    whole = score(graph, net, criterion, data=[(image, target)], loss=with_weight)
    assert_scores(score(graph, net, criterion, data=uneven, loss=with_weight), whole)


@pytest.mark.parametrize("statistic", ["mean", "apoz"])
@pytest.mark.parametrize("kind", [k for k in NETWORKS if k is not PreActivation])
def test_activation_is_the_mean_over_samples_and_places(kind: type[nn.Module], statistic: Any) -> None:
    net = made(kind)
    graph, data = trace(net, images(1)[0]), images(3, 2)
    keep: dict[str, Tensor] = {}
    net(torch.cat(data), keep)
    expected = {}
    for group, layers in net.taps.items():  # type: ignore[operator, union-attr]
        parts = []
        for calls in layers:
            x = torch.cat([channels(keep[c].detach(), group, c) for c in calls], -1).numpy()
            parts.append(torch.from_numpy((abs(x) if statistic == "mean" else x > 0).mean((0, 2))))
        expected[group] = torch.stack(parts).sum(0).float()
    assert_scores(score(graph, net, Activation(statistic=statistic), data=data), expected)


def test_frozen_layers_are_scored_like_others() -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    expected = by_sample(net, data, "abs", normalise=True)
    criterion = Taylor(of="activation", form="abs", normalise=True)
    assert_scores(score(graph, net.requires_grad_(False), criterion, data=data, loss=with_weight), expected)


def test_permuted_filters_have_permuted_scores() -> None:
    net, twin = made(Residual), made(Residual)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        twin.inner.weight.copy_(net.inner.weight[order])
        twin.inner.bias.copy_(net.inner.bias[order])
        twin.outer.weight.copy_(net.outer.weight[:, order])
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    for criterion in (Taylor(of="activation", normalise=True), Activation()):
        one, two = (score(graph, n, criterion, data=data, loss=with_weight) for n in (net, twin))
        torch.testing.assert_close(two["inner"], one["inner"][order])
        torch.testing.assert_close(two["stem"], one["stem"])


def test_a_criterion_of_ones_own_by_layer() -> None:
    class Peak(OutputCriterion):
        def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
            return output.amax(-1)

    net = made(Shared)
    keep: dict[str, Tensor] = {}
    net(images(4)[0], keep)
    expected = torch.stack([keep["first"], keep["second"]]).amax((0, 3, 4)).mean(0).detach()
    torch.testing.assert_close(
        score(trace(net, images(1)[0]), net, Peak(), data=images(4))["shared"], expected
    )

    class Whole(OutputCriterion):
        def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
            return output

    with pytest.raises(PruningError, match="reduce the last dim"):
        score(trace(net, images(1)[0]), net, Whole(), data=images(4))


class Branches(Residual):
    def forward(self, image: Tensor, keep: Any = None) -> Any:
        with torch.no_grad():
            x = self.norm(self.stem(image)).relu()
        return self.head(x + self.last(self.outer(self.inner(x).relu())))


def test_what_no_gradient_reaches_is_named() -> None:
    net = Residual().eval()
    graph, data = trace(net, images(1)[0]), data_for(net, 2)
    blind = Branches().eval()
    scores = score(graph, blind, Taylor(of="activation"), data=data, loss=with_weight)
    assert scores["stem"].min() >= 0, "the outer layer of the stream is reached"
    with pytest.raises(PruningError, match=r"no gradient ever reached what the layers of 'inner', 'stem'"):
        score(graph, net, Taylor(of="activation"), data=data, loss=lambda o, t: net.head.weight.sum())


@pytest.mark.parametrize(
    ("criterion", "arguments", "message"),
    [
        (Taylor(of="activation"), {"data": images(2)}, "and `loss`"),
        (Taylor(of="activation", gradient="random"), {}, "needs a pass over samples: give `data`"),
        (Activation(), {"data": []}, "nothing was observed"),
        (Activation(), {"data": [images(2)[0] * float("nan")]}, "1 skipped"),
        (
            Taylor(of="activation", normalise=True),
            {
                "data": [(images(2)[0], torch.zeros(2))],
                "loss": lambda output, target: output.detach().sum(),
            },
            "do not detach",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(
    criterion: OutputCriterion, arguments: dict[str, Any], message: str
) -> None:
    net = made(Residual)
    with pytest.raises(PruningError, match=message):
        score(trace(net, images(1)[0]), net, criterion, **arguments)


def test_a_batch_that_is_not_finite_is_left_out() -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3, 3)
    bad = (data[1][0] * float("inf"), data[1][1])
    criterion = Taylor(of="activation")
    expected = score(graph, net, criterion, data=data[:1], loss=with_weight)
    found = score(graph, net, criterion, data=[bad, data[0]], loss=with_weight)
    torch.testing.assert_close(found, expected)

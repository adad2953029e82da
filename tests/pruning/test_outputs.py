from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg_pruning.pruning.criteria import Activation, OutputCriterion, Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.pruning.tapped import NETWORKS, PreActivation, Residual, Shared, channels, images, made

Loss = Callable[[Tensor, Tensor], Tensor]
FORMED = {"signed": lambda z: z, "abs": torch.abs, "squared": torch.square}


def data_for(net: nn.Module, *sizes: int) -> list[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        return [(x, torch.randint(0, 2, net(x)[:, 0].shape)) for x in images(*sizes)]


def with_weight(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) + output.square().mean()


def combine(parts: list[Tensor], reduce: str) -> Tensor:
    stacked = torch.stack(parts)
    return {"sum": stacked.sum(0), "mean": stacked.mean(0), "max": stacked.amax(0)}[reduce]


def by_sample(
    net: nn.Module, data: list[tuple[Tensor, Tensor]], form: str, *, normalise: bool, reduce: str = "sum"
) -> dict[str, Tensor]:
    """Each sample alone: forward, gradient at the output, backward; no hooks, no batches."""
    found: dict[tuple[str, int], list[Tensor]] = {}
    for image, target in data:
        for n in range(len(image)):
            keep: dict[str, Tensor] = {}
            output = net(image[n : n + 1], keep)
            gradient = torch.autograd.grad(with_weight(output, target[n : n + 1]), output, retain_graph=True)[
                0
            ]
            output.backward(gradient / gradient.norm() if normalise else gradient / len(image))
            for group, layers in net.taps.items():  # type: ignore[operator, union-attr]
                for i, calls in enumerate(layers):
                    z = sum(channels(keep[c] * keep[c].grad, group, c).sum(-1)[0] for c in calls)  # type: ignore[operator]
                    found.setdefault((group, i), []).append(FORMED[form](z.detach()))  # type: ignore[no-untyped-call, union-attr]
            net.zero_grad()
    means = {key: torch.stack(zs).mean(0).abs() for key, zs in found.items()}
    groups = dict.fromkeys(group for group, _ in means)
    return {g: combine([m for (name, _), m in means.items() if name == g], reduce) for g in groups}


def close(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-3) -> None:
    assert list(found) == list(expected)
    for name, scores in found.items():
        assert scores.dtype is torch.float32
        assert expected[name].abs().max() > 1e-9, "the example says nothing"
        limit = 1e-5 * float(expected[name].abs().max())
        torch.testing.assert_close(scores, expected[name].float(), rtol=rtol, atol=max(limit, rtol * 1e-4))


@pytest.mark.parametrize(("form", "normalise"), list(product(FORMED, (False, True))))
@pytest.mark.parametrize("kind", NETWORKS)
def test_taylor_of_outputs_is_that_of_single_samples(
    kind: type[nn.Module], form: str, normalise: bool
) -> None:
    net = made(kind)
    graph, data = trace(net, images(1)[0]), data_for(net, 3, 2)
    expected = by_sample(net.double(), [(x.double(), t) for x, t in data], form, normalise=normalise)
    criterion = Taylor(of="activation", form=form, normalise=normalise)  # type: ignore[arg-type]
    close(score(graph, net.float(), criterion, data=data, loss=with_weight), expected)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_scores_of_several_makers_are_reduced_as_asked(reduce: Any) -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    expected = by_sample(net, data, "abs", normalise=True, reduce=reduce)
    criterion = Taylor(of="activation", form="abs", normalise=True, reduce=reduce)
    close(score(graph, net, criterion, data=data, loss=with_weight), expected)


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
    close(score(graph, net, criterion, data=uneven, loss=with_weight), whole)


def test_random_gradients_need_no_labels_and_repeat() -> None:
    net = made(Residual)
    graph, [image] = trace(net, images(1)[0]), images(5)
    kept = torch.get_rng_state()

    def scored(seed: int, data: list[Tensor]) -> Tensor:
        criterion = Taylor(of="activation", form="abs", gradient="random", normalise=True, seed=seed)
        return score(graph, net, criterion, data=data)["inner"]

    first = scored(0, [image])
    assert torch.equal(first, scored(0, [image]))
    torch.testing.assert_close(scored(0, [image[:2], image[2:]]), first)
    assert not torch.allclose(scored(1, [image]), first)
    assert torch.equal(torch.get_rng_state(), kept)


def test_random_gradients_are_standard_normal() -> None:
    """Of a filter that is the output but for a weight: z = weight * sum of x * noise has variance |wx|^2."""
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 1, 1, bias=False))
    graph, [image] = trace(net, images(1)[0]), images(800)
    image = image[:1].expand(800, -1, -1, -1)
    with torch.no_grad():
        expected = (net[1].weight[0] * net[0](image[:1])[0]).flatten(1).square().sum(1)
    criterion = Taylor(of="activation", form="squared", gradient="random")
    found = score(graph, net, criterion, data=[image])["0"]
    torch.testing.assert_close(found, expected, rtol=5 * (2 / 800) ** 0.5, atol=0)


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
    close(score(graph, net, Activation(statistic=statistic), data=data), expected)


@pytest.mark.parametrize("criterion", [Taylor(of="activation", normalise=True), Activation()])
def test_the_network_is_as_before_also_after_an_error(criterion: OutputCriterion) -> None:
    net = made(Residual).train()
    net.last.eval()
    net.inner.requires_grad_(False)
    net.head.weight.grad = torch.ones_like(net.head.weight)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    held, rng = net.head.weight.grad, torch.get_rng_state()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def check() -> None:
        assert net.training
        assert not net.last.training
        assert [n for n, p in net.named_parameters() if not p.requires_grad] == ["inner.weight", "inner.bias"]
        assert net.head.weight.grad is held
        assert held.eq(1).all()
        assert all(p.grad is None for n, p in net.named_parameters() if n != "head.weight")
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
        assert torch.equal(torch.get_rng_state(), rng)
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())

    with torch.no_grad():
        score(graph, net, criterion, data=data, loss=with_weight)
    check()
    broken = [(torch.zeros(1, 4, 8, 8), data[0][1])]
    with pytest.raises(RuntimeError):
        score(graph, net, criterion, data=broken, loss=with_weight)
    check()


def test_frozen_layers_are_scored_like_others() -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3)
    expected = by_sample(net, data, "abs", normalise=True)
    criterion = Taylor(of="activation", form="abs", normalise=True)
    close(score(graph, net.requires_grad_(False), criterion, data=data, loss=with_weight), expected)


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.bfloat16, 0.1), (torch.float16, 0.03)], ids=["bfloat16", "float16"]
)
def test_half_precision_gives_the_same_numbers(dtype: torch.dtype, rtol: float) -> None:
    """float16 rounds these gradients, divided by a million, to zero unless they are scaled."""
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 8)
    criterion = Taylor(of="activation", form="abs")

    def small(output: Tensor, target: Tensor) -> Tensor:
        return with_weight(output.float(), target) * 1e-6

    expected = score(graph, net, criterion, data=data, loss=small)
    with torch.autocast("cpu", dtype=dtype):
        found = score(graph, net, criterion, data=data, loss=small)
    for name, scores in found.items():
        assert (scores - expected[name]).norm() < rtol * expected[name].norm()
        assert (scores - expected[name]).norm() > 0, "nothing ran in half precision"


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


def test_several_outputs_count_together_in_the_norm() -> None:
    class Deep(Residual):
        def forward(self, image: Tensor, keep: Any = None) -> Any:
            main = super().forward(image, keep)
            return {"main": main, "unused": main.exp(), "mean": main.mean((2, 3))}

    net = made(Residual)
    deep = Deep().eval()
    deep.load_state_dict(net.state_dict())
    graph, data = trace(deep, images(1)[0]), data_for(net, 3)

    def loss(output: dict[str, Tensor], target: Tensor) -> Tensor:
        return F.cross_entropy(output["main"], target) + output["mean"].pow(3).sum()

    expected = torch.zeros(7)
    image, target = data[0]
    for n in range(3):
        keep: dict[str, Tensor] = {}
        output = net(image[n : n + 1], keep)
        main = output.detach().requires_grad_()
        mean = output.mean((2, 3)).detach().requires_grad_()
        loss({"main": main, "mean": mean}, target[n : n + 1]).div(3).backward()
        mean.grad *= 3  # the sum over samples is no mean over them
        norm = (main.grad.square().sum() + mean.grad.square().sum()).sqrt()
        torch.autograd.backward([output, output.mean((2, 3))], [main.grad / norm, mean.grad / norm])
        expected += (keep["inner"] * keep["inner"].grad).sum((0, 2, 3)).detach().abs() / 3
    criterion = Taylor(of="activation", form="abs", normalise=True)
    torch.testing.assert_close(score(graph, deep, criterion, data=data, loss=loss)["inner"], expected)


def test_a_norm_with_its_own_activation_is_read_before_that() -> None:
    class NormAct(nn.BatchNorm2d):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.drop(super().forward(x)))

    net = made(Residual)
    fused = made(Residual)
    fused.last = NormAct(10).eval()
    fused.last.load_state_dict(net.last.state_dict())
    with torch.no_grad():
        x = net.last(net.outer(net.inner(net.norm(net.stem(images(2)[0])).relu()).relu()))
        stem = net.norm(net.stem(images(2)[0]))
    scores = score(trace(fused, images(1)[0]), fused, Activation(), data=images(2))
    torch.testing.assert_close(scores["stem"], x.abs().mean((0, 2, 3)) + stem.abs().mean((0, 2, 3)))


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


class Own(nn.Module):
    """A convolution that no module of torch's makes, or that is used without being called."""

    def __init__(self, *, module: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1) if module else nn.ParameterDict({"weight": torch.randn(4, 3, 1, 1)})
        self.weight = nn.Parameter(torch.randn(4, 3, 1, 1))
        self.module, self.head = module, nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.conv2d(x, self.stem.weight if self.module else self.weight).relu())


@pytest.mark.parametrize(
    ("module", "message"), [(False, "come of no convolution"), (True, "'stem', of which channels of 'stem'")]
)
def test_what_cannot_be_heard_is_named_unless_it_is_not_read(module: bool, message: str) -> None:
    net = Own(module=module)
    graph, data = trace(net, images(1)[0]), images(2)
    with pytest.raises(PruningError, match=message):
        score(graph, net, Activation(), data=data)
    assert score(graph, net, Activation(), data=data, unread=[graph.prunable[0].name]) == {}


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


def test_outputs_without_a_dim_of_samples_cannot_be_normalised() -> None:
    class Summed(Residual):
        def forward(self, image: Tensor, keep: Any = None) -> Any:
            return super().forward(image, keep).sum(0)

    net = Summed().eval()
    graph = trace(Residual().eval(), images(1)[0])
    data = [(images(3)[0], torch.zeros(3))]
    with pytest.raises(PruningError, match=r"3 samples along the first dim, but got shapes \[\(2, 8, 8\)\]"):
        score(
            graph, net, Taylor(of="activation", normalise=True), data=data, loss=lambda o, t: o.square().sum()
        )


def test_a_batch_that_is_not_finite_is_left_out() -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), data_for(net, 3, 3)
    bad = (data[1][0] * float("inf"), data[1][1])
    criterion = Taylor(of="activation")
    expected = score(graph, net, criterion, data=data[:1], loss=with_weight)
    found = score(graph, net, criterion, data=[bad, data[0]], loss=with_weight)
    torch.testing.assert_close(found, expected)

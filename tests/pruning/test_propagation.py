from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg_pruning.pruning.criteria import Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.pruning.tapped import Residual, data_for, images, made, with_weight


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


def test_a_sample_without_gradient_counts_as_zero_and_tiny_ones_like_others() -> None:
    net = made(Residual)
    graph, [image] = trace(net, images(1)[0]), images(3)
    weight = torch.tensor([1.0, 0.0, 1e-25])[:, None, None, None]
    criterion = Taylor(of="activation", form="abs", normalise=True)

    def scored(chosen: list[int]) -> Tensor:
        data = [(image[chosen], weight[chosen].sign())]
        return score(graph, net, criterion, data=data, loss=lambda o, t: (o * t).sum())["inner"]

    data = [(image, weight)]
    found = score(graph, net, criterion, data=data, loss=lambda o, t: (o * t).sum())["inner"]
    torch.testing.assert_close(found, scored([0, 2]) * 2 / 3)

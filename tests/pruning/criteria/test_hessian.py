import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seg_pruning.pruning.criteria import Hessian
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import trace
from tests.pruning.tapped import Residual, images, made


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(x, torch.randint(0, 2, (len(x), 8, 8), generator=generator)) for x in images(*sizes)]


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_is_half_the_mean_square_of_weight_times_gradient(per: str) -> None:
    net = made(Residual)
    graph, data = trace(net, images(1)[0]), batches(3, 2)
    observed = (
        data if per == "batch" else [(x[n : n + 1], t[n : n + 1]) for x, t in data for n in range(len(x))]
    )
    expected = torch.zeros(7)
    for image, target in observed:
        net.zero_grad()
        F.cross_entropy(net(image), target).backward()
        for c in range(7):
            expected[c] += (net.inner.weight * net.inner.weight.grad)[c].square().sum().item()
            expected[c] += (net.inner.bias * net.inner.bias.grad)[c].square().item()
            expected[c] += (net.outer.weight * net.outer.weight.grad)[:, c].square().sum().item()
    criterion = Hessian(per=per)  # type: ignore[arg-type]
    assert criterion.needs == ("gradients" if per == "batch" else "pass")
    found = score(graph, net, criterion, data=data, loss=F.cross_entropy)["inner"]
    torch.testing.assert_close(found, expected / 2 / len(observed), rtol=1e-4, atol=0)


def test_of_samples_does_not_depend_on_batches() -> None:
    net = made(Residual)
    graph, [(image, target)] = trace(net, images(1)[0]), batches(4)
    split = [(image[:1], target[:1]), (image[1:], target[1:])]
    whole, parts = (
        score(graph, net, Hessian(per="sample"), data=data, loss=F.cross_entropy)
        for data in ([(image, target)], split)
    )
    torch.testing.assert_close(parts, whole)


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(
        PruningError, match=r"per of Hessian to be one of \('batch', 'sample'\), but got 'pixel'"
    ):
        Hessian(per="pixel")  # type: ignore[arg-type]

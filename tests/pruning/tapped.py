"""Networks that show what their filters put out, so that scores can be worked out without hooks.

`forward(image, keep)` puts each filter's output, after the norm that directly follows, into `keep`; `taps`
says which of them make a group: for each layer the names of its calls.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Keep = dict[str, Tensor]


def tap(keep: Keep | None, name: str, x: Tensor) -> Tensor:
    if keep is not None:
        if not x.requires_grad:
            x.requires_grad_()
        x.retain_grad()
        keep[name] = x
    return x


def relu(x: Tensor, keep: Keep | None) -> Tensor:
    """In place, as networks have it, but where the taps must stay as they are."""
    return F.relu(x, inplace=keep is None)


class Residual(nn.Module):
    """A stream of two makers, each with its norm; an inner layer without one."""

    taps: ClassVar = {"stem": [["stem"], ["outer"]], "inner": [["inner"]]}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10)
        self.inner = nn.Conv2d(10, 7, 3, padding=1)
        self.outer, self.last = nn.Conv2d(7, 10, 1), nn.BatchNorm2d(10)
        self.head = nn.Conv2d(10, 2, 1)

    def forward(self, image: Tensor, keep: Keep | None = None) -> Tensor:
        x = relu(tap(keep, "stem", self.norm(self.stem(image))), keep)
        y = relu(tap(keep, "inner", self.inner(x)), keep)
        return self.head(relu(x + tap(keep, "outer", self.last(self.outer(y))), keep))


class Mixed(nn.Module):
    """A grouped convolution, a grouped transposed one, two of each end to end, a depthwise one on top."""

    taps: ClassVar = {"stem": [["stem"]], "grouped": [["grouped"], ["one"]], "up": [["up"], ["one"]]}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.InstanceNorm2d(12, affine=True)
        self.grouped = nn.Conv2d(12, 9, 3, padding=1, groups=3)
        self.up, self.after = nn.ConvTranspose2d(12, 6, 3, padding=1, groups=3), nn.BatchNorm2d(6)
        self.one = nn.Conv2d(15, 15, 3, padding=1, groups=15)
        self.head = nn.Conv2d(15, 2, 1)

    def forward(self, image: Tensor, keep: Keep | None = None) -> Tensor:
        x = F.silu(tap(keep, "stem", self.norm(self.stem(image))), inplace=keep is None)
        left = relu(tap(keep, "grouped", self.grouped(x)), keep)
        right = relu(tap(keep, "up", self.after(self.up(x))), keep)
        return self.head(torch.tanh(tap(keep, "one", self.one(torch.cat([left, right], 1)))))


class Shared(nn.Module):
    """One layer called twice; pixel shuffle: four filters make a channel; a linear layer, channels last."""

    taps: ClassVar = {"wide": [["wide"], ["fold"]], "shared": [["first", "second"]], "linear": [["linear"]]}

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.shared = nn.Conv2d(3, 20, 3, padding=1), nn.Conv2d(5, 8, 3, padding=1)
        self.fold, self.linear, self.head = nn.Conv2d(8, 5, 1), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, image: Tensor, keep: Keep | None = None) -> Tensor:
        x = F.pixel_shuffle(tap(keep, "wide", self.wide(image)), 2).sigmoid()
        y = torch.tanh(tap(keep, "first", self.shared(x)))
        z = torch.tanh(tap(keep, "second", self.shared(torch.sin(tap(keep, "fold", self.fold(y)) * x))))
        hidden = tap(keep, "linear", self.linear(z.permute(0, 2, 3, 1)))
        return self.head(F.gelu(hidden)).permute(0, 3, 1, 2)


class PreActivation(nn.Module):
    """The norm gets the very tensor that the shortcut adds: the filter's output is the tensor itself."""

    taps: ClassVar = {"stem": [["stem"], ["outer"]], "inner": [["inner"]]}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.between = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.outer, self.head = nn.Conv2d(5, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

    def forward(self, image: Tensor, keep: Keep | None = None) -> Tensor:
        x = tap(keep, "stem", self.stem(image))
        y = relu(tap(keep, "inner", self.between(self.inner(relu(self.norm(x), keep)))), keep)
        return self.head(torch.tanh(x + tap(keep, "outer", self.outer(y))))


NETWORKS = (Residual, Mixed, Shared, PreActivation)


def channels(tensor: Tensor, group: str, name: str) -> Tensor:
    """The channels of a group in a tap, as `(N, C, places)`."""
    if name == "linear":
        tensor = tensor.permute(0, 3, 1, 2)
    if name == "one":
        tensor = tensor[:, :9] if group == "grouped" else tensor[:, 9:]
    if name == "wide":  # pixel shuffle takes four neighbours for one channel
        tensor = tensor.reshape(len(tensor), 5, -1)
    return tensor.flatten(2)


def made(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """In eval mode, with statistics and scales that are not trivial."""
    torch.manual_seed(seed)
    net = kind()
    net(torch.randn(8, 3, 8, 8))
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return net.eval()


def images(*sizes: int, seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 3, 8, 8, generator=generator) for size in sizes]


FORMED: dict[str, Any] = {"signed": lambda z: z, "abs": torch.abs, "squared": torch.square}


def data_for(net: nn.Module, *sizes: int) -> list[tuple[Tensor, Tensor]]:
    with torch.no_grad():
        return [(x, torch.randint(0, 2, net(x)[:, 0].shape)) for x in images(*sizes)]


def with_weight(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target) + output.square().mean()


def combine(parts: list[Tensor], reduce: str) -> Tensor:
    stacked = torch.stack(parts)
    return {"sum": stacked.sum(0), "mean": stacked.mean(0), "max": stacked.amax(0)}[reduce]


def changes(
    net: nn.Module, image: Tensor, target: Tensor, share: float | None
) -> dict[tuple[str, int], Tensor]:
    """For one sample the sum over places of x * dL/dx at each maker of each group.

    `share` is that of the sample in the loss of its batch; None for a gradient of unit norm at the output.
    """
    keep: dict[str, Tensor] = {}
    output = net(image, keep)
    (gradient,) = torch.autograd.grad(with_weight(output, target), output, retain_graph=True)
    output.backward(gradient / gradient.norm() if share is None else gradient * share)
    net.zero_grad()
    return {
        (group, i): torch.stack([channels(keep[c] * keep[c].grad, group, c).sum(-1)[0] for c in calls]).sum(0)
        for group, layers in net.taps.items()  # type: ignore[operator, union-attr]
        for i, calls in enumerate(layers)
    }


def by_sample(
    net: nn.Module, data: list[tuple[Tensor, Tensor]], form: str, *, normalise: bool, reduce: str = "sum"
) -> dict[str, Tensor]:
    """Each sample alone: forward, gradient at the output, backward; no hooks, no batches."""
    found: dict[tuple[str, int], list[Tensor]] = {}
    for batch, targets in data:
        for image, target in zip(batch.split(1), targets.split(1), strict=True):
            share = None if normalise else 1 / len(batch)
            for key, z in changes(net, image, target, share).items():
                found.setdefault(key, []).append(FORMED[form](z.detach()))
    means = {key: torch.stack(zs).mean(0).abs() for key, zs in found.items()}
    groups = dict.fromkeys(group for group, _ in means)
    return {g: combine([m for (name, _), m in means.items() if name == g], reduce) for g in groups}


def assert_scores(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 1e-3) -> None:
    assert list(found) == list(expected)
    for name, scores in found.items():
        assert scores.dtype is torch.float32
        assert expected[name].abs().max() > 1e-9, "the example says nothing"
        limit = 1e-5 * float(expected[name].abs().max())
        torch.testing.assert_close(scores, expected[name].float(), rtol=rtol, atol=max(limit, rtol * 1e-4))

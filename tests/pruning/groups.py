"""A small network whose groups are written down by hand, so that scores do not depend on tracing."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seg_pruning.surgery.graph import ChannelGroup, Member


class Net(nn.Module):
    """stem -> norm -> relu -> (+ a square convolution) -> head: one group of three channels, one of two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.square = nn.Conv2d(3, 3, 1, bias=False)
        self.middle = nn.Conv2d(3, 2, 3)
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu()
        x = (x + self.square(x)).relu()
        return self.head(self.middle(x).relu())


def member(tensor: str, dim: int, size: int, side: str = "out", *, parameter: bool = True) -> Member:
    return Member(tensor, (dim,), torch.arange(size), side, parameter)  # type: ignore[arg-type]


def group(name: str, size: int, *members: Member, prunable: bool = True) -> ChannelGroup:
    layers = tuple(dict.fromkeys(m.tensor.rpartition(".")[0] for m in members))
    rows = (tuple(range(size)),)
    return ChannelGroup(name, size, layers, members, rows, prunable, "" if prunable else "it is the output")


STREAM = group(
    "stem",
    3,
    member("stem.weight", 0, 3),
    member("stem.bias", 0, 3, "vector"),
    member("norm.weight", 0, 3, "vector"),
    member("norm.bias", 0, 3, "vector"),
    member("norm.running_mean", 0, 3, "vector", parameter=False),
    member("square.weight", 0, 3),
    member("square.weight", 1, 3, "in"),
    member("middle.weight", 1, 3, "in"),
)
MIDDLE = group(
    "middle",
    2,
    member("middle.weight", 0, 2),
    member("middle.bias", 0, 2, "vector"),
    member("head.weight", 1, 2, "in"),
)
OUTPUT = group("head", 1, member("head.weight", 0, 1), member("head.bias", 0, 1, "vector"), prunable=False)


@dataclass
class Graph:
    """What scores read of a graph."""

    groups: tuple[ChannelGroup, ...] = (STREAM, MIDDLE, OUTPUT)


def channel_masks(net: nn.Module, of: ChannelGroup, *, consumers: bool) -> list[dict[str, Tensor]]:
    """For each channel the mask of its elements in each parameter, written without the members."""
    names = {"stem": ["stem.weight", "stem.bias", "norm.weight", "norm.bias", "square.weight"]}
    makes = names.get(of.name, ["middle.weight", "middle.bias"])
    reads = {"stem": ["square.weight", "middle.weight"]}.get(of.name, ["head.weight"])
    parameters = dict(net.named_parameters())
    found = []
    for channel in range(of.size):
        masks = {name: torch.zeros_like(parameters[name], dtype=torch.bool) for name in [*makes, *reads]}
        for name in makes:
            masks[name][channel] = True
        for name in reads if consumers else []:
            masks[name][:, channel] = True
        found.append(masks)
    return found

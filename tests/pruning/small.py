"""A network of two groups, small enough to look at, and what is said of it without the code under test."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import seg_pruning as sp

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """Two groups: the stream that runs through an addition, and what is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.inner, self.outer = nn.Conv2d(12, 20, 3, padding=1), nn.Conv2d(20, 12, 1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        return self.head(self.drop(x + self.outer(self.inner(x).relu())))


def new_net(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    net = Small()
    nn.init.uniform_(net.norm.running_mean)
    nn.init.uniform_(net.norm.running_var, 0.5, 2.0)
    return net


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(2, 3, 8, 8, generator=generator), torch.randint(0, 2, (2, 8, 8), generator=generator))
        for _ in range(3)
    ]


def counted(net: nn.Module, example: Tensor) -> tuple[int, int]:
    """Parameters and MACs, counted with torch alone."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(net).eval()(example)
    return sum(p.numel() for p in net.parameters()), counter.get_total_flops() // 2


def masked(net: nn.Module, result: sp.PruneResult) -> nn.Module:
    """The dense network with zeros for what was removed."""
    state = net.state_dict()
    for name, mask in result.cut.masks.items():
        state[name][~mask] = 0
    return net.eval()


def everything(net: nn.Module) -> dict[str, Any]:
    """All that a roll-back has to restore."""
    found: dict[str, Any] = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    for path, module in net.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, int | float | tuple | str):
                found[f"{path}:{key}"] = value
    return found


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return list(first) == list(second) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in zip(first.values(), second.values(), strict=True)
    )


def trained(
    net: nn.Module, kind: Callable[..., torch.optim.Optimizer], **options: Any
) -> torch.optim.Optimizer:
    optimizer = kind(net.parameters(), **options)
    for image, target in batches():
        optimizer.zero_grad()
        F.cross_entropy(net(image), target).backward()
        optimizer.step()
    return optimizer

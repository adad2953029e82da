"""Takes channels out of a network until a budget holds: by this package, or by Torch-Pruning."""

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

import seg_pruning as sp
from benchmarks.recovery.arms import Arm, Budget, Theirs
from seg_pruning.pruning.recalibration import recalibrate_, tracking_norms
from seg_pruning.surgery.inputs import Inputs

Pairs = Sequence[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]

_TRIES = 14


def cut_(network: nn.Module, image: Tensor, arm: Arm, budget: Budget, data: Pairs, loss: Loss) -> nn.Module:
    """The network at `budget`: `network` itself cut by this package, or what Torch-Pruning left of a copy."""
    network.eval()
    if isinstance(arm.cut, Theirs):
        network = _theirs(network, image, arm.cut, budget, data, loss)
    elif arm.cut is not None:
        sp.prune_(
            network,
            image,
            budget=dict([budget]),
            criterion=arm.cut.criterion,
            selection=arm.cut.selection,
            data=data,
            loss=loss,
            compensate=arm.after == "compensated",
        )
    if arm.after == "recalibrated":
        recalibrate_(network, tracking_norms(network), [Inputs.of(images) for images, _ in data])
    return network


def _theirs(
    network: nn.Module, image: Tensor, how: Theirs, budget: Budget, data: Pairs, loss: Loss
) -> nn.Module:
    """Halves the interval of its ratio, which is of channels, until the budget just holds."""
    gradients = _gradients(network, data, loss)
    dense, (unit, kept) = sp.cost(network, image), budget
    low, high, best = 0.0, 1.0, None
    for _ in range(_TRIES):
        ratio = (low + high) / 2
        tried = _pruned(network, image, how, ratio, gradients)
        if getattr(sp.cost(tried, image), unit) <= kept * getattr(dense, unit):
            high, best = ratio, tried
        else:
            low = ratio
    if best is None:
        raise RuntimeError(f"Torch-Pruning reaches {kept} of the {unit} at no ratio")
    return best


def _pruned(
    network: nn.Module, image: Tensor, how: Theirs, ratio: float, gradients: Iterable[Tensor]
) -> nn.Module:
    import torch_pruning  # here: only its arms need the extra `benchmark`

    model = copy.deepcopy(network)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient.clone()
    importance = torch_pruning.importance
    ignored = [model.segmentation_head]
    if how.spare:
        ignored += [model.decoder.blocks[-1].conv2]
    torch_pruning.pruner.MetaPruner(
        model,
        image,
        importance=importance.GroupMagnitudeImportance(p=2)
        if how.importance == "l2"
        else importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        global_pruning=True,
        ignored_layers=ignored,
    ).step()
    model.zero_grad()
    return model


def _gradients(network: nn.Module, data: Pairs, loss: Loss) -> list[Tensor]:
    """The gradient of the mean loss over the batches."""
    total = [torch.zeros_like(p) for p in network.parameters()]
    for images, masks in data:
        found = torch.autograd.grad(loss(network(images), masks), list(network.parameters()))
        for at, gradient in zip(total, found, strict=True):
            at += gradient / len(data)
    return total


def redraw_(network: nn.Module) -> None:
    """Draws all weights anew: He's for convolutions, as torchvision does it, and BatchNorm as it begins."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()

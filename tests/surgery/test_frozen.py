"""What is frozen is cut like all else, and stays frozen."""

import copy

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from seg_pruning.pruning import prune_
from tests.surgery.oracle import answers, randomise_

IMAGE = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)


def freeze_(module):
    """No gradients, and norms that do not move."""
    module.requires_grad_(False)
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.eval()


def freeze_norms_(model):
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            freeze_(module)


FROZEN = {
    "nothing": lambda model: None,
    "norms": freeze_norms_,
    "stem": lambda model: (freeze_(model.encoder.conv1), freeze_norms_(model)),
    "encoder": lambda model: freeze_(model.encoder),
    "decoder": lambda model: freeze_(model.decoder),
    "all": freeze_,
}


def dense():
    torch.manual_seed(0)
    return randomise_(
        smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(24, 16, 8), classes=2)
    )


def flags(model):
    return (
        {name: (id(p), p.requires_grad, p.is_leaf) for name, p in model.named_parameters()},
        {path: module.training for path, module in model.named_modules()},
    )


def loss(model):
    return model(torch.cat([IMAGE, -IMAGE])).square().mean()


def in_training(what):
    """A network in training, partly frozen, and an optimizer with state that holds what is not frozen."""
    model = dense()
    values = copy.deepcopy(model.state_dict())
    model.train()
    FROZEN[what](model)
    free = [p for p in model.parameters() if p.requires_grad and not p.grad_fn]
    optimizer = torch.optim.AdamW(free or [torch.zeros(1, requires_grad=True)], lr=0.0)
    if free:
        loss(model).backward()
        optimizer.step()
    model.load_state_dict(values)  # statistics have moved, in as far as they are not frozen
    optimizer.param_groups[0]["lr"] = 1e-2
    return model, optimizer


@pytest.fixture(scope="module")
def reference():
    """What becomes of the network in which nothing is frozen and nothing was trained."""
    model = dense()
    result = prune_(model, IMAGE, budget={"macs": 0.5})
    return result.plan, model.state_dict(), answers(model, IMAGE)


@pytest.mark.parametrize("what", FROZEN)
def test_all_are_cut_alike_and_all_flags_are_kept(what, reference):
    plan, state, expected = reference
    model, optimizer = in_training(what)
    before, held = flags(model), [id(p) for p in optimizer.param_groups[0]["params"]]
    dead = {id(p) for path in plan.dropped for p in model.get_submodule(path).parameters()}
    gone = {f"{path}." for path in plan.dropped}
    result = prune_(model, IMAGE, budget={"macs": 0.5}, optimizers=[optimizer])

    assert result.plan == plan
    assert len(plan.kept) > 5
    assert plan.dropped
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    now = flags(model)
    for old, new in zip(before, now, strict=True):
        assert new.items() <= old.items()
        assert all(name.startswith(tuple(gone)) for name in set(old) - set(new))
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [i for i in held if i not in dead]
    modes = [(module, module.training) for module in model.modules()]
    assert all(torch.equal(a, b) for a, b in zip(answers(model.eval(), IMAGE), expected, strict=True))
    for module, mode in modes:
        module.training = mode

    if what == "all":
        return
    values = {name: p.detach().clone() for name, p in model.named_parameters()}
    resting = [m for m in model.modules() if isinstance(m, _BatchNorm) and not m.training]
    statistics = [m.running_mean.clone() for m in resting]
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, values[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(m.running_mean, old) for m, old in zip(resting, statistics, strict=True))
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())

"""Pruned while they train: optimizers, loops of one's own, one cut after another."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import seg_pruning as sp
from tests.pruning.small import IMAGE, batches, counted, masked, new_net, trained


@pytest.mark.parametrize(
    ("kind", "options", "keys"),
    [
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, {"momentum_buffer"}),
        (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}, {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (torch.optim.AdamW, {"lr": 0.01}, {"exp_avg", "exp_avg_sq"}),
    ],
)
def test_optimizers_keep_the_state_of_what_stays(kind: Any, options: dict[str, Any], keys: set[str]) -> None:
    net = new_net()
    optimizer = trained(net, kind, **options)
    names = {p: name for name, p in net.named_parameters()}
    before = {
        names[p]: {k: v.clone() for k, v in state.items() if k in keys}
        for p, state in optimizer.state.items()
    }
    result = sp.prune_(net, IMAGE, budget={"params": 0.4}, optimizers=[optimizer])
    assert {names[p] for p in optimizer.state} == set(before)
    for parameter, state in optimizer.state.items():
        for key in keys:
            dense = before[names[parameter]][key]
            mask = result.cut.masks.get(names[parameter], torch.ones_like(dense, dtype=torch.bool))
            assert torch.equal(state[key], dense[mask].reshape(parameter.shape))
    values = {name: p.detach().clone() for name, p in net.named_parameters()}
    net.train()
    optimizer.zero_grad()
    image, target = batches()[0]
    F.cross_entropy(net(image), target).backward()
    optimizer.step()
    assert all(not torch.equal(p, values[name]) for name, p in net.named_parameters())


def test_a_plain_torch_loop_prunes_as_it_trains_and_its_loss_falls() -> None:
    net = new_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    data, losses, sizes = batches()[:1], [], []
    for epoch in range(30):
        if epoch in (10, 15):
            kept = {10: 0.7, 15: 0.6}[epoch]
            sizes.append(sp.prune_(net, IMAGE, budget={"params": kept}, optimizers=[optimizer]).after.params)
        for image, target in data:
            optimizer.zero_grad()
            loss = F.cross_entropy(net.train()(image), target)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert sizes[1] <= 0.6 * sizes[0] <= 0.6 * 0.7 * counted(new_net(), IMAGE)[0]
    assert losses[-1] < losses[16] < losses[0]


def test_twice_in_a_row_is_a_share_of_a_share() -> None:
    net = new_net().eval()
    first = sp.prune_(net, IMAGE, budget={"params": 0.6})
    once = copy.deepcopy(net)
    second = sp.prune_(net, IMAGE, budget={"params": 0.6}, criterion="l1")
    assert (second.before.params, second.before.macs) == (first.after.params, first.after.macs)
    assert second.after.params <= 0.6 * first.after.params
    torch.testing.assert_close(net(IMAGE), masked(once, second)(IMAGE), rtol=1e-4, atol=1e-5)

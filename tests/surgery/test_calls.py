"""What is seen of torch functions as Python calls them, and what follows from it."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg_pruning.surgery.calls import FunctionCalls
from seg_pruning.surgery.inputs import Inputs
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.operation import operate_
from seg_pruning.surgery.sizes import Size
from seg_pruning.surgery.trial import random_plan, trace
from tests.others.absent import masked_answers
from tests.surgery.oracle import answers, randomise_, same


class Checked(nn.Module):
    """A block that insists on its width, as research code does."""

    def __init__(self, *, window: int = 3) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)
        self.dim, self.window = 12, window

    def checked(self, x: Tensor) -> Tensor:
        _, c, _, _ = x.shape
        assert c == self.dim, (c, self.dim)
        return x.relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.checked(self.before(x)))


class Different(Checked):
    def checked(self, x: Tensor) -> Tensor:
        if x.shape[1] != self.dim:
            raise RuntimeError("another width was meant")
        return x.relu()


class ByChance(Checked):
    """The window is as long as the channels are many, and the code looks whether it is."""

    def checked(self, x: Tensor) -> Tensor:
        pooled = nn.functional.avg_pool2d(x, self.window, 1, self.window // 2)
        return pooled if x.shape[1] == self.window else pooled * 2


@pytest.mark.parametrize("make", [Checked, Different])
def test_a_width_that_python_insists_on_is_rewritten(make):
    dense = randomise_(make())
    x = torch.rand(2, 3, 6, 6)
    graph = trace(dense, x)
    assert [group.name for group in graph.prunable] == ["before"]
    pruned = copy.deepcopy(dense)
    cut = operate_(pruned, graph, random_plan(graph), Inputs.of(x)).cut
    assert pruned.dim == pruned.before.out_channels < 12
    assert same(answers(pruned, x), masked_answers(dense, cut.masks, x))


def test_an_attribute_that_is_a_width_by_chance_is_not_rewritten_where_it_decides_something_else():
    graph = trace(randomise_(ByChance(window=12)), torch.rand(2, 3, 16, 16))
    (group,) = [group for group in graph.groups if group.name == "before"]
    assert "tried and refused" in group.reason


def test_a_length_is_a_size_where_channels_leave_line_by_line():
    ledger, x = Ledger(count=30), torch.zeros(1, 3, 2, 5)
    joint = np.arange(10, 16).reshape(1, 3, 2, 1)
    ledger.set(x, (joint,))
    with FunctionCalls(ledger):
        assert {type(length) for length in x.shape} == {int}  # open
        ledger.narrow(joint, [1], "rows")
        lengths = x.shape
    assert tuple(lengths) == (1, 3, 2, 5)
    assert [type(length) for length in lengths] == [int, Size, int, int]
    assert (lengths[1].owner, lengths[1].expression.dim) == (ledger, 1)
    assert lengths[1].expression.labels is joint


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("sides", [{}, {"kdim": 6, "vdim": 10}])
def test_the_steps_of_multi_head_attention_are_seen_and_its_answer_is_the_same(need_weights, sides):
    layer = randomise_(nn.MultiheadAttention(8, 2, batch_first=True, **sides))
    query = torch.rand(2, 5, 8)
    key, value = (torch.rand(2, 7, sides.get(name, 8)) for name in ("kdim", "vdim"))
    seen: list[str] = []

    class Watcher(FunctionCalls):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(getattr(func, "__name__", ""))
            return super().__torch_function__(func, types, args, kwargs)

    with torch.no_grad():
        expected = layer(query, key, value, need_weights=need_weights)
        with Watcher():
            found = layer(query, key, value, need_weights=need_weights)
    torch.testing.assert_close(found, expected)
    assert {"multi_head_attention_forward", "linear", "view"} <= set(seen)

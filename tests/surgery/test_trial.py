import pytest
import torch
from torch import nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.trial import random_plan, trace
from tests.networks import NETWORKS, Net, conv


class Scaled(Net):
    """Divides by the number of channels: no rule sees it, the trial does."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 10), conv(10, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x / x.shape[1])


class Tempered(Net):
    """A number for each head, all of which the network answers with: no head can leave."""

    def __init__(self):
        super().__init__()
        self.heads, self.temperature = 3, nn.Parameter(torch.rand(3, 1, 1))
        self.stem, self.head = conv(3, 12), conv(12, 2)

    def forward(self, x):
        x = self.stem(x)
        heads = x.reshape(len(x), self.heads, x.shape[1] // self.heads, -1) * self.temperature
        return self.head(heads.reshape(x.shape)), self.temperature


class Noisy(Net):
    """Adds noise, which differs with the number of channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = conv(3, 10), conv(10, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + torch.randn_like(x))


class Counting(Net):
    """Runs another op each time."""

    def __init__(self):
        super().__init__()
        self.stem, self.head, self.calls = conv(3, 10), conv(10, 2), {"forward": 0}

    def forward(self, x):
        self.calls["forward"] += 1
        x = self.stem(x)
        return self.head(x.relu() if self.calls["forward"] % 2 else x.sigmoid())


@pytest.mark.parametrize("kind", [Scaled, Noisy])
def test_what_no_rule_sees_the_trial_refuses(kind):
    (group,) = [g for g in trace(kind(), kind.example()).groups if g.name == "stem"]
    assert not group.prunable
    assert "a trial cut changed the output" in group.reason


def test_a_network_that_changes_is_refused():
    with pytest.raises(PruningError, match="does not run the same ops each time"):
        trace(Counting(), Counting.example())


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(
        PruningError, match=r"does not run on the example inputs of shapes \(\(1, 5, 8, 8\),\)"
    ):
        trace(NETWORKS["Chain"](), torch.zeros(1, 5, 8, 8))


def test_a_network_without_a_tensor_is_refused():
    class Silent(nn.Linear):
        def forward(self, x):
            return "done"

    with pytest.raises(PruningError, match="returned no tensor"):
        trace(Silent(2, 2), torch.zeros(1, 2))


def test_random_plans_are_legal_and_repeatable():
    graph = trace(NETWORKS["Grouped"](), NETWORKS["Grouped"].example())
    assert random_plan(graph, seed=3) == random_plan(graph, seed=3) != random_plan(graph, seed=4)
    for seed in range(5):
        plan = random_plan(graph, seed=seed)
        assert all(0 < len(kept) < graph[name].size for name, kept in plan.kept.items())
        graph.cut(plan)


def test_a_fused_layer_of_torch_is_traced():
    layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 12), layer, nn.Linear(12, 2))
    assert [g.name for g in trace(model, torch.randn(2, 5, 8)).prunable] == ["0", "1.linear1"]


def test_heads_that_cannot_leave_as_a_whole_lose_width():
    graph = trace(Tempered(), Tempered().example())
    assert [(group.name, len(group.rows), group.size) for group in graph.prunable] == [("stem", 3, 12)]
    (held,) = [group for group in graph.groups if group.layers == ("",)]
    assert held.size == 3

import pytest
import torch
from torch import nn

from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS


def test_each_group_is_listed_with_its_share_or_its_reason():
    graph = trace(NETWORKS["DeadBranch"](), NETWORKS["DeadBranch"].example())
    text = graph.report()
    # 3 * 10 * 9 + 10 + 10 * 2 * 9 + 2 and the idle 10 * 6 * 9 + 6 + 12 params
    assert "1 of 2 groups can be pruned (10 of 12 channels); 1,020 params" in " ".join(text.split())
    (line,) = [line for line in text.splitlines() if line.startswith("│ stem")]
    assert "22.5%" in line  # half of 280 + 180 params
    assert "50.0%" in line
    (line,) = [line for line in text.splitlines() if line.startswith("│ head")]
    assert "reaches the output" in line
    assert "never runs: unused.0.weight" in text


class SoftmaxOfKeys(nn.Module):
    """Channels of `queries` are weighed by nothing, those of `keys` against each other."""

    def __init__(self):
        super().__init__()
        self.queries, self.keys, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x):
        q, k = self.queries(x).flatten(2), self.keys(x).flatten(2)
        return self.head(((q @ k.transpose(1, 2)).softmax(-1) @ k).view(len(x), -1, *x.shape[2:]))


def test_only_those_whose_distribution_changes_are_said_to():
    graph = trace(SoftmaxOfKeys(), torch.rand(1, 3, 8, 8))
    said = {line.split()[1] for line in graph.report().splitlines() if "run over those that are kept" in line}
    assert said == {"keys"}
    assert {group.name for group in graph.prunable} == {"queries", "keys"}


@pytest.mark.parametrize(("name", "said"), [("Grouped", True), ("Halves", False)])
def test_blocks_that_may_leave_as_a_whole_are_said(name, said):
    graph = trace(NETWORKS[name](), NETWORKS[name].example())
    lines = [line for line in graph.report().splitlines() if "blocks of equal width" in line]
    assert lines
    assert all(("or fewer" in line) == said for line in lines)


@pytest.mark.parametrize(("name", "said"), [("LayerNorm", True), ("GroupNorm", True), ("Chain", False)])
def test_a_norm_whose_population_changes_is_said(name, said):
    graph = trace(NETWORKS[name](), NETWORKS[name].example())
    (line,) = [line for line in graph.report().splitlines() if line.startswith("│ stem")]
    assert ("run over those that are kept" in line) == said

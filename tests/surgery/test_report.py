import pytest

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


@pytest.mark.parametrize(("name", "said"), [("LayerNorm", True), ("GroupNorm", True), ("Chain", False)])
def test_a_norm_whose_population_changes_is_said(name, said):
    graph = trace(NETWORKS[name](), NETWORKS[name].example())
    (line,) = [line for line in graph.report().splitlines() if line.startswith("│ stem")]
    assert ("run over those that are kept" in line) == said

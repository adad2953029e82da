import io
from typing import Any

import pytest
import torch
from torch import nn

from seg_pruning.pruning.criteria import Activation, Taylor
from seg_pruning.pruning.running import RunningScores, parameters_of
from seg_pruning.surgery.errors import PruningError
from tests.pruning.groups import MIDDLE, STREAM, Graph, Net, group, member

GRAPH: Any = Graph()


def new_net() -> Net:
    torch.manual_seed(0)
    return Net()


def gradients_of(net: Net, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_running_scores_are_the_mean_of_what_the_parameters_hold() -> None:
    net, running = new_net(), RunningScores("taylor")
    singles = []
    for seed in range(4):
        gradients_of(net, seed)
        running.update(GRAPH, parameters_of(net))
        weights = dict(net.named_parameters())
        singles.append(Taylor()(STREAM, weights, {name: w.grad for name, w in weights.items()}))  # type: ignore[misc]
    torch.testing.assert_close(running.compute()["stem"], torch.stack(singles).mean(0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_observation_that_is_not_finite_is_skipped_and_counted(value: float) -> None:
    net, running = new_net(), RunningScores("taylor")
    gradients_of(net, 0)
    running.update(GRAPH, parameters_of(net))
    expected = running.compute()
    net.stem.weight.grad[0, 0, 0, 0] = value  # type: ignore[index]
    running.update(GRAPH, parameters_of(net))
    assert (running.count, running.skipped) == (1, 1)
    torch.testing.assert_close(running.compute(), expected)


def test_interrupted_equals_uninterrupted_and_the_file_holds_plain_types() -> None:
    net, whole, first, second = new_net(), *(RunningScores("taylor") for _ in range(3))
    for seed in range(4):
        gradients_of(net, seed)
        whole.update(GRAPH, parameters_of(net))
        (first if seed < 2 else second).update(GRAPH, parameters_of(net))
        if seed == 1:
            file = io.BytesIO()
            torch.save(first.state_dict(), file)
            file.seek(0)
            second.load_state_dict(torch.load(file, weights_only=True))
    assert second.count == 4
    for name, scores in whole.compute().items():
        assert torch.equal(second.compute()[name], scores)


def test_a_saved_state_does_not_follow_later_updates() -> None:
    net, running = new_net(), RunningScores("taylor")
    gradients_of(net, 0)
    running.update(GRAPH, parameters_of(net))
    state = running.state_dict()
    before = state["sums"]["stem"].clone()
    running.update(GRAPH, parameters_of(net))
    assert torch.equal(state["sums"]["stem"], before)


def test_channels_from_before_a_cut_never_meet_those_from_after() -> None:
    running = RunningScores("random")
    running.update(GRAPH, {"w": torch.zeros(1)})
    smaller: Any = Graph((group("stem", 2, member("stem.weight", 0, 2)), MIDDLE))
    with pytest.raises(PruningError, match=r"stem \(3 -> 2\)\. Call reset\(\) after a cut"):
        running.update(smaller, {"w": torch.zeros(1)})
    running.reset()
    running.update(smaller, {"w": torch.zeros(1)})
    assert len(running.compute()["stem"]) == 2


def test_a_shared_parameter_is_found_by_each_of_its_names() -> None:
    first = nn.Linear(2, 2)
    both = nn.Sequential(first, first)
    assert list(parameters_of(both)) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_groups_that_nobody_reads_are_left_out_each_time() -> None:
    net, running = new_net(), RunningScores("taylor")
    for seed in range(2):
        gradients_of(net, seed)
        running.update(GRAPH, parameters_of(net), unread=("stem",))
    assert list(running.compute()) == ["middle"]


def test_outputs_are_refused() -> None:
    with pytest.raises(PruningError, match="Activation scores what layers put out"):
        RunningScores(Activation()).update(GRAPH, parameters_of(new_net()), {})

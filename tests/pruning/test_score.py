import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning.criteria import Criterion, Taylor
from seg_pruning.pruning.score import RunningScores, parameters_of, score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGroup
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.pruning.groups import MIDDLE, STREAM, Graph, Net, group, member

GRAPH: Any = Graph()


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [
        (torch.randn(2, 2, 6, 6, generator=generator), torch.randn(2, 1, 4, 4, generator=generator))
        for _ in range(count)
    ]


def new_net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net()
    net(torch.randn(8, 2, 6, 6))  # BatchNorm statistics that are not trivial
    return net


def test_weight_criteria_need_no_data_and_keys_follow_the_graph() -> None:
    net = new_net()
    scores = score(GRAPH, net, "l2")
    assert list(scores) == ["stem", "middle"]
    middle = torch.cat(
        [net.middle.weight.flatten(1), net.middle.bias[:, None], net.head.weight.flatten(1).T], dim=1
    )
    torch.testing.assert_close(scores["middle"], middle.detach().norm(dim=1))


@pytest.mark.parametrize("form", ["squared", "abs"])
def test_gradient_criteria_average_over_batches_in_eval_mode(form: Any) -> None:
    net = new_net()
    expected = torch.zeros(2)
    for image, target in batches():
        net.zero_grad()
        squared_error(net.eval()(image), target).backward()
        change = torch.stack(
            [
                (net.middle.weight * net.middle.weight.grad)[c].sum()
                + (net.middle.bias * net.middle.bias.grad)[c]
                + (net.head.weight * net.head.weight.grad)[:, c].sum()
                for c in range(2)
            ]
        ).detach()
        expected += (change.square() if form == "squared" else change.abs()) / 3
    net.train()
    scores = score(GRAPH, net, Taylor(form=form), data=batches(), loss=squared_error)
    torch.testing.assert_close(scores["middle"], expected)


def test_scoring_leaves_the_network_as_it_was() -> None:
    net = new_net().train()
    net.norm.eval()
    net.middle.weight.grad = torch.ones_like(net.middle.weight)
    held = net.middle.weight.grad
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.register_forward_pre_hook(lambda *_: torch.rand(1) and None)  # draws a random number in every pass
    rng = torch.get_rng_state()
    score(GRAPH, net, "taylor", data=batches(), loss=squared_error)
    assert net.training
    assert not net.norm.training
    assert net.middle.weight.grad is held
    assert torch.equal(held, torch.ones_like(held))
    assert net.head.weight.grad is None
    assert torch.equal(torch.get_rng_state(), rng)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_inputs_by_keyword_and_inside_no_grad() -> None:
    data = [({"image": image}, target) for image, target in batches()]
    with torch.no_grad():
        by_keyword = score(GRAPH, new_net(), "taylor", data=data, loss=squared_error)
    by_position = score(GRAPH, new_net(), "taylor", data=batches(), loss=squared_error)
    torch.testing.assert_close(by_keyword, by_position)


def test_a_frozen_parameter_counts_as_zero() -> None:
    frozen, net = new_net(), new_net()
    frozen.middle.requires_grad_(False)
    scores = score(GRAPH, frozen, Taylor(form="abs"), data=batches(1), loss=squared_error)
    image, target = batches(1)[0]
    squared_error(net.eval()(image), target).backward()
    expected = (net.head.weight * net.head.weight.grad).detach().flatten().abs()
    torch.testing.assert_close(scores["middle"], expected)


def test_a_group_without_any_gradient_is_named() -> None:
    net = new_net()
    net.middle.requires_grad_(False)
    net.head.requires_grad_(False)
    with pytest.raises(PruningError, match="no parameter of 'middle' ever had a gradient: unfreeze"):
        score(GRAPH, net, "taylor", data=batches(), loss=squared_error)
    with pytest.raises(PruningError, match="requires a gradient"):
        score(GRAPH, net.requires_grad_(False), "taylor", data=batches(), loss=squared_error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Taylor needs gradients: give `data`"),
        ({"data": batches()}, "and `loss`"),
        ({"data": [], "loss": squared_error}, "nothing was observed"),
        ({"data": [{"image": 1}], "loss": squared_error}, "not dict: pair them"),
        ({"data": batches(), "loss": lambda output, target: output - target}, "one number"),
        ({"data": batches(), "loss": lambda output, target: output.detach().mean()}, "do not detach"),
        ({"data": batches(), "loss": lambda output, target: output.sum() * float("nan")}, "3 skipped"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        score(GRAPH, new_net(), "taylor", **arguments)


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


def test_a_criterion_of_ones_own() -> None:
    class FirstWeight(Criterion):
        gradients = False

        def __call__(self, group: ChannelGroup, weights: Any, gradients: Any) -> Tensor:
            return torch.full((group.size,), float(weights["stem.bias"][0]))

    net = new_net()
    with torch.no_grad():
        net.stem.bias[0] = 7.0
    assert score(GRAPH, net, FirstWeight())["middle"].tolist() == [7.0, 7.0]


@pytest.mark.parametrize("name", ["stem", "middle"])
def test_a_channel_scores_what_a_real_cut_of_it_removes(name: str) -> None:
    """Traced groups: the L1 score is the sum over all parameter elements that go where the channel goes."""
    net = new_net()
    graph = trace(net, torch.zeros(1, 2, 6, 6))
    size = graph[name].size
    scores = score(graph, net, "l1")[name]
    for channel in range(size):
        kept = tuple(other for other in range(size) if other != channel)
        masks = graph.cut(Plan(kept={name: kept}, sizes={name: size})).masks
        gone = [weight[~masks[key]] for key, weight in net.named_parameters() if key in masks]
        assert scores[channel].item() == pytest.approx(torch.cat(gone).abs().sum().item())


def test_a_shared_parameter_is_found_by_each_of_its_names() -> None:
    first = nn.Linear(2, 2)
    both = nn.Sequential(first, first)
    assert list(parameters_of(both)) == ["0.weight", "0.bias", "1.weight", "1.bias"]

from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from seg_pruning.pruning.criteria import Criterion, OutputCriterion, Taylor
from seg_pruning.pruning.score import score
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import ChannelGroup
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.pruning.groups import Graph, Net

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


@pytest.mark.parametrize("of", ["weight", "activation"])
def test_gradients_are_there_inside_inference_mode_too(of: Any) -> None:
    net = new_net().eval()
    graph, criterion = trace(net, batches(1)[0][0]), Taylor(of=of)
    expected = score(graph, net, criterion, data=batches(), loss=squared_error)
    data = batches()
    with torch.inference_mode():
        found = score(graph, net, criterion, data=data, loss=squared_error)
    torch.testing.assert_close(found, expected)


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
        ({"data": batches(), "loss": lambda output, target: output - target}, "one number .* of shape"),
        ({"data": batches(), "loss": lambda output, target: 1.0}, "one number .* got 1.0"),
        ({"data": batches(), "loss": lambda output, target: output.detach().mean()}, "do not detach"),
        ({"data": batches(), "loss": lambda output, target: output.sum() * float("nan")}, "3 skipped"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PruningError, match=message):
        score(GRAPH, new_net(), "taylor", **arguments)


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


def test_of_half_precision_gradients_nothing_is_rounded_to_zero() -> None:
    """float16 rounds these gradients, divided by a million, to zero unless they are scaled."""
    net, criterion = new_net(), Taylor(form="abs")

    def small(output: Tensor, target: Tensor) -> Tensor:
        return squared_error(output.float(), target) * 1e-6

    expected = score(GRAPH, net, criterion, data=batches(), loss=small)
    with torch.autocast("cpu", dtype=torch.float16):
        found = score(GRAPH, net, criterion, data=batches(), loss=small)
    for name, scores in found.items():
        assert 0 < (scores - expected[name]).norm() < 0.05 * expected[name].norm()


class Median(OutputCriterion):
    def measure(self, output: Tensor, gradient: Tensor | None) -> Tensor:
        return output.median(-1).values


def test_a_criterion_of_ones_own_by_class_path() -> None:
    parser = ArgumentParser()
    parser.add_argument("--criterion", type=Criterion)
    path = f"{Median.__module__}.Median"
    config = parser.parse_object({"criterion": {"class_path": path, "init_args": {"reduce": "max"}}})
    criterion = parser.instantiate(config).criterion
    assert isinstance(criterion, Median)
    net = new_net().eval()
    image = batches(1)[0][0]
    x = net.stem(image)
    y = net.norm(x).relu()
    expected = net.middle((y + net.square(y)).relu()).flatten(2).median(-1).values.mean(0).detach()
    found = score(trace(net, image), net, criterion, data=[image])
    torch.testing.assert_close(found["middle"], expected)

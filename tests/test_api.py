"""The surface that users see: every name, how it is called, what it answers."""

import inspect
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seg_pruning as sp
from tests.networks import Residual

IMAGE = Residual.example()
REQUIRED = inspect.Parameter.empty


def defaults(function: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


def positional(function: Any) -> list[str]:
    """The arguments that may be given without their name."""
    return [
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]


@pytest.mark.parametrize(
    ("function", "names", "options"),
    [
        (sp.trace, ["model", "example_inputs"], {}),
        (
            sp.prune_,
            ["model", "example_inputs"],
            {
                "budget": REQUIRED,
                "criterion": "l2",
                "scope": "global",
                "protect": (),
                "round_to": "auto",
                "optimizers": (),
                "dead": True,
                "data": None,
                "loss": None,
            },
        ),
        (sp.apply_, ["model", "cut"], {"optimizers": ()}),
        (sp.save_pruned, ["model", "path"], {}),
        (sp.load_pruned_, ["model", "path"], {}),
        (sp.cost, ["model", "example_inputs"], {}),
        (sp.latency, ["model", "example_inputs"], {"threads": 1}),
        (sp.score, ["graph", "model", "criterion"], {"data": None, "loss": None}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_functions_are_called_as_documented(function: Any, names: list[str], options: dict[str, Any]) -> None:
    assert positional(function) == names
    found = defaults(function)
    assert {name: found[name] for name in options} == options
    assert all(found[name] is REQUIRED for name in names)


def test_all_public_names_exist_and_are_documented() -> None:
    for name in sp.__all__:
        assert getattr(sp, name) is not None
        if not name.startswith("__"):
            assert inspect.getdoc(getattr(sp, name)), name
    assert issubclass(sp.PruningError, ValueError)
    assert sp.__version__.count(".") >= 2


def test_a_graph_says_what_can_leave_and_why_the_rest_cannot() -> None:
    net = Residual()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = sp.trace(net, IMAGE)
    assert isinstance(graph, sp.ChannelGraph)
    assert isinstance(graph.groups, tuple)
    groups = {group.name: group for group in graph.groups}
    assert all(isinstance(group, sp.ChannelGroup) for group in graph.groups)
    assert {name: (g.size, g.prunable) for name, g in groups.items() if g.prunable} == {
        "stem": (10, True),
        "inner": (7, True),
    }
    assert groups["stem"].layers == ("stem", "inner", "outer", "head")
    assert groups["stem"].reason == ""
    assert not groups["head"].prunable
    assert groups["head"].reason
    report = graph.report()
    assert all(name in report for name in groups)
    assert groups["head"].reason.split()[0] in report
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_plan_goes_through_json_and_is_carried_out_by_hand() -> None:
    net = Residual()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    graph = sp.trace(net, IMAGE)
    text = json.dumps(
        {
            "version": 1,
            "kept": {"stem": [0, 3, 9], "inner": [1, 2]},
            "sizes": {"stem": 10, "inner": 7},
            "dropped": [],
        }
    )
    plan = sp.Plan.from_json(text)
    assert json.loads(plan.to_json()) == json.loads(text)
    cut = graph.cut(plan)
    sp.apply_(net, cut, optimizers=[optimizer])
    assert net.stem.weight.shape == (3, 3, 3, 3)
    assert net.inner.weight.shape == (2, 3, 3, 3)
    assert net(IMAGE).shape == (2, 2, 8, 8)


def test_a_result_holds_costs_plan_masks_and_certificate() -> None:
    net = Residual()
    shapes = {name: tensor.shape for name, tensor in net.state_dict().items()}
    result = sp.prune_(net, IMAGE, budget={"params": 0.6, "macs": 0.9, "channels": 0.9})
    assert isinstance(result, sp.PruneResult)
    for cost in (result.before, result.after):
        assert isinstance(cost, sp.Cost)
        assert (type(cost.params), type(cost.macs), cost.flops) == (int, int, 2 * cost.macs)
        assert cost.latency is None
    assert result.after == sp.cost(net, IMAGE)
    assert isinstance(result.plan, sp.Plan)
    assert sp.Plan.from_json(result.plan.to_json()) == result.plan
    assert isinstance(result.cut, sp.Cut)
    assert isinstance(result.cut.masks, Mapping)
    for name, mask in result.cut.masks.items():
        assert (mask.dtype, mask.shape) == (torch.bool, shapes[name])
    assert isinstance(result.max_error, float)
    with pytest.raises(FrozenInstanceError):
        result.max_error = 0.0  # type: ignore[misc]


def test_latency_says_what_was_measured() -> None:
    found = sp.latency(Residual(), IMAGE, warmup=1, runs=3)
    assert isinstance(found, sp.Latency)
    assert 0 < found.p50_ms <= found.p95_ms
    assert (found.device, found.threads, found.dtype, found.batch) == ("cpu", 1, "float32", 2)


def test_scores_by_themselves() -> None:
    net = Residual()
    graph = sp.trace(net, IMAGE)
    data = [(IMAGE, torch.randint(0, 2, (2, 8, 8)))]
    for criterion in ("random", "l1", "l2", "taylor", sp.criteria.Taylor(of="weight", form="abs")):
        scores = sp.score(graph, net, criterion, data=data, loss=nn.functional.cross_entropy)
        assert {name: tuple(s.shape) for name, s in scores.items()} == {"stem": (10,), "inner": (7,)}
        assert all(isinstance(s, Tensor) and s.isfinite().all() for s in scores.values())
    assert {"random", "l1", "l2", "taylor", "bn_scale", "fpgm", "lamp", "hessian", "activation"} == set(
        sp.criteria.CRITERIA
    )


@pytest.mark.parametrize("module", ["seg_pruning", "seg_pruning.pruning", "seg_pruning.surgery.trial"])
def test_the_core_is_light(module: str) -> None:
    heavy = (
        "lightning",
        "pytorch_lightning",
        "segmentation_models_pytorch",
        "wandb",
        "albumentations",
        "cv2",
    )
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert run.stdout.strip() == "[]"

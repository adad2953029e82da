import subprocess
import sys

import pytest
import torch
from torch import nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.graph import Member
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import randomise_

# For each network the groups that can be pruned: channels, blocks, and the tensors that lose with them.
FREE = {
    "Chain": {
        "stem": (10, 1, "stem.weight norm.weight norm.bias norm.running_mean norm.running_var head.weight")
    },
    "Residual": {
        "stem": (10, 1, "stem.weight stem.bias inner.weight outer.weight outer.bias head.weight"),
        "inner": (7, 1, "inner.weight inner.bias outer.weight"),
    },
    "Concat": {"a": (7, 1, "a.weight a.bias head.weight"), "b": (10, 1, "b.weight b.bias head.weight")},
    "ConcatWithItself": {"stem": (7, 1, "stem.weight stem.bias head.weight")},
    "Depthwise": {
        "stem": (10, 1, "stem.weight stem.bias one.weight one.bias two.weight two.bias head.weight")
    },
    "Grouped": {
        "stem": (12, 3, "stem.weight stem.bias grouped.weight"),
        "grouped": (18, 3, "grouped.weight grouped.bias head.weight"),
    },
    "Transposed": {
        "stem": (7, 1, "stem.weight stem.bias up.weight"),
        "up": (10, 1, "up.weight up.bias head.weight"),
    },
    "Paths": {
        "stem": (12, 3, "stem.weight stem.bias norm.weight norm.bias paths.weight"),
        "paths": (18, 3, "paths.weight paths.bias up.weight"),
        "up": (9, 3, "up.weight up.bias head.weight"),
    },
    "GroupedTransposed": {
        "stem": (12, 3, "stem.weight stem.bias up.weight"),
        "up": (18, 3, "up.weight up.bias wide.weight wide.bias head.weight"),
    },
    "SqueezeExcite": {
        "stem": (12, 1, "stem.weight stem.bias squeeze.weight excite.weight excite.bias head.weight"),
        "squeeze": (5, 1, "squeeze.weight squeeze.bias excite.weight"),
    },
    "SpatialGate": {"stem": (10, 1, "stem.weight stem.bias gate.weight head.weight")},
    "MeanGate": {"stem": (10, 1, "stem.weight stem.bias head.weight")},
    "GroupNorm": {"stem": (12, 3, "stem.weight stem.bias norm.weight norm.bias head.weight")},
    "InstanceNorm": {"stem": (10, 1, "stem.weight stem.bias norm.weight norm.bias head.weight")},
    "LayerNorm": {"stem": (10, 1, "stem.weight stem.bias norm.weight norm.bias head.weight")},
    "Flatten": {
        "stem": (7, 1, "stem.weight stem.bias hidden.weight"),
        "hidden": (11, 1, "hidden.weight hidden.bias head.weight"),
    },
    "Chunk": {"stem": (7, 1, "stem.weight stem.bias head.weight")},
    "Halves": {
        "stem": (14, 2, "stem.weight stem.bias left.weight right.weight"),
        "left": (5, 1, "left.weight left.bias head.weight"),
        "right": (6, 1, "right.weight right.bias head.weight"),
    },
    "UnevenSplit": {
        "stem": (5, 1, "stem.weight stem.bias left.weight"),
        "stem#2": (9, 1, "stem.weight stem.bias right.weight"),
        "left": (4, 1, "left.weight left.bias head.weight"),
        "right": (6, 1, "right.weight right.bias head.weight"),
    },
    "ChannelShuffle": {"grouped": (12, 3, "grouped.weight grouped.bias head.weight")},
    "PixelShuffle": {
        "stem": (5, 1, "stem.weight stem.bias mid.weight"),
        "mid": (7, 1, "mid.weight mid.bias head.weight"),
    },
    "Attention": {
        "q": (12, 3, "q.weight q.bias k.weight k.bias"),
        "v": (12, 3, "v.weight v.bias head.weight"),
    },
    "FusedAttention": {"q": (3, 1, "q.weight q.bias k.weight k.bias v.weight v.bias head.weight")},  # heads
    "SharedModule": {"stem": (10, 1, "stem.weight stem.bias shared.weight shared.bias head.weight")},
    "TiedWeights": {
        "stem": (9, 1, "stem.weight stem.bias code.weight decode.weight decode.bias head.weight"),
        "code": (5, 1, "code.weight code.bias decode.weight"),
    },
    "DeadBranch": {"stem": (10, 1, "stem.weight stem.bias head.weight")},
    "Auxiliary": {"stem": (10, 1, "stem.weight stem.bias aux.weight head.weight")},
    "LiteralSize": {},
    "AttributeSize": {"stem": (12, 1, "stem.weight stem.bias head.weight")},
    "DictOutput": {"stem": (10, 1, "stem.weight stem.bias mid.weight")},
    "KeywordInput": {"image": (10, 1, "image.weight image.bias hint.weight hint.bias head.weight")},
    "WeightNorm": {
        "stem.parametrizations.weight": (
            10,
            1,
            "stem.bias stem.parametrizations.weight.original0 stem.parametrizations.weight.original1 "
            "mid.parametrizations.weight.original1",
        ),
        "mid.parametrizations.weight": (
            7,
            1,
            "mid.bias mid.parametrizations.weight.original0 mid.parametrizations.weight.original1 "
            "head.weight",
        ),
    },
    "PReLU": {"stem": (10, 1, "stem.weight stem.bias act.weight head.weight")},
    "Plain": {"stem": (10, 1, "stem.weight norm.running_mean norm.running_var head.weight")},
    "OwnParameters": {"": (10, 1, "weight scale offset head.weight")},
    "Lookup": {"table#2": (10, 1, "table.weight head.weight")},
    "PartlyFixed": {"stem#2": (7, 1, "stem.weight stem.bias head.weight")},
    "Upsample": {
        "stem": (10, 1, "stem.weight stem.bias mid.weight head.weight"),
        "mid": (7, 1, "mid.weight mid.bias head.weight"),
    },
}

PINNED = {  # network, group: a part of the reason
    ("Chain", "head"): "reaches the output",
    ("DictOutput", "mid"): "reaches the output",
    ("Auxiliary", "aux"): "reaches the output",
    ("ChannelShuffle", "stem"): "cannot shrink alike",
    ("LiteralSize", "stem"): "aten.view is given the number 12 for its length",
    ("PartlyFixed", "stem"): "meets a tensor whose indices are fixed in aten.add",
    ("Lookup", "table"): "looks rows up by their number",
}


def graph_of(name):
    torch.manual_seed(0)
    return trace(NETWORKS[name](), NETWORKS[name].example())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_leaves_together(name):
    free = {g.name: (g.size, len(g.rows), {m.tensor for m in g.members}) for g in graph_of(name).prunable}
    assert free == {
        group: (size, rows, set(names.split())) for group, (size, rows, names) in FREE[name].items()
    }


@pytest.mark.parametrize(("name", "group"), PINNED)
def test_what_stays_and_why(name, group):
    found = graph_of(name)[group]
    assert not found.prunable
    assert PINNED[name, group] in found.reason


def test_sides_of_members():
    group = graph_of("Residual")["stem"]
    assert {m.tensor: m.side for m in group.members} == {
        "stem.weight": "out",
        "stem.bias": "vector",
        "inner.weight": "in",
        "outer.weight": "out",
        "outer.bias": "vector",
        "head.weight": "in",
    }


def test_a_member_sums_what_belongs_to_each_channel():
    model = randomise_(NETWORKS["Grouped"]())
    graph = trace(model, NETWORKS["Grouped"].example())
    weight = model.grouped.weight.detach()  # (18, 4, 3, 3): row r reads channels 4 (r // 6) to 4 (r // 6) + 3
    expected = torch.stack([weight[6 * (c // 4) : 6 * (c // 4) + 6, c % 4].sum() for c in range(12)])
    member = next(m for m in graph["stem"].members if m.tensor == "grouped.weight")
    assert torch.allclose(member.sum(weight, 12), expected)
    vector = Member("bias", (0,), torch.tensor([0, -1, 1, 0]), "vector", True)
    assert vector.sum(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2).tolist() == [5.0, 3.0]


def test_idle_parameters_are_listed_and_in_no_group():
    graph = graph_of("DeadBranch")
    assert graph.idle == ("unused.0.weight", "unused.0.bias", "unused.1.weight", "unused.1.bias")
    assert all("unused" not in m.tensor for g in graph.groups for m in g.members)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan({"stme": (0,)}, {"stme": 14}), r"no channel group 'stme'; its groups are stem, left, right"),
        (Plan({"stem": (0,)}, {"stem": 9}), r"9 channels of 'stem', which has 14"),
        (Plan({"head": (0,)}, {"head": 2}), r"'head' cannot be pruned: reaches the output"),
        (Plan({"stem": (0, 1, 7)}, {"stem": 14}), r"keeps \[1, 2\] channels of the 2 blocks"),
        (Plan({"stem": (0, 1)}, {"stem": 14}), r"keeps \[0, 2\] channels of the 2 blocks"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, message):
    with pytest.raises(PruningError, match=message):
        graph_of("Halves").cut(plan)


def test_a_plan_that_keeps_all_changes_nothing():
    cut = graph_of("Halves").cut(Plan({"head": (0, 1), "left": (0, 1, 2, 3, 4)}, {"head": 2, "left": 5}))
    assert cut.masks == {}
    assert cut.sizes == {}


def test_tracing_leaves_the_network_as_it_was():
    model = NETWORKS["GroupNorm"]().train()
    model.stem.eval()
    model.stem.weight.requires_grad_(False)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = {path: dict(vars(m)) for path, m in model.named_modules()}
    rng = torch.get_rng_state()
    trace(model, model.example())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert {path: dict(vars(m)) for path, m in model.named_modules()} == attributes
    assert all(
        type(v) is not int or type(vars(m)[k]) is int for m in model.modules() for k, v in vars(m).items()
    )
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(p.grad is None for p in model.parameters())


DESCRIBE = """
import torch
from seg_pruning.surgery.trial import trace, random_plan
from tests.networks import NETWORKS
for name in ("Halves", "Grouped", "SqueezeExcite"):
    torch.manual_seed(0)
    graph = trace(NETWORKS[name](), NETWORKS[name].example())
    print([(g.name, g.size, g.layers, g.rows, g.reason) for g in graph.groups])
    print(random_plan(graph, seed=3).to_json())
"""


def test_groups_names_and_order_are_the_same_in_every_process():
    runs = [
        subprocess.run(
            [sys.executable, "-c", DESCRIBE],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(p for p in sys.path if p) or "."},
            cwd=".",
        ).stdout
        for seed in (1, 2)
    ]
    assert runs[0] == runs[1] != ""


def test_groups_do_not_depend_on_values():
    graphs = []
    for seed in range(2):
        torch.manual_seed(seed)
        graphs.append(trace(NETWORKS["Halves"](), NETWORKS["Halves"].example()))
    assert [(g.name, g.rows, g.layers) for g in graphs[0].groups] == [
        (g.name, g.rows, g.layers) for g in graphs[1].groups
    ]


def test_any_module_is_a_network():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = trace(model, torch.randn(3, 4))
    assert [g.name for g in graph.prunable] == ["0"]

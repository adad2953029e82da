import copy
import json

import pytest
import torch

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import remember_, structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.rebuilding import restructure_
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import answers, randomise_, uneven_plan


def cut(name, seed):
    torch.manual_seed(0)
    model = randomise_(NETWORKS[name]())
    graph = trace(model, model.example())
    if seed is not None:
        apply_(model, graph.cut(uneven_plan(graph, seed)))
    return model


def shapes_of(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", ["Chain", "GroupedTransposed", "AttributeSize", "GroupNorm"])
@pytest.mark.parametrize(
    ("seed", "other"), [(None, 1), (1, None), (1, 2)], ids=["sparser", "denser", "other"]
)
def test_a_network_takes_the_structure_of_another(name, seed, other):
    model, wanted = cut(name, seed), cut(name, other)
    parameters = [id(p) for p in model.parameters()]
    restructure_(model, shapes_of(wanted), structure_of(wanted))
    model.load_state_dict(wanted.state_dict())
    assert [id(p) for p in model.parameters()] == parameters
    assert structure_of(model) == structure_of(wanted)
    assert torch.equal(answers(model, model.example())[0], answers(wanted, model.example())[0])
    stated = {
        (p, k): v for p, m in wanted.named_modules() for k, v in vars(m).items() if isinstance(v, int | tuple)
    }
    assert {(p, k): vars(model.get_submodule(p))[k] for p, k in stated} == stated


def test_round_trip_through_json():
    structure = structure_of(cut("AttributeSize", 1))
    assert Structure.from_dict(json.loads(json.dumps(structure.to_dict()))) == structure
    assert structure.max_error is None  # applied by hand: nothing was proved
    ((attribute, (dense, now)),) = structure.sizes.items()
    assert (str(attribute), dense) == ("width", 12)
    assert now == len(structure.plans[0].kept["stem"])


def test_a_deep_copy_is_a_pruned_network_too():
    model = cut("Chain", 1)
    assert structure_of(copy.deepcopy(model)) == structure_of(model)


def test_a_dense_network_has_no_structure():
    model = cut("Chain", None)
    assert structure_of(model) is None
    remember_(model, Structure())
    remember_(model, None)
    assert structure_of(model) is None


def test_plans_of_two_cuts_are_one_plan_of_the_dense_network():
    model = NETWORKS["Chain"]()
    for kept, size in (((1, 3, 5, 9), 10), ((0, 3), 4)):
        graph = trace(model, model.example())
        apply_(model, graph.cut(Plan({"stem": kept}, {"stem": size})))
    assert [plan.kept for plan in structure_of(model).plans] == [{"stem": (1, 9)}]


def test_the_state_of_another_network_is_refused_and_nothing_changes():
    model, other = cut("Residual", None), cut("Chain", 1)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(PruningError, match="another network"):
        restructure_(model, shapes_of(other), structure_of(other))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

import copy

import pytest
import torch
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.checkpoints import take_structure_, write_structure
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.note import remember_, structure_of
from seg_pruning.surgery.structure import Structure
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.oracle import answers, randomise_, uneven_plan

ALL = ["Chain", "AttributeSize", "GroupedTransposed"]


class Around(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.before = nn.Conv2d(3, 3, 1)
        self.net = NETWORKS[name]()

    def forward(self, *inputs):
        return self.net(*inputs)


def around(name):
    torch.manual_seed(0)
    return randomise_(Around(name))


def cut_(model, example, seed):
    graph = trace(model, example)
    apply_(model, graph.cut(uneven_plan(graph, seed)))


def below(structure):
    return structure.below("net").to_dict()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("whole", [(True, True), (True, False), (False, True), (False, False)])
def test_it_does_not_matter_whether_the_network_or_what_is_around_it_was_cut(name, whole):
    expected, model = NETWORKS[name](), around(name)
    example = expected.example()
    for seed, at in enumerate(whole):
        cut_(expected, example, seed)
        cut_(model if at else model.net, example, seed)
    assert structure_of(model.net).to_dict() == structure_of(expected).to_dict()
    assert below(structure_of(model)) == structure_of(expected).to_dict()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("whole", [True, False])
def test_either_is_saved_and_loaded(name, whole, tmp_path):
    model = around(name)
    example = model.net.example()
    cut_(model if whole else model.net, example, 1)
    wanted = answers(model, example)[0]

    checkpoint = {"state_dict": model.state_dict()}
    write_structure(checkpoint, model)
    fresh = around(name)
    take_structure_(checkpoint, fresh)
    fresh.load_state_dict(checkpoint["state_dict"])
    assert torch.equal(answers(fresh, example)[0], wanted)

    save_pruned(model.net, tmp_path / "net.safetensors")
    other = around(name)
    load_pruned_(other.net, tmp_path / "net.safetensors")
    assert torch.equal(answers(other, example)[0], wanted)
    assert below(structure_of(other)) == structure_of(model.net).to_dict()


def test_the_network_of_one_module_in_another():
    first, second = around("Chain"), around("Chain")
    cut_(first, first.net.example(), 1)
    cut_(second, second.net.example(), 2)
    second.net = first.net
    assert below(structure_of(second)) == structure_of(first.net).to_dict()
    cut_(second, second.net.example(), 3)
    assert structure_of(first) == structure_of(second)


def test_a_copy_of_a_part_goes_its_own_way():
    model = around("Chain")
    cut_(model, model.net.example(), 1)
    before, twin = structure_of(model), copy.deepcopy(model.net)
    cut_(twin, twin.example(), 2)
    assert structure_of(model) == before
    assert structure_of(twin).to_dict() != below(before)


def test_what_is_taken_back_leaves_the_rest():
    model = nn.ModuleDict({"a": NETWORKS["Chain"](), "b": NETWORKS["Chain"]()})
    cut_(model["a"], model["a"].example(), 1)
    a = structure_of(model)
    cut_(model["b"], model["b"].example(), 2)
    both = structure_of(model)
    assert both.below("a") == a.below("a") == structure_of(model["a"])
    assert both.below("b") == structure_of(model["b"])
    remember_(model, both)  # now one note
    remember_(model["b"], None)
    assert structure_of(model) == a
    remember_(model, Structure())
    assert [structure_of(m) for m in model.modules()] == [None] * len(list(model.modules()))

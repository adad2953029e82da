import copy

import pytest
import torch
from torch import nn

from seg_pruning.surgery.apply import Journal, apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS, MeanGate
from tests.surgery.interrupts import Interrupted, equal, interrupted_everywhere, snapshot
from tests.surgery.oracle import answers, masked_original, masks_of, randomise_, same, uneven_plan

CUT = sorted(
    set(NETWORKS) - {"Attention", "LiteralSize", "MeanGate"}
)  # without a free group; with a test of its own


def prepared(name):
    torch.manual_seed(0)
    model = randomise_(NETWORKS[name]())
    return model, model.example(), trace(model, model.example())


@pytest.mark.parametrize("name", CUT)
def test_pruned_equals_masked_original(name):
    model, example, graph = prepared(name)
    for seed in range(3):
        plan = uneven_plan(graph, seed)
        masks = masks_of(graph, plan, model)
        pruned = copy.deepcopy(model)
        apply_(pruned, graph.cut(plan))
        assert same(answers(pruned, example), answers(masked_original(model, masks), example)), plan
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        assert {n: t.numel() for n, t in (*pruned.named_parameters(), *pruned.named_buffers())} == kept


def test_mean_over_channels_is_over_those_that_are_kept():
    model, x, graph = prepared("MeanGate")
    kept = [1, 2, 5, 9]
    pruned = copy.deepcopy(model)
    apply_(pruned, graph.cut(Plan({"stem": tuple(kept)}, {"stem": 10})))
    with torch.no_grad():
        features = torch.relu(model.stem(x))[:, kept]
        seen = torch.stack([features.mean(1), features.max(1).values], 1)
        gated = features * torch.sigmoid(model.gate(seen))
        expected = nn.functional.conv2d(gated, model.head.weight[:, kept], model.head.bias, padding=1)
    assert isinstance(model, MeanGate)
    assert same(answers(pruned, x), [expected])


def test_shapes_and_stated_sizes_by_hand():
    model, _, graph = prepared("GroupedTransposed")
    # stem: one of each four, up: five of each six
    plan = Plan(
        {"stem": (1, 4, 11), "up": (0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17)},
        {"stem": 12, "up": 18},
    )
    dense = copy.deepcopy(model)
    apply_(model, graph.cut(plan))
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == {
        "stem.weight": (3, 3, 3, 3),
        "stem.bias": (3,),
        "up.weight": (3, 5, 2, 2),
        "up.bias": (15,),
        "wide.weight": (15, 1, 3, 3),
        "wide.bias": (15,),
        "head.weight": (2, 15, 3, 3),
        "head.bias": (2,),
    }
    assert (model.up.in_channels, model.up.out_channels, model.up.groups) == (3, 15, 3)
    assert (model.wide.in_channels, model.wide.out_channels, model.wide.groups) == (15, 15, 15)
    assert torch.equal(model.up.weight[0], dense.up.weight[1, [0, 1, 2, 3, 4]])
    assert torch.equal(model.up.weight[1], dense.up.weight[4, [1, 2, 3, 4, 5]])
    assert torch.equal(model.up.weight[2], dense.up.weight[11, [0, 1, 3, 4, 5]])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Chain", {"norm.num_features": 3, "stem.out_channels": 3, "head.in_channels": 3}),
        ("GroupNorm", {"norm.num_channels": 3, "norm.num_groups": 3}),
        ("LayerNorm", {"norm.normalized_shape": (3,), "head.in_features": 3}),
        ("PReLU", {"act.num_parameters": 3}),
        ("AttributeSize", {"width": 3}),
        ("Lookup", {"table.num_embeddings": 13, "table.embedding_dim": 3}),
    ],
)
def test_stated_sizes_follow(name, sizes):
    model, _, graph = prepared(name)
    (group,) = graph.prunable
    kept = tuple(row[0] for row in group.rows) if len(group.rows) == 3 else (0, 1, 2)
    apply_(model, graph.cut(Plan({group.name: kept}, {group.name: group.size})))
    got = {}
    for path in sizes:
        module, _, attribute = path.rpartition(".")
        got[path] = getattr(model.get_submodule(module), attribute)
    assert got == sizes


def test_all_but_sizes_survives():
    model, x, graph = prepared("Chain")
    model = model.to(memory_format=torch.channels_last)
    model.train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    model.note = {"any": "thing"}
    called = []
    model.stem.register_forward_hook(lambda *_: called.append("stem"))
    model.stem.weight.tag = "kept"
    before = {n: (id(t), t.requires_grad, t.dtype, t.device) for n, t in model.named_parameters()}
    buffers = {n: id(t) for n, t in model.named_buffers()}
    modes = {n: m.training for n, m in model.named_modules()}
    model(x).sum().backward()
    grad = model.head.weight.grad.clone()
    apply_(model, graph.cut(Plan({"stem": (0, 4, 5, 9)}, {"stem": 10})))
    assert {n: (id(t), t.requires_grad, t.dtype, t.device) for n, t in model.named_parameters()} == before
    assert {n: id(t) for n, t in model.named_buffers()} == buffers
    assert {n: m.training for n, m in model.named_modules()} == modes
    assert model.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.stem.weight.is_contiguous()
    assert torch.equal(model.head.weight.grad, grad[:, [0, 4, 5, 9]])
    assert model.stem.weight.grad is None
    assert model.stem.weight.tag == "kept"
    assert model.note == {"any": "thing"}
    called.clear()
    model(x).sum().backward()
    assert called == ["stem"]


def test_half_precision_and_frozen_networks():
    model, _, graph = prepared("Chain")
    model.requires_grad_(False)
    reference = copy.deepcopy(model)
    model.to(torch.bfloat16)
    cut = graph.cut(Plan({"stem": (0, 4, 5, 9)}, {"stem": 10}))
    apply_(model, cut)
    apply_(reference, cut)
    assert all(p.dtype == torch.bfloat16 and not p.requires_grad for p in model.parameters())
    assert torch.equal(model.stem.weight, reference.stem.weight.bfloat16())


def test_a_head_that_only_training_runs_is_cut_too():
    model, x, graph = prepared("Auxiliary")
    apply_(model, graph.cut(Plan({"stem": (1, 2, 3)}, {"stem": 10})))
    outputs = model.train()(x)
    assert outputs["aux"].shape == outputs["out"].shape == (2, 2, 8, 8)


@pytest.mark.parametrize(
    "name", ["Residual", "Grouped", "GroupedTransposed", "GroupNorm", "Chain", "PixelShuffle"]
)
def test_two_cuts_equal_the_cut_of_their_union(name):
    model, x, graph = prepared(name)
    first, at_once = copy.deepcopy(model), copy.deepcopy(model)
    one = uneven_plan(graph, seed=1)
    apply_(first, graph.cut(one))
    again = trace(first, x)
    two = uneven_plan(again, seed=2)
    apply_(first, again.cut(two))
    union = {n: tuple(k[i] for i in two.kept.get(n, range(len(k)))) for n, k in one.kept.items()}
    apply_(at_once, graph.cut(Plan(union, one.sizes)))
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), at_once.state_dict().values(), strict=True)
    )
    assert structure_of(first) == structure_of(at_once)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["Grouped", "GroupedTransposed", "GroupNorm"])
def test_a_block_that_has_shrunk_to_one_channel_leaves_as_a_whole(name, seed):
    model, x, graph = prepared(name)
    apply_(model, graph.cut(Plan({"stem": (1, 4, 11)}, {"stem": 12})))
    again = trace(model, x)
    assert again["stem"].prunable
    expected = masked_original(model, masks_of(again, plan := uneven_plan(again, seed), model))
    apply_(model, again.cut(plan))
    assert same(answers(model, x), answers(expected, x))


def test_a_cut_for_another_network_is_refused():
    _, _, graph = prepared("Chain")
    other, _, _ = prepared("Residual")
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(PruningError, match=r"norm.weight.*no such tensor|trace this network"):
        apply_(other, graph.cut(Plan({"stem": (0,)}, {"stem": 10})))
    assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())


def in_training():
    """A network in the middle of training, its optimizer, and a cut that touches all that a cut can."""
    torch.manual_seed(0)
    model = NETWORKS["UnevenSplit"]()
    model.unused = nn.Conv2d(3, 3, 1)
    model.register_buffer("beside", torch.zeros(3))
    model.stem.bias.requires_grad_(False)
    model.head.eval()
    optimizer = torch.optim.AdamW(model.parameters())
    model(model.example()).sum().backward()
    optimizer.state[model.unused.weight] = {"step": torch.tensor(1.0)}
    optimizer.step()
    graph = trace(model, model.example())
    plan = Plan({"stem": (1, 3), "stem#2": (0, 2, 8)}, {"stem": 5, "stem#2": 9}, dropped=("unused",))
    return model, optimizer, graph.cut(plan)


@pytest.mark.parametrize("done", [False, True], ids=["before it", "after it"])
def test_an_error_at_any_write_leaves_everything_as_it_was(done, monkeypatch):
    model, optimizer, cut = in_training()
    before, write = snapshot(model, [optimizer]), Journal.write
    fail_at = 0
    while True:
        count = 0

        def failing(self, do, undo, at=fail_at):
            nonlocal count
            count += 1
            if count != at + 1:
                return write(self, do, undo)

            def broken():
                if done:
                    do()
                raise Interrupted

            return write(self, broken, undo)

        monkeypatch.setattr(Journal, "write", failing)
        try:
            apply_(model, cut, optimizers=[optimizer])
        except Interrupted:
            fail_at += 1
            assert equal(snapshot(model, [optimizer]), before), fail_at
            continue
        break
    assert fail_at > 20
    assert not equal(snapshot(model, [optimizer]), before)
    assert model.lengths == [2, 3]
    assert isinstance(model.unused, nn.Identity)


def test_an_interrupt_at_any_line_leaves_all_as_it_was_or_all_done():
    def start():
        model, optimizer, cut = in_training()
        return (lambda: apply_(model, cut, optimizers=[optimizer])), (
            lambda: snapshot(model, [optimizer], identity=False)
        )

    lines = interrupted_everywhere(start, ("apply.py", "optimizer.py", "cut.py", "structure.py", "sizes.py"))
    assert lines > 100


def test_a_second_interrupt_waits_until_all_is_undone():
    steps = []
    journal = Journal()

    def undo(name):
        def once():
            if name == "b" and "b" not in steps:
                steps.append("b")
                raise KeyboardInterrupt
            steps.append(name)

        return once

    for name in "abc":
        journal.write(lambda: None, undo(name))
    with pytest.raises(KeyboardInterrupt):
        journal.roll_back()
    assert steps == ["c", "b", "b", "a"]

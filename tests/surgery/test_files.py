import json
import random
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from seg_pruning.surgery import files
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.structure import structure_of
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.interrupts import equal, interrupted_everywhere, snapshot
from tests.surgery.oracle import answers, randomise_, uneven_plan


def pruned(name, seed=0):
    torch.manual_seed(seed)
    model = randomise_(NETWORKS[name](), seed)
    graph = trace(model, model.example())
    apply_(model, graph.cut(uneven_plan(graph, seed)))
    return model


def state(model):
    return {k: (tuple(v.shape), v.clone()) for k, v in model.state_dict().items()}


def untouched(model, before):
    now = state(model)
    return list(now) == list(before) and all(torch.equal(now[k][1], before[k][1]) for k in now)


@pytest.mark.parametrize(
    "name", ["Chain", "Grouped", "AttributeSize", "UnevenSplit", "LayerNorm", "TiedWeights"]
)
def test_a_saved_network_comes_back(name, tmp_path):
    model = pruned(name)
    save_pruned(model, tmp_path / "net.safetensors")
    fresh = NETWORKS[name]().eval()
    parameters = [id(p) for p in fresh.parameters()]
    load_pruned_(fresh, tmp_path / "net.safetensors")
    assert all(
        torch.equal(a, b)
        for a, b in zip(answers(fresh, model.example()), answers(model, model.example()), strict=True)
    )
    assert structure_of(fresh) == structure_of(model)
    assert [id(p) for p in fresh.parameters()] == parameters
    assert list(tmp_path.iterdir()) == [tmp_path / "net.safetensors"]


def test_a_dense_network_comes_back(tmp_path):
    model = randomise_(NETWORKS["Chain"]())
    save_pruned(model, tmp_path / "net.safetensors")
    target = pruned("Chain", seed=1)  # a denser file in a sparser network
    load_pruned_(target, tmp_path / "net.safetensors")
    assert structure_of(target) is None
    assert all(
        torch.equal(a, b)
        for a, b in zip(target.state_dict().values(), model.state_dict().values(), strict=True)
    )


def header(path):
    """The header of a safetensors file, and where its tensors begin."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def refused(path, message, name="Chain", sparse=False):
    """Asserts that a file is refused and that the network is then what it was."""
    for model in (NETWORKS[name](), *([pruned(name, seed=1)] if sparse else [])):
        before = snapshot(model)
        with pytest.raises(PruningError, match=message) as caught:
            load_pruned_(model, path)
        assert path.name in str(caught.value)
        assert equal(snapshot(model), before)


def test_a_file_that_is_truncated_anywhere_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    whole, (entries, start) = path.read_bytes(), header(path)
    ends = [start + v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"]
    assert max(ends) == len(whole)
    places = {0, 1, 7, 8, 9, start // 2, start - 1, start, start + 1, len(whole) - 1}
    for place in sorted((places | set(ends)) - {len(whole)}):
        path.write_bytes(whole[:place])
        refused(path, "truncated or no safetensors file")
    path.write_bytes(whole + b"x")
    refused(path, "truncated or no safetensors file")


def test_a_flipped_bit_is_found_wherever_it_is(tmp_path):
    path = tmp_path / "net.safetensors"
    model = pruned("Chain")
    save_pruned(model, path)
    whole, (_, start) = path.read_bytes(), header(path)
    rng = random.Random(7)
    places = [*range(8), *rng.sample(range(8, start), 200), *rng.sample(range(start, len(whole)), 30)]
    kept, found = 0, []
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        target = NETWORKS["Chain"]()
        before = snapshot(target)
        try:
            load_pruned_(target, path)
        except PruningError as error:
            found.append(str(error))
            assert equal(snapshot(target), before), place
        else:  # space for space, say
            kept += 1
            assert equal(dict(target.state_dict()), dict(model.state_dict())), place
            assert structure_of(target) == structure_of(model), place
    assert kept < 5
    assert len(found) == len(places) - kept
    assert all(path.name in message for message in found)


def rewritten(path, change):
    """Writes the file again with its note changed, by somebody who knows how to give it the right hash."""
    with safe_open(path, framework="pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        note = json.loads(file.metadata()["seg_pruning"])
    text = change(note)
    if "hash" in note and isinstance(note["hash"], str) and text is None:
        note["hash"] = files._hash(tensors, note)
    # An infinite number in legal JSON.
    text = text if isinstance(text, str) else json.dumps(note).replace("Infinity", "1e999")
    save_file(tensors, path, metadata={"seg_pruning": text})


def put(*keys, value):
    def change(note):
        for key in keys[:-1]:
            note = note[key]
        note[keys[-1]] = value

    return change


def sizes(*entry):
    return put("structure", "sizes", value=[list(entry)])


HOSTILE = {
    "newer": (put("version", value=99), "version 99.*update"),
    "newer structure": (put("structure", "version", value=99), "version 99.*update"),
    "newer plan": (put("structure", "plans", 0, "version", value=99), "version 99.*update"),
    "version is a flag": (put("version", value=True), "version True"),
    "version is a list": (put("version", value=[9] * 1000), "version .*update"),
    "no JSON": (lambda note: "{not json", "not JSON"),
    "empty": (lambda note: "", "not JSON"),
    "deep": (lambda note: "[" * 100_000, "nested too deeply"),
    "deep objects": (lambda note: '{"a":' * 100_000, "nested too deeply"),
    "long number": (lambda note: '{"version": ' + "9" * 5000 + "}", "not JSON"),
    "twice": (lambda note: '{"version": 2, "version": 1}', "names 'version' more than once"),
    "NaN": (lambda note: '{"version": NaN}', "NaN is no number"),
    "a list": (lambda note: "[]", "is a list"),
    "a string": (lambda note: '"version"', "is a str"),
    "hash is a number": (put("hash", value=3), "hash"),
    "wrong hash": (lambda note: json.dumps(note | {"hash": "0" * 64}), "damaged"),
    "aliases is a list": (put("aliases", value=[]), "aliases"),
    "alias of nothing": (put("aliases", value={"twin": "no.such"}), "damaged: twin"),
    "alias of a number": (put("aliases", value={"twin": 3}), "damaged: twin"),
    "alias of a list": (put("aliases", value={"twin": ["stem.weight"]}), "damaged: twin"),
    "alias that nobody has": (put("aliases", value={"twin": "stem.weight"}), "another network"),
    "error is a text": (put("structure", "max_error", value="small"), "number or null"),
    "error is infinite": (
        put("structure", "max_error", value=float("inf")),
        "largest error of the certificates: inf",
    ),
    "structure is a list": (put("structure", value=[1, 2]), "JSON object"),
    "structure is missing": (lambda note: note.pop("structure") and None, "another network"),
    "method": (sizes("", "forward", None, 1, 2), "no such size|another network"),
    "dunder": (sizes("", "__class__", None, 1, 2), "rewritten size"),
    "private": (sizes("", "_modules", None, 1, 2), "rewritten size"),
    "flag": (sizes("", "training", None, 1, 2), "training: not a whole number"),
    "property": (sizes("stem", "T_destination", None, 1, 2), "another network|not a whole number"),
    "of a tensor": (sizes("stem.weight", "ndim", None, 4, 2), "another network"),
    "path out": (sizes("..", "width", None, 12, 5), "another network"),
    "negative index": (sizes("stem", "kernel_size", -1, 3, 5), "not a whole number"),
    "index beyond": (sizes("stem", "kernel_size", 7, 3, 5), "another network"),
    "index in an int": (sizes("", "width", 0, 12, 5), "another network"),
    "other dense size": (sizes("", "width", None, 13, 5), "13 in the dense network, not 12"),
    "negative size": (sizes("", "width", None, 12, -1), "rewritten size"),
    "float size": (sizes("", "width", None, 12, 5.0), "rewritten size"),
    "short size": (sizes("", "width", None, 12), "rewritten size"),
    "sizes by name": (put("structure", "sizes", value={"width": 5}), "JSON object"),
    "plan without kept": (put("structure", "plans", value=[{"version": 1}]), "must be a JSON"),
    "plan is a number": (put("structure", "plans", value=[7]), "JSON object"),
    "kept is a text": (put("structure", "plans", 0, "kept", "stem", value=["a"]), "legal are"),
    "kept is nested": (put("structure", "plans", 0, "kept", "stem", value=[[1]]), "legal are"),
    "kept beyond": (put("structure", "plans", 0, "kept", "stem", value=[0, 999]), "legal are"),
    "kept of no size": (put("structure", "plans", 0, "kept", "other", value=[0]), "does not say its size"),
    "drops nothing": (put("structure", "plans", 0, "dropped", value=["no.such"]), "no such module"),
    "drops itself": (put("structure", "plans", 0, "dropped", value=[""]), "malformed"),
    "drops a number": (put("structure", "plans", 0, "dropped", value=[0]), "malformed"),
    "drops what it holds": (put("structure", "plans", 0, "dropped", value=["head"]), "another network"),
    "dense of other dims": (put("structure", "dense", "stem.weight", value=[12]), "another network"),
    "dense of zero": (put("structure", "dense", "stem.weight", value=[0, 3, 3, 3]), "list of sizes"),
    "dense of nothing": (put("structure", "dense", value={}), "another network"),
    "dense of a stranger": (put("structure", "dense", "no.such", value=[3]), "another network"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_note_is_refused(kind, tmp_path):
    change, message = HOSTILE[kind]
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("AttributeSize"), path)
    rewritten(path, change)
    refused(path, message, "AttributeSize", sparse=True)


def test_tensors_that_no_cut_can_have_made_are_refused(tmp_path):
    """Wider than the dense network, or of other dims."""
    path = tmp_path / "net.safetensors"
    for wrong in (torch.zeros(10, 3, 3, 99), torch.zeros(3), torch.zeros(3, 0, 3, 3)):
        save_pruned(pruned("Chain"), path)
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()} | {"stem.weight": wrong}  # noqa: SIM118
            note = json.loads(file.metadata()["seg_pruning"])
        note["hash"] = files._hash(tensors, note)
        save_file(tensors, path, metadata={"seg_pruning": json.dumps(note)})
        refused(path, r"stem\.weight: shape .* of a dense \(10, 3, 3, 3\)")


@pytest.mark.parametrize("length", [2**63, 2**40, 100_000_001, 0])
def test_an_oversized_header_is_refused(length, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refused(path, "truncated or no safetensors file")


@pytest.mark.parametrize(
    "change",
    [
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [8, 4]},
        {"shape": [2**40, 2**40]},
        {"shape": [-1]},
        {"dtype": "F99"},
        {"dtype": "I8"},
    ],
    ids=str,
)
def test_a_hostile_header_is_refused(change, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    entries, start = header(path)
    entries["head.bias"] |= change
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + path.read_bytes()[start:])
    refused(path, "truncated or no safetensors file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"0" * 100, bytes(range(256)) * 9], ids=len)
def test_what_is_no_safetensors_file_is_refused(content, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    refused(path, "truncated or no safetensors file")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(NETWORKS["Chain"]().state_dict(), path)
    refused(path, "was not written by save_pruned")


def test_a_file_of_version_1_is_read(tmp_path):
    path = tmp_path / "net.safetensors"
    model = pruned("Chain")
    save_pruned(model, path)
    rewritten(path, put("version", value=1))
    target = NETWORKS["Chain"]()
    load_pruned_(target, path)
    assert structure_of(target) == structure_of(model)


def test_what_fails_while_it_is_written_leaves_the_network_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("AttributeSize"), path)
    for error in (RuntimeError("size mismatch"), KeyboardInterrupt()):

        def load(self, *_, error=error):
            self.head.bias.data.fill_(7)
            raise error

        monkeypatch.setattr(nn.Module, "load_state_dict", load)
        target = NETWORKS["AttributeSize"]().train()
        target.stem.bias.grad = torch.ones(12)
        before = snapshot(target)
        with pytest.raises(PruningError if isinstance(error, RuntimeError) else KeyboardInterrupt):
            load_pruned_(target, path)
        assert equal(snapshot(target), before)


def test_an_interrupt_at_any_line_leaves_all_as_it_was_or_all_done(tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("AttributeSize"), path)

    def start():
        target = pruned("AttributeSize", seed=1)
        return (lambda: load_pruned_(target, path)), (lambda: snapshot(target, identity=False))

    assert interrupted_everywhere(start, ("files.py", "structure.py", "intake.py", "sizes.py")) > 80


def test_a_network_without_values_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    with pytest.raises(PruningError, match="meta device"):
        load_pruned_(NETWORKS["Chain"]().to("meta"), path)


def test_state_that_is_no_tensor_is_not_lost_silently(tmp_path):
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    with pytest.raises(PruningError, match=r"no tensor.*_extra_state"):
        save_pruned(Counting(2, 2), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["Residual", "Grouped", "Plain"])
def test_a_file_of_another_network_is_refused(other, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    fresh = NETWORKS[other]()
    before = state(fresh)
    with pytest.raises(PruningError, match="another network"):
        load_pruned_(fresh, path)
    assert untouched(fresh, before)


def test_a_wider_network_of_the_same_kind_is_another(tmp_path):
    path = tmp_path / "net.safetensors"
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1))
    graph = trace(model, torch.randn(1, 3, 4, 4))
    apply_(model, graph.cut(uneven_plan(graph, 0)))
    save_pruned(model, path)
    with pytest.raises(PruningError, match="another network"):
        load_pruned_(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)), path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        load_pruned_(NETWORKS["Chain"](), tmp_path / "none.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    before = path.read_bytes()
    monkeypatch.setattr(
        "seg_pruning.surgery.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("full"))
    )
    with pytest.raises(OSError, match="full"):
        save_pruned(pruned("Chain", seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Shifted(nn.Module):
    """Adds a number to each channel, which no state dict holds."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.register_buffer("shift", torch.arange(8.0).reshape(1, 8, 1, 1), persistent=False)

    def forward(self, x):
        return self.head(self.stem(x) + self.shift)


def test_buffers_that_no_state_dict_holds_come_back(tmp_path):
    net, x = Shifted(), torch.randn(1, 3, 4, 4)
    graph = trace(net, x)
    apply_(net, graph.cut(Plan({"stem": (1, 4, 6)}, {"stem": 8})))
    save_pruned(net, tmp_path / "net.safetensors")
    fresh = Shifted()
    load_pruned_(fresh, tmp_path / "net.safetensors")
    assert fresh.shift.reshape(-1).tolist() == [1.0, 4.0, 6.0]
    assert torch.equal(net(x), fresh(x))

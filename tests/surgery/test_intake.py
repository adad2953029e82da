"""JSON is read strictly, and what is truncated, altered or hostile changes no network."""

import json
import random
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seg_pruning.surgery import files
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.intake import check_fits, parse
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.structure import Structure
from tests.networks import NETWORKS
from tests.surgery.interrupts import equal, snapshot
from tests.surgery.stored import check_refused, header, pruned, put, rewritten


@pytest.mark.parametrize("value", [{}, [1, 2.5, None, True, "x"], {"a": {"a": 1}}, "text", -3], ids=str)
def test_what_json_writes_is_read(value):
    assert parse(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "'c' more than once"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("[" * 10**6, "nested too deeply"),
        ("1" * 10**4, "limit"),
        ("{", "Expecting"),
    ],
    ids=["twice", "nan", "infinite", "deep", "long", "cut off"],
)
def test_what_is_not_strictly_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_structure_is_for_its_network():
    model = NETWORKS["AttributeSize"]()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    width = Attribute("", "width")
    check_fits(model, shapes, Structure(sizes={width: (12, 5)}))
    with pytest.raises(PruningError, match="width: 11 in the dense network, not 12"):
        check_fits(model, shapes, Structure(sizes={width: (11, 5)}))
    wider, dense = shapes | {"stem.weight": (13, 3, 3, 3)}, Structure(dense={"stem.weight": (12, 3, 3, 3)})
    with pytest.raises(PruningError, match=r"stem\.weight: shape \(13, 3, 3, 3\) of a dense \(12, 3, 3, 3\)"):
        check_fits(model, wider, dense)


def test_a_file_that_is_truncated_anywhere_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    whole, (entries, start) = path.read_bytes(), header(path)
    ends = [start + v["data_offsets"][1] for k, v in entries.items() if k != "__metadata__"]
    assert max(ends) == len(whole)
    places = {0, 1, 7, 8, 9, start // 2, start - 1, start, start + 1, len(whole) - 1}
    for place in sorted((places | set(ends)) - {len(whole)}):
        path.write_bytes(whole[:place])
        check_refused(path, "truncated or no safetensors file")
    path.write_bytes(whole + b"x")
    check_refused(path, "truncated or no safetensors file")


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
    check_refused(path, message, "AttributeSize", sparse=True)


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
        check_refused(path, r"stem\.weight: shape .* of a dense \(10, 3, 3, 3\)")


@pytest.mark.parametrize("length", [2**63, 2**40, 100_000_001, 0])
def test_an_oversized_header_is_refused(length, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    check_refused(path, "truncated or no safetensors file")


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
    check_refused(path, "truncated or no safetensors file")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"0" * 100, bytes(range(256)) * 9], ids=len)
def test_what_is_no_safetensors_file_is_refused(content, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    check_refused(path, "truncated or no safetensors file")


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(NETWORKS["Chain"]().state_dict(), path)
    check_refused(path, "was not written by save_pruned")

"""Files of pruned networks, changed as a hostile hand would, and the proof that they are refused."""

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from seg_pruning.surgery import files
from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.interrupts import equal, snapshot
from tests.surgery.oracle import randomise_, uneven_plan


def pruned(name, seed=0):
    torch.manual_seed(seed)
    model = randomise_(NETWORKS[name](), seed)
    graph = trace(model, model.example())
    apply_(model, graph.cut(uneven_plan(graph, seed)))
    return model


def header(path):
    """The header of a safetensors file, and where its tensors begin."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def check_refused(path, message, name="Chain", sparse=False):
    """Asserts that a file is refused and that the network is then what it was."""
    for model in (NETWORKS[name](), *([pruned(name, seed=1)] if sparse else [])):
        before = snapshot(model)
        with pytest.raises(PruningError, match=message) as caught:
            load_pruned_(model, path)
        assert path.name in str(caught.value)
        assert equal(snapshot(model), before)


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

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.structure import structure_of
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
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


@pytest.mark.parametrize("where", [0, 7, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(where, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(where * len(whole)) if where < 1 else where])
    fresh = NETWORKS["Chain"]()
    before = state(fresh)
    with pytest.raises(PruningError, match=r"net\.safetensors"):
        load_pruned_(fresh, path)
    assert untouched(fresh, before)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("Chain"), path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    fresh = NETWORKS["Chain"]()
    before = state(fresh)
    with pytest.raises(PruningError, match="damaged"):
        load_pruned_(fresh, path)
    assert untouched(fresh, before)


def rewritten(path, change):
    """Writes the file again with its note changed."""
    with safe_open(path, framework="pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        note = json.loads(file.metadata()["seg_pruning"])
    text = change(note)
    save_file(tensors, path, metadata={"seg_pruning": text if isinstance(text, str) else json.dumps(note)})


def put(*keys, value):
    def change(note):
        for key in keys[:-1]:
            note = note[key]
        note[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("version", value=99), "version 99.*update"),
        (put("structure", "version", value=99), "version 99.*update"),
        (lambda note: "{not json", "not JSON"),
        (lambda note: "[" * 100_000, "not JSON"),
        (lambda note: "[]", "version None"),
        (put("hash", value=3), "hash"),
        (put("aliases", value=[]), "aliases"),
        (put("aliases", value={"twin": "no.such"}), "damaged: twin"),
        (put("structure", "max_error", value="small"), "number or null"),
        (put("structure", value=[1, 2]), "JSON object"),
        (put("structure", "sizes", value=[["", "forward", None, 1, 2]]), "no such size|another network"),
        (put("structure", "sizes", value=[["", "__class__", None, 1, 2]]), "rewritten size"),
        (put("structure", "sizes", value=[["", "width", None, 12, -1]]), "rewritten size"),
        (put("structure", "plans", value=[{"version": 1}]), "must be a JSON"),
        (put("structure", "plans", 0, "kept", "stem", value=["a"]), "legal are"),
        (put("structure", "plans", 0, "dropped", value=["no.such"]), "no such module"),
    ],
)
def test_a_hostile_note_is_refused(change, message, tmp_path):
    path = tmp_path / "net.safetensors"
    save_pruned(pruned("AttributeSize"), path)
    rewritten(path, change)
    fresh = NETWORKS["AttributeSize"]()
    before = state(fresh)
    with pytest.raises(PruningError, match=message):
        load_pruned_(fresh, path)
    assert untouched(fresh, before)
    assert fresh.width == 12
    assert structure_of(fresh) is None


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

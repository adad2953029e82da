import pytest
import torch
from torch import nn

from seg_pruning.surgery.apply import apply_
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.files import load_pruned_, save_pruned
from seg_pruning.surgery.note import structure_of
from seg_pruning.surgery.plan import Plan
from seg_pruning.surgery.trial import trace
from tests.networks import NETWORKS
from tests.surgery.interrupts import equal, interrupted_everywhere, snapshot
from tests.surgery.oracle import answers, randomise_, uneven_plan
from tests.surgery.stored import pruned, put, rewritten


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

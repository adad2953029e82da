import copy
import io

import pytest
import torch
from torch import Tensor, nn

from seg_pruning.pruning import prune_
from seg_pruning.surgery.checkpoints import KEY, take_structure_, write_structure
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.note import structure_of
from tests.surgery.interrupts import equal, snapshot

IMAGE = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


class Scaled(nn.Module):
    """A buffer over the channels that is not in the state dict, and a branch that never runs."""

    def __init__(self, width: int = 8, hidden: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3)
        self.register_buffer("scale", torch.rand(width, 1, 1), persistent=not hidden)
        self.idle = nn.Conv2d(5, 5, 1)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head((self.stem(images) * self.scale).relu())


def pruned(**options: bool) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    dense = Scaled(**options)
    small = copy.deepcopy(dense)
    prune_(small, IMAGE, budget={"params": 0.6})
    return dense, small


def checkpoint_of(model: nn.Module) -> dict:
    """What a file holds, through a real file."""
    checkpoint = {"state_dict": model.state_dict()}
    write_structure(checkpoint, model)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def load_(model: nn.Module, checkpoint: dict) -> None:
    take_structure_(checkpoint, model)
    model.load_state_dict(checkpoint["state_dict"])


@pytest.mark.parametrize("hidden", [True, False])
def test_a_dense_network_becomes_the_one_of_the_file(hidden):
    _, small = pruned(hidden=hidden)
    torch.manual_seed(1)
    other = Scaled(hidden=hidden)
    ids = [id(p) for p in (other.stem.weight, other.head.weight)]
    load_(other, checkpoint_of(small))
    assert torch.equal(other(IMAGE), small(IMAGE))
    assert [id(p) for p in (other.stem.weight, other.head.weight)] == ids
    assert isinstance(other.idle, nn.Identity)


def test_the_memory_format_stays():
    dense, small = pruned(hidden=False)
    for model, other in ((small, dense), (dense, pruned(hidden=False)[1])):
        model.to(memory_format=torch.channels_last)
        load_(model, checkpoint_of(other))
        assert model.stem.weight.is_contiguous(memory_format=torch.channels_last)
        assert not model.stem.weight.is_contiguous()


def test_a_pruned_network_becomes_dense_again():
    dense, small = pruned(hidden=False)
    load_(small, checkpoint_of(dense))
    assert torch.equal(small(IMAGE), dense(IMAGE))
    found = structure_of(small)
    assert found is not None
    assert found.dropped == ("idle",), "a module that is gone cannot come back"
    assert not found.dense
    assert not found.sizes


@pytest.mark.parametrize("dropped", ["stem.weight", "head.weight"])
def test_weights_that_are_left_out_of_the_file_are_kept_beside_it(dropped):
    dense, small = pruned(hidden=True)
    checkpoint = {"state_dict": {n: v for n, v in small.state_dict().items() if n != dropped}}
    write_structure(checkpoint, small)
    take_structure_(checkpoint, dense)
    dense.load_state_dict(checkpoint["state_dict"], strict=False)
    assert torch.equal(dense(IMAGE), small(IMAGE))


def test_values_that_the_file_does_not_hold_are_not_made_up():
    dense, small = pruned(hidden=True)
    before = small(IMAGE)
    with pytest.raises(PruningError, match=r"lacks 1 tensors .*: scale"):
        take_structure_(checkpoint_of(dense), small)
    assert torch.equal(small(IMAGE), before)


def test_a_partial_file_is_taken_by_a_network_of_the_same_widths_only():
    """As Lightning's `strict_loading=False` allows: a frozen part may be left out of the file."""
    dense, small = pruned(hidden=False)
    checkpoint = checkpoint_of(small)
    del checkpoint["state_dict"]["stem.weight"]
    twin = copy.deepcopy(small)
    take_structure_(copy.deepcopy(checkpoint), twin)
    assert torch.equal(twin(IMAGE), small(IMAGE))
    before = dense(IMAGE)
    with pytest.raises(PruningError, match=r"lacks 1 tensors .*stem\.weight"):
        take_structure_(checkpoint, dense)
    assert torch.equal(dense(IMAGE), before)


def test_what_a_project_leaves_out_of_its_state_dict_is_written_where_it_was_cut():
    dense, small = pruned(hidden=False)
    state = {name: value for name, value in small.state_dict().items() if not name.startswith("stem.")}
    checkpoint = {"state_dict": state}
    write_structure(checkpoint, small)
    assert set(checkpoint["seg_pruning"]["buffers"]) == {
        name for name in small.state_dict() if name.startswith("stem.")
    }
    take_structure_(checkpoint, dense)
    dense.load_state_dict(state, strict=False)
    assert torch.equal(dense(IMAGE), small(IMAGE))


def test_the_file_of_another_network_is_refused():
    _, small = pruned()
    other = Scaled(width=9)
    with pytest.raises(PruningError, match="another network"):
        take_structure_(checkpoint_of(small), other)
    assert other.stem.out_channels == 9


def everything(change):
    """A checkpoint with its note changed."""
    _, small = pruned()
    checkpoint = checkpoint_of(small)
    change(checkpoint[KEY])
    return checkpoint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda note: note.clear(), "'structure' and 'buffers'"),
        (lambda note: note.update(buffers=[1]), "'structure' and 'buffers'"),
        (lambda note: note.update(buffers={"scale": 3}), "'structure' and 'buffers'"),
        (lambda note: note.update(structure=None), "JSON object"),
        (lambda note: note["structure"].update(version=99), "version 99.*update"),
        (lambda note: note["structure"].update(max_error=float("nan")), "largest error .*nan"),
        (
            lambda note: note["structure"].update(sizes=[["", "training", None, 1, 2]]),
            "training: not a whole",
        ),
        (lambda note: note["structure"]["plans"][0].update(dropped=["no.such"]), "no such module"),
        (lambda note: note["structure"]["dense"].update({"stem.weight": [8]}), "another network"),
    ],
)
def test_a_hostile_note_is_refused(change, message):
    checkpoint, other = everything(change), Scaled()
    before = snapshot(other)
    with pytest.raises(PruningError, match=message):
        take_structure_(checkpoint, other)
    assert equal(snapshot(other), before)


def test_a_buffer_that_cannot_be_read_leaves_the_network_as_it_was():
    other = Scaled()
    before = snapshot(other)
    checkpoint = everything(lambda note: note["buffers"].update(scale=note["buffers"]["scale"].to("meta")))
    with pytest.raises(NotImplementedError, match="meta"):
        take_structure_(checkpoint, other)
    assert equal(snapshot(other), before)

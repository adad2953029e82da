"""Ints of modules while a network is traced, and what layers state about themselves."""

import copy
import pickle
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.sizes import Attribute, Size, declared, read, tracked_sizes, write_
from seg_pruning.surgery.trace import FunctionCalls, record


class Watcher(FunctionCalls):
    """Notes the sizes that reach each torch function."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[str]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def run(*a, **k):
            found = {str(i.attribute) for i in self.frames[-1] if isinstance(i, Size)}
            self.seen.setdefault(func.__name__, set()).update(found)
            return func(*a, **k)

        return super().__torch_function__(run, types, args, kwargs)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.sections, self.window, self.groups = 4, [2, 6], (2, 2), 4
        self.flag, self.one, self.zero, self.ratio, self.mixed = True, 1, 0, 0.5, (4, "same")
        self.weight = nn.Parameter(torch.rand(8, 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        x = F.conv2d(x, self.weight, groups=self.groups)
        x = x.view(n, self.heads, -1, height, width).flatten(1, 2)
        x = torch.cat(torch.split(x, self.sections, 1), 1)
        x = F.avg_pool2d(x, self.window)
        return x.reshape(n, self.heads * 2, -1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Identity(), Inner())


@pytest.mark.parametrize(
    ("function", "attributes"),
    [
        ("conv2d", {"1.groups"}),
        ("view", {"1.heads"}),
        ("split", {"1.sections[0]", "1.sections[1]"}),
        ("avg_pool2d", {"1.window[0]", "1.window[1]"}),
        ("reshape", set()),  # computed with: `self.heads * 2` names no attribute that could be rewritten
    ],
)
def test_an_attribute_is_known_where_python_passes_it(function, attributes):
    model, watcher = network(), Watcher()
    with tracked_sizes(model), watcher:
        model(torch.rand(1, 8, 4, 4))
    assert watcher.seen[function] == attributes


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_every_attribute_is_restored(error):
    model = network()
    model.extend([model[1]])  # the same module under two names
    before = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(error) if error else nullcontext(), tracked_sizes(model):
        assert isinstance(model[1].heads, Size)
        assert model[1].heads == 4
        if error:
            raise error
    after = [dict(vars(module)) for module in model.modules()]
    assert [list(a) for a in after] == [list(b) for b in before]
    assert all(a[k] is b[k] for a, b in zip(after, before, strict=True) for k in b)


def test_what_cannot_be_a_width_is_left_alone_and_containers_keep_their_type():
    model = network()
    inner = model[1]
    names = ("flag", "one", "zero", "ratio", "mixed")
    before = {name: getattr(inner, name) for name in names}
    with tracked_sizes(model):
        assert all(getattr(inner, name) is before[name] for name in names)
        assert type(inner.sections) is list
        assert type(inner.window) is tuple
        assert inner.sections[1].attribute == Attribute("1", "sections", 1)
        assert inner.training is True


def test_a_copy_and_a_pickle_of_a_size_are_plain_ints():
    size = Size(8, Attribute("stem", "width"))
    copies = [copy.copy(size), *copy.deepcopy([size]), pickle.loads(pickle.dumps(size)), size + 0, -size]
    assert copies == [8, 8, 8, 8, -8]
    assert {type(c) for c in copies} == {int}
    assert str(size.attribute) == "stem.width"
    assert str(Attribute("", "shape", 2)) == "shape[2]"


def test_a_forward_that_copies_what_it_reads_is_traced():
    class Copier(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).reshape(copy.deepcopy([1, self.out_channels, 16]))

    assert record(Copier(3, 8, 1), torch.rand(1, 3, 4, 4)).ops
    with pytest.raises(PruningError, match=r"\(1, 4, 4, 4\)"):
        record(Copier(3, 8, 1), torch.rand(1, 4, 4, 4))


@pytest.mark.parametrize(
    ("name", "index", "expected"), [("heads", None, 3), ("sections", 1, [2, 3]), ("window", 0, (3, 2))]
)
def test_a_written_size_is_read_and_containers_are_replaced_not_changed(name, index, expected):
    model, attribute = network(), Attribute("1", name, index)
    held = getattr(model[1], name)
    before = copy.copy(held)
    write_(model, attribute, 3)
    assert read(model, attribute) == 3
    assert getattr(model[1], name) == expected
    assert type(getattr(model[1], name)) is type(before)
    assert held == before


@pytest.mark.parametrize(
    ("make", "wide", "narrow"),
    [
        (nn.Conv2d, (8, 12, 3), (6, 10, 3)),
        (lambda i, o: nn.Conv2d(i, o, 3, groups=2), (8, 12), (6, 10)),
        (lambda c: nn.Conv2d(c, c, 3, groups=c), (8,), (5,)),
        (nn.Conv1d, (4, 6, 1), (3, 5, 1)),
        (nn.Conv3d, (4, 6, 1), (3, 5, 1)),
        (nn.ConvTranspose2d, (8, 12, 2), (6, 10, 2)),
        (lambda i, o: nn.ConvTranspose2d(i, o, 2, groups=4), (8, 12), (4, 8)),
        (nn.Linear, (8, 12), (5, 7)),
        (nn.BatchNorm2d, (8,), (5,)),
        (lambda c: nn.BatchNorm1d(c, affine=False), (8,), (5,)),
        (lambda c: nn.InstanceNorm2d(c, affine=True), (8,), (5,)),
        (nn.SyncBatchNorm, (8,), (5,)),
        (lambda c: nn.GroupNorm(2, c), (8,), (6,)),
        (nn.LayerNorm, (8,), (5,)),
        (lambda c: nn.LayerNorm([c, 4]), (8,), (5,)),
        (nn.Embedding, (10, 8), (10, 5)),
        (nn.PReLU, (8,), (5,)),
    ],
)
def test_a_layer_states_what_a_freshly_built_one_of_the_cut_shapes_states(make, wide, narrow):
    layer, fresh = make(*wide), make(*narrow)
    shapes = {name: tuple(tensor.shape) for name, tensor in fresh.state_dict().items()}
    stated = declared(layer, shapes, getattr(fresh, "groups", None))
    assert stated
    assert {name: getattr(fresh, name) for name in stated} == stated
    # nothing is forgotten: all ints that differ are stated, but for groups, which the forward reads
    kinds = {name: value for name, value in vars(fresh).items() if type(value) in (int, tuple)}
    changed = {name for name, value in kinds.items() if vars(layer)[name] != value}
    assert changed - {"groups"} <= set(stated)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.LayerNorm(8, elementwise_affine=False), nn.Identity()])
def test_a_layer_without_tensors_states_nothing(layer):
    assert declared(layer, {}, None) == {}


def test_a_convolution_has_the_groups_that_it_has_unless_told_otherwise():
    layer = nn.Conv2d(8, 8, 3, groups=4)
    assert declared(layer, {"weight": (8, 2, 3, 3)}, None) == {"out_channels": 8, "in_channels": 8}
    assert declared(layer, {"weight": (4, 2, 3, 3)}, 2) == {"out_channels": 4, "in_channels": 4}

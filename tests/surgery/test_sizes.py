"""Ints of modules while a network is traced, and what layers state about themselves."""

import copy
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seg_pruning.surgery.calls import FunctionCalls
from seg_pruning.surgery.errors import PruningError
from seg_pruning.surgery.expressions import Attribute, Computed, Extent, evaluate
from seg_pruning.surgery.ledger import Ledger
from seg_pruning.surgery.sizes import Shape, Size, declared, read, tracked_sizes, write_
from seg_pruning.surgery.trace import record

OWNER = Ledger()


A, B = Attribute("stem", "a"), Attribute("stem", "b")


def shown(expression):
    if isinstance(expression, Computed):
        return f"({shown(expression.left)} {expression.operator} {shown(expression.right)})"
    return str(expression)


class Watcher(FunctionCalls):
    """Notes the sizes that reach each torch function."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[str]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def run(*a, **k):
            found = {shown(i.expression) for i in self.frames[-1].ints if isinstance(i, Size)}
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
    ("function", "sizes"),
    [
        ("conv2d", {"1.groups"}),
        ("view", {"1.heads"}),
        ("split", {"1.sections[0]", "1.sections[1]"}),
        ("avg_pool2d", {"1.window[0]", "1.window[1]"}),
        ("reshape", {"(1.heads * 2)"}),
    ],
)
def test_an_attribute_is_known_where_python_passes_it_and_what_was_computed_with_it(function, sizes):
    model, watcher = network(), Watcher()
    with tracked_sizes(model, OWNER), watcher:
        model(torch.rand(1, 8, 4, 4))
    assert watcher.seen[function] == sizes


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_every_attribute_is_restored(error):
    model = network()
    model.extend([model[1]])  # the same module under two names
    before = [dict(vars(module)) for module in model.modules()]
    with pytest.raises(error) if error else nullcontext(), tracked_sizes(model, OWNER):
        assert isinstance(model[1].heads, Size)
        assert model[1].heads == 4
        assert model[1].heads.owner is OWNER
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
    with tracked_sizes(model, OWNER) as values:
        assert {str(attribute): value for attribute, value in values.items() if attribute.module == "1"} == {
            "1.heads": 4, "1.sections[0]": 2, "1.sections[1]": 6,
            "1.window[0]": 2, "1.window[1]": 2, "1.groups": 4,
        }  # fmt: skip
        assert all(getattr(inner, name) is before[name] for name in names)
        assert type(inner.sections) is list
        assert type(inner.window) is tuple
        assert inner.sections[1].expression == Attribute("1", "sections", 1)
        assert inner.training is True


def test_a_copy_and_a_pickle_of_a_size_are_plain_ints():
    size = Size(8, Attribute("stem", "width"), OWNER)
    copies = [copy.copy(size), *copy.deepcopy([size]), pickle.loads(pickle.dumps(size)), int(size), +size]
    assert copies == [8] * 5
    assert {type(c) for c in copies} == {int}
    assert str(size.expression) == "stem.width"
    assert str(Attribute("", "shape", 2)) == "shape[2]"


@pytest.mark.parametrize(
    "formula",
    [
        lambda a: a / 2,
        lambda a: 2 / a,
        lambda a: a * 0.5,
        lambda a: 0.5 * a,
        lambda a: a + 0.5,
        lambda a: 0.5 - a,
        lambda a: a // 2.0,
        lambda a: 7.5 // a,
        lambda a: a**-0.5,
        lambda a: a % 5,
        lambda a: 2**a,
        lambda a: divmod(a, 5),
        lambda a: a > 3,
        lambda a: a == 12,
        lambda a: bool(a),
        lambda a: hash(a),
        lambda a: f"{a} {a!r} {a:03d}",
        lambda a: math.sqrt(a),
        lambda a: [0] * a,
        lambda a: a * [0],
        lambda a: (1, 2) * a,
        lambda a: a * "x",
        lambda a: list(range(a)),
        lambda a: list(range(20))[a],
        lambda a: {12: "found"}[a],
        lambda a: torch.arange(3).mul(a).tolist(),
        lambda a: (a * torch.arange(3)).tolist(),
        lambda a: complex(a) + a,
    ],
)
def test_all_else_is_what_a_plain_int_gives(formula):
    got, expected = formula(Size(12, A, OWNER)), formula(12)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize("formula", [lambda a: a // 0, lambda a: a + "x", lambda a: a[0], lambda a: a - None])
def test_errors_are_those_of_a_plain_int(formula):
    with pytest.raises((ZeroDivisionError, TypeError)) as plain:
        formula(12)
    with pytest.raises(plain.type):
        formula(Size(12, A, OWNER))


def test_the_sizes_of_a_pass_stay_its_own():
    mine, other = Size(12, A, OWNER), Size(3, B, object())
    assert (mine * 2).owner is OWNER
    assert (2 * mine).owner is OWNER
    assert (other // 2).owner is other.owner


def test_a_shape_is_like_that_of_torch_but_for_its_hash():
    plain = torch.zeros(2, 6, 4, 5).shape
    channels = Size(6, Extent(np.arange(6).reshape(1, 6, 1, 1), 1), OWNER)
    shape = Shape([2, channels, 4, 5])
    assert shape == plain == shape
    assert (len(shape), tuple(shape), list(shape), shape[::-1]) == (4, plain, list(plain), plain[::-1])
    assert type(shape[:2]) is Shape
    assert shape[1] is channels
    assert shape[:2][1] is channels
    assert shape[-3] is channels
    assert [torch.zeros(shape).shape, torch.zeros(*shape).shape, torch.Size(shape)] == [plain] * 3
    total = shape.numel()
    assert total == 240
    assert evaluate(total.expression, lambda _: 2) == 80
    with pytest.raises(TypeError, match="unhashable"):
        hash(shape)
    assert Shape([2, 3]).numel() == 6
    assert Shape([]).numel() == 1


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

"""The masked original of any network, without a label or a rule: what is removed is *absent*, a NaN.

Every removed element of every parameter and buffer is NaN. What only moves or maps elements carries it along
by itself; the ops that sum over elements (products, means, norms, softmax) are written here once more, over
the elements that are there. An output that holds a NaN, or another number than the pruned network's, is a
wrong cut: something that stays depends on something that is gone, or channels meet that are not each other's.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from seg_pruning.surgery.inputs import Inputs, flatten_tensors

aten = torch.ops.aten
NAN = float("nan")
OPS: dict[object, Callable[..., object]] = {}


def op(*packets):
    def register(function):
        OPS.update(dict.fromkeys(packets, function))
        return function

    return register


def absent(x: Tensor) -> Tensor:
    return x.isnan() if x.is_floating_point() or x.is_complex() else torch.zeros_like(x, dtype=torch.bool)


def there(x: Tensor, value: float = 0.0) -> Tensor:
    return torch.where(absent(x), value, x) if x.is_floating_point() or x.is_complex() else x


def listed(dim: object, ndim: int) -> tuple[int, ...]:
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(ndim))
    return tuple(d % ndim for d in ([dim] if isinstance(dim, int) else dim)) if ndim else ()


def total(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> tuple[Tensor, Tensor]:
    """The sum over what is there, NaN where nothing is, and how many elements were summed."""
    if not dims:
        return x, (~absent(x)).sum(dim=(), keepdim=keepdim) if x.ndim else torch.ones(())
    number = (~absent(x)).sum(dims, keepdim=keepdim)
    return torch.where(number == 0, NAN, there(x).sum(dims, keepdim=keepdim)), number


def moments(x: Tensor, dims: tuple[int, ...], correction: float) -> tuple[Tensor, Tensor]:
    """Variance and mean over what is there, dims kept."""
    summed, number = total(x, dims, True)
    mean = summed / number
    squares, _ = total((x - mean).square(), dims, True)
    return squares / (number - correction).clamp(min=0), mean


@op(aten.convolution)
def convolution(run, x, w, b, stride, padding, dilation, transposed, output_padding, groups):
    out = run(there(x), there(w), None if b is None else there(b), stride, padding, dilation, transposed,
              output_padding, groups)  # fmt: skip
    if transposed:
        pieces = absent(w).reshape(groups, w.shape[0] // groups, *w.shape[1:]).transpose(1, 2)
        gone = pieces.reshape(groups * w.shape[1], -1).all(1)
    else:
        gone = absent(w).flatten(1).all(1)
    if b is not None:
        gone = gone | absent(b)
    out[:, gone] = NAN
    return out


def _product(a: Tensor, b: Tensor) -> Tensor:
    out = torch.matmul(there(a), there(b))
    return torch.where(absent(a).all(-1)[..., :, None] | absent(b).all(-2)[..., None, :], NAN, out)


@op(aten.mm, aten.bmm)
def mm(run, a, b):
    return _product(a, b)


@op(aten.addmm, aten.baddbmm)
def addmm(run, c, a, b, beta=1, alpha=1):
    return beta * c + alpha * _product(a, b)


@op(aten.mv)
def mv(run, a, b):
    return _product(a, b[:, None])[:, 0]


@op(aten._cdist_forward, aten._euclidean_dist)
def cdist(run, a, b, *rest):
    gone = absent(a).all(-1)[..., :, None] | absent(b).all(-1)[..., None, :]
    either = absent(a).flatten(0, -2).all(0) | absent(b).flatten(0, -2).all(0)  # the same features of both
    return torch.where(
        gone, NAN, run(there(a).masked_fill(either, 0), there(b).masked_fill(either, 0), *rest)
    )


@op(aten.dot, aten.vdot)
def dot(run, a, b):
    return run(there(a), there(b))


@op(aten._softmax)
def softmax(run, x, dim, half):
    return torch.where(absent(x), NAN, run(there(x, -torch.inf), dim, half))


@op(aten._safe_softmax)
def safe_softmax(run, x, dim, dtype=None):
    return torch.where(absent(x), NAN, run(there(x, -torch.inf), dim, dtype))


@op(aten._log_softmax)
def log_softmax(run, x, dim, half):
    return torch.where(absent(x), NAN, run(there(x, -torch.inf), dim, half))


@op(aten.sum)
def sum_(run, x, dim=None, keepdim=False, dtype=None):
    return total(x, listed(dim, x.ndim), keepdim)[0] if x.is_floating_point() else run(x, dim, keepdim)


@op(aten.mean)
def mean(run, x, dim=None, keepdim=False, dtype=None):
    summed, number = total(x, listed(dim, x.ndim), keepdim)
    return summed / number


@op(aten.var, aten.std, aten.var_mean, aten.std_mean)
def variance(run, x, dim=None, *, correction=None, keepdim=False, packet=None):
    dims = listed(dim, x.ndim)
    var, middle = moments(x, dims, 1 if correction is None else correction)
    if not keepdim:
        var, middle = var.squeeze(dims), middle.squeeze(dims)
    var = var.sqrt() if packet in (aten.std, aten.std_mean) else var
    return (var, middle) if packet in (aten.var_mean, aten.std_mean) else var


@op(aten.amax, aten.amin)
def extreme(run, x, dim=(), keepdim=False, packet=None):
    dims = listed(dim, x.ndim)
    worst = -torch.inf if packet is aten.amax else torch.inf
    return torch.where(absent(x).all(dims, keepdim=keepdim), NAN, run(there(x, worst), dims, keepdim))


@op(aten.max, aten.min)
def extreme_of(run, x, *rest, packet=None):
    if not rest or isinstance(rest[0], Tensor):
        return run(x, *rest)
    worst = -torch.inf if packet is aten.max else torch.inf
    value, index = run(there(x, worst), *rest)
    return torch.where(value.isinf(), NAN, value), index


@op(aten.linalg_vector_norm)
def vector_norm(run, x, order=2, dim=None, keepdim=False, dtype=None):
    dims = listed(dim, x.ndim)
    return torch.where(absent(x).all(dims, keepdim=keepdim), NAN, run(there(x), order, dims, keepdim))


@op(aten.norm)
def norm(run, x, p=2, dim=None, keepdim=False):
    return vector_norm(torch.ops.aten.linalg_vector_norm, x, 2 if p is None else p, dim, keepdim)


@op(aten.native_layer_norm)
def layer_norm(run, x, shape, weight, bias, eps):
    dims = tuple(range(x.ndim - len(shape), x.ndim))
    var, middle = moments(x, dims, 0)
    scale = (var + eps).rsqrt()
    out = (x - middle) * scale * (1 if weight is None else weight) + (0 if bias is None else bias)
    return out, middle, scale


@op(aten.native_batch_norm)
def batch_norm(run, x, weight, bias, mean, var, training, momentum, eps):
    if not training:
        return run(x, weight, bias, mean, var, training, momentum, eps)
    dims = tuple(d for d in range(x.ndim) if d != 1)
    own, middle = moments(x, dims, 0)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    out = (x - middle) * (own + eps).rsqrt() * (1 if weight is None else weight.reshape(shape))
    return out + (0 if bias is None else bias.reshape(shape)), middle.flatten(), own.flatten()


@op(aten._fused_rms_norm)
def rms_norm(run, x, shape, weight, eps):
    squares, number = total(x.square(), tuple(range(x.ndim - len(shape), x.ndim)), True)
    scale = (squares / number + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    return x * scale * (1 if weight is None else weight), scale


@op(aten.native_group_norm)
def group_norm(run, x, weight, bias, n, c, hw, groups, eps):
    rows = x.reshape(n, groups, -1)
    var, middle = moments(rows, (2,), 0)
    out = ((rows - middle) * (var + eps).rsqrt()).reshape(x.shape)
    shape = (1, c) + (1,) * (x.ndim - 2)
    out = out * (1 if weight is None else weight.reshape(shape))
    return out + (0 if bias is None else bias.reshape(shape)), middle[..., 0], var[..., 0]


@op(aten._weight_norm_interface)
def weight_norm(run, v, g, dim=0):
    squares, _ = total(v.square(), tuple(d for d in range(v.ndim) if d != dim), True)
    return v * (g / squares.sqrt()), squares.sqrt().reshape(g.shape)


@op(aten.constant_pad_nd)
def pad(run, x, widths, value=0):
    dims = tuple(range(x.ndim - len(widths) // 2, x.ndim))
    return _where_there(x, run(x, widths, value), dims)


@op(aten.max_unpool2d, aten.max_unpool3d, aten.grid_sampler_2d, aten.grid_sampler_3d)
def spread(run, x, *rest):
    return _where_there(x, run(there(x), *rest), tuple(range(2, x.ndim)))


@op(aten.im2col)
def im2col(run, x, *rest):
    return torch.where(run(absent(x).to(x.dtype), *rest) + 0 * run(torch.ones_like(x), *rest) > 0, NAN,
                       run(there(x), *rest))  # fmt: skip


@op(aten.hardswish, aten.hardswish_)
def hardswish(run, x):
    gone = absent(x)
    out = run(x)
    out[gone] = NAN
    return out


def _where_there(x: Tensor, out: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`out`, NaN wherever all of `x` along `dims` is."""
    return torch.where(absent(x).all(dims, keepdim=True), NAN, out) if x.is_floating_point() else out


class Absent(TorchDispatchMode):
    """Within, ops that sum do so over what is not NaN."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        handler = OPS.get(func.overloadpacket)
        if handler is None or not any(absent(t).any() for t in flatten_tensors((args, kwargs))):
            return func(*args, **kwargs)
        extra = {"packet": func.overloadpacket} if "packet" in handler.__code__.co_varnames else {}
        return handler(func, *args, **kwargs, **extra)


@contextmanager
def plain_attention():
    """Within, attention and transformer layers are made of single ops."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def masked_answers(model: nn.Module, masks: dict[str, Tensor], example: object) -> list[Tensor]:
    """What the dense `model`, in the modes it is in, answers without the elements where a mask is False."""
    model = copy.deepcopy(model)
    values = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        mask = masks.get(name)
        values[name] = tensor.detach() if mask is None else torch.where(mask, tensor.detach(), NAN)
    inputs = Inputs.of(example)
    with torch.no_grad(), plain_attention(), Absent():
        out = functional_call(model, values, inputs.args, dict(inputs.kwargs))
    return [t.clone() for t in flatten_tensors(out)]

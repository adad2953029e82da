"""The label arrays: which channel each index of a tensor is.

A label is an integer that names one channel. A *label array* of a tensor has as many dims as the tensor,
each of size 1 or the tensor's: `(1, C, 1, 1)` after a convolution, `(1, h, d, 1)` after a split into heads.
The dims along which it is larger than 1 are the dims that it *spans*. A tensor carries a set of label
arrays, no two of which span the same dims; an element of the tensor stays when all its labels stay. A dim
that no array spans is *rigid*: nothing can leave it.

Everything here is pure: arrays in, arrays out.
"""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

LabelArray: TypeAlias = npt.NDArray[np.int64]
LabelSet: TypeAlias = tuple[LabelArray, ...]
Shape: TypeAlias = Sequence[int]

FIXED = 0
"""The label of whatever can never leave."""


def span(array: LabelArray) -> tuple[int, ...]:
    """The dims along which `array` tells channels apart.

    >>> span(np.zeros((1, 4, 1, 1), dtype=np.int64))
    (1,)
    """
    return tuple(d for d, size in enumerate(array.shape) if size > 1)


def along(vector: npt.ArrayLike, dim: int, ndim: int) -> LabelArray:
    """A vector of labels as a label array that spans `dim` alone.

    >>> along([3, 4], 1, 4).shape
    (1, 2, 1, 1)
    """
    vector = np.asarray(vector, dtype=np.int64)
    return vector.reshape([-1 if d == dim % ndim else 1 for d in range(ndim)])


def vector(labels: LabelSet, dim: int) -> LabelArray | None:
    """The labels along `dim` as a vector, if one array spans just that dim.

    >>> vector((along([3, 4], 1, 4),), 1)
    array([3, 4])
    """
    found = [array for array in labels if span(array) == (dim,)]
    return found[0].reshape(-1) if found else None


def touching(labels: LabelSet, dims: Iterable[int]) -> LabelSet:
    """The arrays that span at least one of `dims`."""
    wanted = set(dims)
    return tuple(array for array in labels if wanted & set(span(array)))


def lift(labels: LabelSet, ndim: int) -> LabelSet:
    """The arrays with leading dims of size 1, as broadcasting adds them."""
    return tuple(array.reshape((1,) * (ndim - array.ndim) + array.shape) for array in labels)


def collapse(array: LabelArray) -> LabelArray:
    """The array without the dims along which it never changes.

    >>> collapse(np.array([[1, 1], [2, 2]])).shape
    (2, 1)
    """
    for dim in span(array):
        first = array.take([0], axis=dim)
        if (array == first).all():
            array = first
    return array


def in_several_rows(array: LabelArray, dim: int) -> bool:
    """Whether a channel stands in several lines along `dim`: no line can choose for itself then."""
    lines = np.unique(np.moveaxis(array, dim, -1).reshape(-1, array.shape[dim]), axis=0)
    once = sum(len(np.unique(line[line != FIXED])) for line in lines)
    return once > len(np.unique(array[array != FIXED]))


def first_along(array: LabelArray, dims: Iterable[int]) -> LabelArray:
    """What stands first along `dims`, which are of size 1 then."""
    gone = set(dims)
    return array[tuple(slice(0, 1) if d in gone else slice(None) for d in range(array.ndim))]


def without_fixed(array: LabelArray) -> LabelArray:
    """`array` without the indices at which nothing but `FIXED` stands."""
    for d in span(array):
        alive = (array != FIXED).any(axis=tuple(i for i in range(array.ndim) if i != d))
        array = array if alive.all() else array.compress(alive, axis=d)
    return array


def with_fixed(labels: LabelSet, dims: tuple[int, ...], shape: Shape) -> LabelArray:
    """The array of `labels` that spans `dims`, widened to all of `dims`; `FIXED` where there is none."""
    wide = [size if d in dims else 1 for d, size in enumerate(shape)]
    inside = [array for array in labels if span(array) and set(span(array)) <= set(dims)]
    if len(inside) != 1:
        return np.full(wide, FIXED, dtype=np.int64)
    return np.broadcast_to(inside[0], wide)


def kept_extents(mask: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The shape of what a mask keeps, and the dims along which its lines keep different indices.

    None where the kept elements form no rectangle.

    >>> kept_extents(np.array([[True, False, True], [False, True, True]]))
    ((2, 2), (1,))
    """
    total = int(np.count_nonzero(mask))
    dims = [d for d, size in enumerate(mask.shape) if size > 1]
    shape = [min(total, 1)] * mask.ndim
    for dim in dims:
        shape[dim] = int(np.count_nonzero(mask.any(axis=tuple(d for d in dims if d != dim))))
    ragged: list[int] = []
    for dim in reversed(dims):
        if int(np.prod(shape)) == total:
            break
        lengths = mask.sum(axis=dim)
        found = np.unique(lengths[lengths > 0])
        if len(found) == 1 and found[0] < shape[dim]:
            shape[dim] = int(found[0])
            ragged.insert(0, dim)
    return (tuple(shape), tuple(ragged)) if int(np.prod(shape)) == total else None


def segments(old: Shape, new: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The smallest runs of old dims and new dims that hold the same elements when `old` is viewed as `new`.

    >>> segments((2, 12, 5), (2, 3, 4, 5))
    [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,))]
    """
    runs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start_i, start_j, have, want = i, j, 1, 1
        if i < len(old):
            have, i = old[i], i + 1
        if j < len(new):
            want, j = new[j], j + 1
        while have != want:
            if j == len(new) or (have < want and i < len(old)):
                have, i = have * old[i], i + 1
            else:
                want, j = want * new[j], j + 1
        runs.append((tuple(range(start_i, i)), tuple(range(start_j, j))))
    return runs


def reshape(array: LabelArray, old: Shape, new: Shape) -> LabelArray:
    """The label array of a tensor of shape `old` after it is viewed as `new`; neither may hold a size of 0.

    >>> reshape(along([1, 2, 3, 4], 1, 2), (5, 4), (5, 2, 2)).shape
    (1, 2, 2)
    """
    spanned = set(span(array))
    wide = [1] * len(old)
    shape = [1] * len(new)
    for before, after in segments(old, new):
        if spanned & set(before):
            for d in before:
                wide[d] = old[d]
            for d in after:
                shape[d] = new[d]
    return collapse(np.broadcast_to(array, wide).reshape(shape))


def components(count: int, pairs: Iterable[tuple[LabelArray, LabelArray]]) -> LabelArray:
    """The smallest label of each label's connected component under the ties `pairs`, shape `(count,)`.

    >>> components(5, [(np.array([1, 2]), np.array([3, 3]))])
    array([0, 1, 1, 1, 4])
    """
    listed = [(np.asarray(a).reshape(-1), np.asarray(b).reshape(-1)) for a, b in pairs]
    root: LabelArray = np.arange(count, dtype=np.int64)
    if not listed:
        return root
    left = np.concatenate([a for a, _ in listed])
    right = np.concatenate([b for _, b in listed])
    while True:
        low = np.minimum(root[left], root[right])
        if (root[left] == low).all() and (root[right] == low).all():
            return root
        # Hooking the roots, not only the labels, halves the remaining depth in each round.
        np.minimum.at(root, root[left], low)
        np.minimum.at(root, root[right], low)
        np.minimum.at(root, left, low)
        np.minimum.at(root, right, low)
        while (root != root[root]).any():
            root = root[root]

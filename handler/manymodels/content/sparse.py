"""Sparse rows from a client: every index is checked before SciPy's compiled code sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manymodels.content.limits import check_decoded, check_width
from manymodels.errors import BadRequest

_INDEX_BYTES = 8
_ENTRY_BYTES = 16
_DATA_DIMENSIONS = {"bsr": 3, "dia": 2}

Arrays = Mapping[str, NDArray[Any]]
Shape = tuple[int, int]


class Entries(NamedTuple):
    """The values that are there, row by row: what CSR is made of.

    ``pointers`` has a value more than there are rows; row i's values are those from pointers[i]
    to pointers[i + 1], and ``columns`` says where they are.
    """

    pointers: NDArray[Any]
    columns: NDArray[Any]
    values: NDArray[Any]


def csr_rows(entries: Entries, shape: Shape) -> Any:
    """Return a CSR matrix of float64 in canonical form; values of one place are added up.

    Raises BadRequest for entries that are not of ``shape``, PayloadTooLarge for a shape or a
    number of entries that takes too much memory.
    """
    pointers, columns, values = entries
    check_shape(shape)
    check_entries(len(values))
    _same_lengths(pointers=len(pointers), due=shape[0] + 1)
    _same_lengths(columns=len(columns), values=len(values))
    pointers = pointers.astype(np.int64)
    if pointers[0] != 0 or pointers[-1] != len(columns) or (np.diff(pointers) < 0).any():
        raise BadRequest(f"the sparse matrix's pointers do not rise from 0 to {len(columns)}")
    _check_places("column", columns, shape[1], shape)
    from scipy.sparse import csr_matrix

    parts = (values.astype(np.float64), columns.astype(np.int32), pointers.astype(np.int32))
    matrix = csr_matrix(parts, shape=shape)
    matrix.sum_duplicates()
    return matrix


def _check_places(what: str, places: NDArray[Any], length: int, shape: Shape) -> None:
    if len(places):
        least, greatest = int(places.min()), int(places.max())
        if least < 0 or greatest >= length:
            outside = least if least < 0 else greatest
            raise BadRequest(f"the sparse rows have {what} {outside}, their shape is {shape}")


def check_shape(shape: Shape) -> None:
    """Raise BadRequest for sparse rows that have none or no columns, PayloadTooLarge for many."""
    if shape[0] < 1 or shape[1] < 1:
        raise BadRequest(f"the sparse rows have no values: their shape is {shape}")
    check_decoded(shape[0] * _INDEX_BYTES, f"a sparse matrix of shape {shape}")
    check_width(shape[1], "the sparse matrix")


def check_entries(count: int) -> None:
    """Raise PayloadTooLarge for more values than are accepted, each with its place."""
    check_decoded(count * _ENTRY_BYTES, f"a sparse matrix of {count} values")


def is_sparse_file(arrays: Arrays) -> bool:
    """Tell what scipy.sparse.save_npz writes from other arrays."""
    return {"format", "shape"} <= set(arrays) and arrays["format"].ndim == 0


def sparse_rows(arrays: Arrays) -> Any:
    """Return the CSR matrix of what scipy.sparse.save_npz wrote, in whatever format.

    Raises BadRequest for a format that is not known, and for arrays that contradict each other.
    """
    kind = _format(arrays["format"])
    shape = _shape(arrays["shape"])
    check_shape(shape)
    if kind not in _READERS:
        raise BadRequest(f"the sparse format {kind!r} is none of {', '.join(_READERS)}")
    check_entries(_data(arrays, _DATA_DIMENSIONS.get(kind, 1)).size)
    return csr_rows(_READERS[kind](arrays, shape), shape)


def _format(array: NDArray[Any]) -> str:
    text = array.item()
    return text.decode("latin-1")[:20] if isinstance(text, bytes) else str(text)[:20]


def _shape(array: NDArray[Any]) -> Shape:
    if array.dtype.kind not in "iu" or array.shape != (2,):
        raise BadRequest("the sparse matrix's shape is not two integers")
    return int(array[0]), int(array[1])


def _numbers(arrays: Arrays, name: str, dimensions: int, kinds: str = "iu") -> NDArray[Any]:
    array = arrays.get(name)
    if array is None or array.ndim != dimensions or array.dtype.kind not in kinds:
        found = "absent" if array is None else f"{array.dtype} of shape {array.shape}"
        wanted = "integers" if kinds == "iu" else "numbers"
        raise BadRequest(
            f"the sparse matrix's {name} is {found}; {wanted} in {dimensions} dimensions are due"
        )
    return array


def _data(arrays: Arrays, dimensions: int) -> NDArray[Any]:
    return _numbers(arrays, "data", dimensions, "biuf")


def _same_lengths(**lengths: int) -> None:
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise BadRequest(f"the sparse matrix's arrays differ in length: {found}")


def _coo(arrays: Arrays, shape: Shape) -> Entries:
    rows, columns = _numbers(arrays, "row", 1), _numbers(arrays, "col", 1)
    return _by_row(rows, columns, _data(arrays, 1), shape)


def _csr(arrays: Arrays, shape: Shape) -> Entries:
    indices, pointers = _numbers(arrays, "indices", 1), _numbers(arrays, "indptr", 1)
    return Entries(pointers, indices, _data(arrays, 1))


def _csc(arrays: Arrays, shape: Shape) -> Entries:
    rows, data = _numbers(arrays, "indices", 1), _data(arrays, 1)
    return _by_row(rows, _major(arrays, shape[1], len(rows)), data, shape)


def _bsr(arrays: Arrays, shape: Shape) -> Entries:
    blocks, data = _numbers(arrays, "indices", 1), _data(arrays, 3)
    _same_lengths(indices=len(blocks), data=len(data))
    height, width = data.shape[1:]
    if not height or not width or shape[0] % height or shape[1] % width:
        raise BadRequest(f"blocks of shape ({height}, {width}) do not tile a matrix of {shape}")
    # Checked before they are multiplied: the product may wrap around into the matrix.
    _check_places("block", blocks, shape[1] // width, shape)
    major = _major(arrays, shape[0] // height, len(blocks))
    down, across = np.arange(height)[:, np.newaxis], np.arange(width)
    rows = major[:, np.newaxis, np.newaxis] * height + down + 0 * across
    columns = blocks.astype(np.int64)[:, np.newaxis, np.newaxis] * width + across + 0 * down
    return _by_row(rows.ravel(), columns.ravel(), data.ravel(), shape)


def _dia(arrays: Arrays, shape: Shape) -> Entries:
    offsets, data = _numbers(arrays, "offsets", 1).astype(np.int64), _data(arrays, 2)
    _same_lengths(offsets=len(offsets), data=len(data))
    outside = (offsets >= shape[1]) | (offsets <= -shape[0])
    if len(np.unique(offsets)) != len(offsets) or outside.any():
        raise BadRequest(f"the sparse matrix's offsets are twice the same, or outside {shape}")
    columns = np.broadcast_to(np.arange(data.shape[1]), data.shape)
    rows = columns - offsets[:, np.newaxis]
    # What lies outside the matrix is padding.
    inside = (rows >= 0) & (rows < shape[0]) & (columns < shape[1])
    return _by_row(rows[inside], columns[inside], data[inside], shape)


def _major(arrays: Arrays, count: int, n_entries: int) -> NDArray[Any]:
    """Return the row of each block, or the column of each entry, from the pointers."""
    pointers = _numbers(arrays, "indptr", 1).astype(np.int64)
    _same_lengths(indptr=len(pointers), due=count + 1)
    lengths = np.diff(pointers)
    if pointers[0] != 0 or pointers[-1] != n_entries or (lengths < 0).any():
        raise BadRequest(f"the sparse matrix's indptr does not rise from 0 to {n_entries}")
    return np.repeat(np.arange(count), lengths)


def _by_row(
    rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any], shape: Shape
) -> Entries:
    _same_lengths(rows=len(rows), columns=len(columns), data=len(values))
    _check_places("row", rows, shape[0], shape)
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows.astype(np.int64), minlength=shape[0])
    pointers = np.concatenate(([0], np.cumsum(counts)))
    return Entries(pointers, columns[order], values[order])


_READERS: Mapping[str, Callable[[Arrays, Shape], Entries]] = {
    "csr": _csr,
    "csc": _csc,
    "bsr": _bsr,
    "coo": _coo,
    "dia": _dia,
}

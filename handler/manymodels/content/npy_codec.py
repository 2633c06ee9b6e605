"""application/x-npy: NumPy's own file of one array, without pickle."""

from __future__ import annotations

import io
import re
import sys
import tokenize
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from manymodels.content.limits import check_cells, check_decoded
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest, NotAcceptable

_STRING = re.compile(rb"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
_NO_LITERAL = re.compile(rb"[^\w\s()\[\]{}:,]")
_BRACKET = re.compile(rb"[()\[\]{}]")
_OPENING = b"([{"
_DEEPEST = 12
_LONGEST_HEADER = 10_000
"""NumPy's own limit for files that are not trusted; some 500 named columns."""
_TEXT_CELL_BYTES = 64
"""A Python text of a few letters."""
_HEADER_FAULTS = (ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, RecursionError)


class _Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    end: int


def decode_npy(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of an .npy body of shape (n_rows, n_features), or (n_features,): one row.

    Numbers keep their type, text becomes objects, and the fields of a structured array become
    named columns. Raises BadRequest for objects (they are pickles), complex numbers and dates,
    for other shapes, and for a header that claims more or less than the body holds.
    """
    return table_of(read_array(as_bytes(body, "NPY"), "the NPY body"), columns)


def encode_npy(predictions: NDArray[Any]) -> bytes:
    """Return predictions as an .npy file; NotAcceptable where they would need a pickle."""
    array = np.asarray(predictions)
    if array.dtype.kind not in "biufcmMUS":
        array = _of_one_type(array)
    written = io.BytesIO()
    npy_format.write_array(written, array, allow_pickle=False)
    return written.getvalue()


def as_bytes(body: object, what: str) -> bytes:
    """Return a body as bytes; BadRequest for what is none, such as text."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    raise BadRequest(f"the {what} body is not bytes but {type(body).__name__}")


def read_array(body: bytes, what: str) -> NDArray[Any]:
    """Return the array of an .npy file, of any shape, in C order and native byte order.

    ``what`` names it in messages. Nothing is allocated before the body is known to hold it.
    """
    header = _read_header(body, what)
    shape, dtype = header.shape, header.dtype
    _check_type(dtype, what)
    cells = 1
    for length in shape:
        cells *= length
    held = len(body) - header.end
    if cells * dtype.itemsize != held:
        raise BadRequest(
            f"{what} claims shape {_shown(shape)} of {dtype.itemsize}-byte values, "
            f"{_shown(cells * dtype.itemsize)} bytes, and holds {held}"
        )
    check_decoded(cells * _element_size(dtype), f"{what} of shape {_shown(shape)}")
    flat = np.frombuffer(body, dtype, count=cells, offset=header.end)
    array = flat.reshape(shape, order="F" if header.fortran else "C")
    return np.array(array, dtype=_native(dtype), order="C")


def decoded_size(array: NDArray[Any]) -> int:
    """Return the bytes that an array's cells take in the end."""
    return array.size * _element_size(array.dtype)


def table_of(array: NDArray[Any], columns: Columns) -> Table:
    """Return the rows of an array; one of one dimension is one row, or a row a structure."""
    if array.dtype.names is not None:
        if array.ndim != 1:
            raise BadRequest(
                f"an array of structures has shape {array.shape}; (n_rows,) is accepted"
            )
        check_cells(len(array), len(array.dtype.names), "the array of structures")
        return named_columns({name: array[name] for name in array.dtype.names}, columns)
    if array.ndim not in (1, 2):
        raise BadRequest(
            f"the array has shape {array.shape}; (n_rows, n_features) or (n_features,) is accepted"
        )
    rows = array.reshape(1, -1) if array.ndim == 1 else array
    check_cells(rows.shape[0], rows.shape[1], "the array")
    return Table(cells_of(rows))


def named_columns(arrays: Mapping[str, NDArray[Any]], columns: Columns) -> Table:
    """Return columns of one length, each with a type of its own, as a table."""
    names = tuple(arrays)
    kinds = {array.dtype.kind for array in arrays.values()}
    if columns.numbers and kinds <= set("biuf"):
        numbers = [array.astype(np.float64) for array in arrays.values()]
        return Table(np.column_stack(numbers), names)
    import pandas as pd

    return Table(pd.DataFrame({name: cells_of(array) for name, array in arrays.items()}), names)


def cells_of(array: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as they are, and text as objects; BadRequest for bytes that are not UTF-8."""
    if array.dtype.kind not in "US":
        return np.ascontiguousarray(array, dtype=_native(array.dtype))
    try:
        text = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        if (np.ascontiguousarray(text).view(np.uint32) > sys.maxunicode).any():
            raise ValueError(f"a character is beyond U+{sys.maxunicode:X}")
        cells = text.astype(object)
        "".join(cells.ravel().tolist()).encode()  # halves of surrogate pairs are no text
    except ValueError as error:
        raise BadRequest(f"the array's text is malformed: {error}") from error
    return cells


def _read_header(body: bytes, what: str) -> _Header:
    try:
        return _parse_header(_header_bytes(body))
    except (*_HEADER_FAULTS, tokenize.TokenError) as error:
        reason = str(error).partition("\n")[0]
        raise BadRequest(f"{what} is not an array in NPY's format: {reason}") from error


def _header_bytes(body: bytes) -> bytes:
    """Return all that stands before the data; ValueError where it is not of NPY's format."""
    version = npy_format.read_magic(io.BytesIO(body[: npy_format.MAGIC_LEN]))
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version} is not known")
    start = npy_format.MAGIC_LEN + (2 if version == (1, 0) else 4)
    length = int.from_bytes(body[npy_format.MAGIC_LEN : start], "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header of {length} bytes is longer than {_LONGEST_HEADER}")
    _check_literal(body[start : start + length])
    return body[: start + length]


@lru_cache(maxsize=64)  # a client's requests are mostly of one type and shape
def _parse_header(header: bytes) -> _Header:
    stream = io.BytesIO(header)
    version = npy_format.read_magic(stream)
    # 3.0 is 2.0 with names in UTF-8, which no public function reads.
    read = (
        npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python 2's headers, and odd escapes
        shape, fortran, dtype = read(stream)
    if version == (3, 0) and dtype.names is not None:
        dtype.names = tuple(name.encode("latin-1").decode() for name in dtype.names)
    return _Header(shape, fortran, dtype, stream.tell())


def _check_literal(header: bytes) -> None:
    """Raise ValueError for a header that is no plain literal.

    NumPy hands it to Python's parser, which a few thousand brackets or signs drive out of memory.
    """
    text = _STRING.sub(b"", header)
    if odd := _NO_LITERAL.search(text):
        raise ValueError(f"{odd[0].decode('latin-1')!r} in the header")
    depth = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket in _OPENING else -1
        if depth > _DEEPEST:
            raise ValueError("the header is nested too deep")


def _check_type(dtype: np.dtype[Any], what: str) -> None:
    for name, field in _fields(dtype):
        of = f"{what}'s field {name!r}" if name else what
        if field.hasobject:
            raise BadRequest(f"{of} holds Python objects, which only a pickle can carry")
        if field.names is not None or field.subdtype is not None:
            raise BadRequest(f"{of} is nested; the fields are to be numbers or text")
        if field.kind not in "biufUS":
            raise BadRequest(f"{of} is of type {field}; numbers and text are accepted")
        if not field.itemsize:
            raise BadRequest(f"{of} is of values without a size")


def _fields(dtype: np.dtype[Any]) -> list[tuple[str, np.dtype[Any]]]:
    if dtype.fields is None or dtype.names is None:
        return [("", dtype)]
    return [(name, dtype.fields[name][0]) for name in dtype.names]


def _element_size(dtype: np.dtype[Any]) -> int:
    """Bytes that one element takes in the end: numbers are widened, text becomes objects."""
    return sum(
        max(field.itemsize, 8) if field.kind not in "US" else 4 * field.itemsize + _TEXT_CELL_BYTES
        for _, field in _fields(dtype)
    )


def _native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The same numbers as models know them; half and extended precision become float64."""
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float64)
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


def _of_one_type(array: NDArray[Any]) -> NDArray[Any]:
    values = [
        value.item() if isinstance(value, np.generic) else value for value in array.ravel().tolist()
    ]
    kinds = {type(value) for value in values}
    if kinds and (kinds <= {str} or kinds <= {int, float} or kinds <= {bool}):
        found = np.array(values)
        if found.dtype.kind in "biufU":
            return found.reshape(array.shape)
    raise NotAcceptable(
        "these predictions are of more than one type: as application/x-npy they would need a pickle"
    )


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:60] + "..."

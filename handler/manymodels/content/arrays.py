"""Predictions as the JSON writer takes them: arrays of native, contiguous numbers, or lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

OPTIONS = orjson.OPT_SERIALIZE_NUMPY
_NUMBERS = "fiub"


def is_numbers(array: NDArray[Any]) -> bool:
    """Whether an array is numbers or truth values."""
    return array.dtype.kind in _NUMBERS


def as_written(array: NDArray[Any]) -> Any:
    """Return an array whose numbers orjson writes with as few digits as their type needs.

    What is neither number, text nor object becomes text: dates and times by ISO 8601 (None for
    what is no time), the rest as NumPy prints it; then it is a list of lists of cells.
    """
    if not is_numbers(array):
        return _listed(array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size not in (4, 8):
        # orjson writes the digits of a half as if it were a single; of more it knows nothing.
        array = array.astype(str).astype(np.float64) if size < 4 else array.astype(np.float64)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array) if array.ndim else array.reshape(1)


def cells_of(column: Any) -> Any:
    """Return an output's values by row, as objects whose ``str`` has no needless digits."""
    if not isinstance(column, np.ndarray):
        return list(column)
    written = as_written(column)
    if isinstance(written, list):
        return written
    return _widened(written).tolist() if written.dtype == np.float32 else written.tolist()


def _widened(written: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return singles as doubles of the same digits: by itself 0.1 would be 0.10000000149011612."""
    wide = np.array(orjson.loads(orjson.dumps(written, option=OPTIONS)), dtype=np.float64)
    strange = ~np.isfinite(written)
    wide[strange] = written[strange]
    return wide


def dumps(value: Any) -> bytes:
    """Return JSON; NaN and infinities are null. TypeError for what JSON cannot say."""
    return orjson.dumps(value, default=_plain, option=OPTIONS)


def _listed(array: NDArray[Any]) -> Any:
    kind = array.dtype.kind
    if kind == "M":
        texts = np.datetime_as_string(array).astype(object)
        texts[np.isnat(array)] = None
        array = texts
    elif kind in "mc":
        array = array.astype(str)
    elif kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return array.tolist()


def _plain(value: Any) -> Any:
    """Return what JSON says of a cell that is not one of its own types."""
    if isinstance(value, np.ndarray):
        return as_written(value)
    if isinstance(value, np.generic):
        return as_written(np.array([value]))[0]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if type(value).__name__ == "NAType":
        return None
    raise TypeError(f"a prediction of type {type(value).__name__} has no form in JSON")

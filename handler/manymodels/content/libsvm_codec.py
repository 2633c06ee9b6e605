"""text/libsvm: a line a row, ``label index:value index:value``; what is not named is 0.

The parser is our own: scikit-learn's load_svmlight_file wants a label in every line, and takes
0.2 ms for a row after an import of a second.
"""

from __future__ import annotations

import codecs
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from manymodels.content.limits import known_width
from manymodels.content.npy_codec import as_bytes
from manymodels.content.sparse import Entries, csr_rows
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest

_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n|$)")
_NUMERIC = b"0123456789.eE+-"
_AS_COMMAS = bytes.maketrans(b" :", b",,")
_INDEX_DIGITS = 10
_SHOWN = 40
_FROM_ONE = "'text/libsvm; indexing=1'"

Pairs = tuple[MutableSequence[int], MutableSequence[float]]


def decode_libsvm(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows as CSR, of as many columns as the model takes.

    Indices count from 0, as XGBoost's and LightGBM's readers count; with the media type's
    parameter ``indexing=1`` they count from 1. Nothing is guessed from the indices of a body.
    The label may be left out; ``qid:`` and what follows ``#`` are skipped, as are blank lines.
    Raises BadRequest that names the line for what is no number, an index that comes twice, or
    one that the model does not have.
    """
    data = body.encode(errors="replace") if isinstance(body, str) else as_bytes(body, "libsvm")
    rows = _Rows(_indexing(parameters))
    for number, line in _lines(data.removeprefix(codecs.BOM_UTF8)):
        rows.add(number, line)
    if not len(rows):
        raise BadRequest("the libsvm body is empty")
    return Table(rows.matrix(known_width(columns)))


class _Rows:
    """Rows as they are read, in arrays that take a few bytes a value."""

    def __init__(self, first: int) -> None:
        self._first = first
        self._indices, self._values = array("q"), array("d")
        self._pointers = array("q", [0])
        self._lines: list[int] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, number: int, line: bytes) -> None:
        """Take line ``number``, which is not blank."""
        indices, values = _pairs(line) or _pairs_with_care(number, line)
        if len(set(indices)) < len(indices):
            index = _first_repeated(indices)
            raise BadRequest(f"libsvm line {number}: index {index} comes twice")
        self._indices.extend(indices)
        self._values.extend(values)
        self._pointers.append(len(self._indices))
        self._lines.append(number)

    def matrix(self, width: int | None) -> Any:
        """Return the CSR matrix; ``width`` is the model's count of features if it says one."""
        indices = np.array(self._indices) - self._first
        if len(indices) and indices.min() < 0:
            line = self._line_of(int(indices.argmin()))
            raise BadRequest(f"libsvm line {line}: index 0, but indexing=1 says they count from 1")
        greatest = int(indices.max()) if len(indices) else -1
        if width is not None and greatest >= width:
            raise BadRequest(self._outside(indices, greatest, width))
        shape = (len(self), max(greatest + 1, 1) if width is None else width)
        return csr_rows(Entries(np.array(self._pointers), indices, np.array(self._values)), shape)

    def _outside(self, indices: NDArray[Any], greatest: int, width: int) -> str:
        entry = int(np.flatnonzero(indices >= width)[0])
        message = (
            f"libsvm line {self._line_of(entry)}: index {self._indices[entry]} is none of the "
            f"model's {width} features, which count from {self._first}"
        )
        if greatest == width and not self._first:
            message += f"; if the indices count from 1, say {_FROM_ONE}"
        return message

    def _line_of(self, entry: int) -> int:
        return self._lines[bisect_right(self._pointers, entry) - 1]


def _first_repeated(indices: Sequence[int]) -> int:
    seen: set[int] = set()
    for index in indices:
        if index in seen:
            break
        seen.add(index)
    return index


def _pairs(line: bytes) -> Pairs | None:
    """Return a line's indices and values, or None where it has to be looked at with care.

    A line of plain numbers is a JSON list but for its marks: in half the time of float().
    """
    marks = line.translate(None, _NUMERIC)
    count = marks.count(b":")
    labelled = marks == b" :" * count
    if not labelled and marks != (b": " * count)[:-1]:
        return None
    try:
        cells = orjson.loads(b"[" + line.translate(_AS_COMMAS) + b"]")
        indices = array("q", cells[labelled::2])
        values = array("d", cells[labelled + 1 :: 2])
    except (orjson.JSONDecodeError, TypeError, OverflowError):
        return None
    return None if count and min(indices) < 0 else (indices, values)


def _pairs_with_care(number: int, line: bytes) -> Pairs:
    fields = line.split()
    if b":" not in fields[0]:
        _value(fields.pop(0), number, "the label")
    indices, values = [], []
    for field in fields:
        index, colon, value = field.partition(b":")
        if index == b"qid":
            continue
        # Bounded, for Python reads thousands of digits by a slow method.
        if not colon or not index.isdigit() or len(index) > _INDEX_DIGITS:
            raise BadRequest(f"libsvm line {number}: {_shown(field)} is not index:value")
        indices.append(int(index))
        values.append(_value(value, number, f"the value of index {index.decode()}"))
    return indices, values


def _indexing(parameters: Mapping[str, str]) -> int:
    text = parameters.get("indexing", "0")
    if text not in ("0", "1"):
        raise BadRequest(f"indexing={text[:_SHOWN]!r} is neither 0 nor 1")
    return int(text)


def _lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what a line says without its comment, and its number from 1; not blank ones."""
    for number, match in enumerate(_LINE.finditer(data), 1):
        line = match[0].partition(b"#")[0].strip()
        if line:
            yield number, line


def _value(text: bytes, line: int, of: str) -> float:
    try:
        # float() takes 1_000 too.
        if b"_" not in text:
            return float(text)
    except ValueError:
        pass
    raise BadRequest(f"libsvm line {line}: {_shown(text)}, {of}, is not a number")


def _shown(text: bytes) -> str:
    shown = text.decode(errors="replace")
    return repr(shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "...")

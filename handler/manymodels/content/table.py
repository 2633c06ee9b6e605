"""What a body holds, what a model takes, and how the one becomes the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from manymodels.errors import BadRequest

_FLOAT64 = np.dtype(np.float64)
_NAMES_SHOWN = 10
_DENSE_CELLS = 1 << 23
"""Sparse rows of up to so many cells (64 MiB) become an array; models that take both agree."""


class Table(NamedTuple):
    """Rows as a decoder found them, at least one.

    ``values`` has two dimensions: an array of float64 where all cells are numbers, an array of
    objects (float, int, bool, str, NaN for what is missing) where they are not, a sparse CSR
    matrix, or a pandas DataFrame from formats that have column types of their own. ``names`` are
    the columns' names if the body says them, whatever ``values`` is.
    """

    values: Any
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Columns:
    """What a model takes, as far as it says.

    Args:
        count: number of features.
        names: their names; a model that has names and ``frame`` is given a DataFrame.
        numbers: cells are numbers and nothing else; the model is given an array of float64, or
            a sparse matrix.
        frame: the model is given a DataFrame; the cells keep their types.
        text: positions of columns whose cells are text even where they look like numbers, such
            as postal codes; only where ``numbers`` is false.
        absent_is_missing: what sparse rows leave out is a missing value, as XGBoost has it, not 0.
    """

    count: int | None = None
    names: tuple[str, ...] | None = None
    numbers: bool = False
    frame: bool = False
    text: frozenset[int] = frozenset()
    absent_is_missing: bool = False


def arrange(table: Table, columns: Columns) -> Any:
    """Return the rows as the model takes them: an array, a CSR matrix or a DataFrame.

    Columns that the body names are put in the model's order. Raises BadRequest for missing or
    further columns, a wrong number of them, and text where the model takes numbers.
    """
    values, names = table
    plain = type(values) is np.ndarray and values.dtype is _FLOAT64 and names is None
    if plain and columns.numbers and values.shape[1] == columns.count:
        return values  # the usual request, at a third of what the questions below take
    if names is not None and columns.names is not None:
        values = _in_order(values, names, columns.names)
        names = columns.names
    count = columns.count
    if count is None and columns.names is not None:
        count = len(columns.names)
    if count is not None and values.shape[1] != count:
        raise BadRequest(f"the model takes {count} features, the request has {values.shape[1]}")
    if hasattr(values, "tocsr"):
        values = _dense_if_small(values, np.nan if columns.absent_is_missing else 0.0)
    if columns.numbers:
        return values if getattr(values, "dtype", None) == np.float64 else _numbers(values)
    if columns.frame or (names is not None and columns.names is None):
        return _frame(values, names or columns.names)
    return values.to_numpy() if hasattr(values, "to_numpy") else values


def _in_order(values: Any, names: tuple[str, ...], wanted: tuple[str, ...]) -> Any:
    if names == wanted:
        return values
    known = set(wanted)
    missing = [name for name in wanted if name not in names]
    further = [name for name in names if name not in known]
    repeated = [name for name in wanted if names.count(name) > 1]
    faults = [
        f"{what}: {_listed(found)}"
        for what, found in (("missing", missing), ("unknown", further), ("repeated", repeated))
        if found
    ]
    if faults:
        raise BadRequest(f"the request's columns are not the model's; {'; '.join(faults)}")
    order = [names.index(name) for name in wanted]
    return values.iloc[:, order] if hasattr(values, "iloc") else values[:, order]


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMES_SHOWN])
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"


def _dense_if_small(values: Any, absent: float) -> Any:
    n_rows, n_columns = values.shape
    if n_rows * n_columns > _DENSE_CELLS:
        return values
    if absent == 0:
        return values.toarray()
    dense = np.full(values.shape, absent)
    dense[np.repeat(np.arange(n_rows), np.diff(values.indptr)), values.indices] = values.data
    return dense


def _numbers(values: Any) -> Any:
    """Return float64, from what may be a DataFrame, objects, integers or a sparse matrix."""
    try:
        if hasattr(values, "to_numpy"):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise BadRequest(_first_text(values)) from None


def _first_text(values: Any) -> str:
    cells = values.to_numpy(dtype=object) if hasattr(values, "to_numpy") else values
    for (row, column), cell in np.ndenumerate(cells):
        if cell is not None and not isinstance(cell, (int, float, np.number, np.bool_)):
            shown = str(cell)[:60]
            return f"row {row + 1}, column {column + 1}: {shown!r} is not a number"
    return "the model takes numbers"


def _frame(values: Any, names: tuple[str, ...] | None) -> Any:
    import pandas as pd

    if isinstance(values, pd.DataFrame):
        return values
    if hasattr(values, "tocsr"):
        return pd.DataFrame.sparse.from_spmatrix(values, columns=names)
    frame = pd.DataFrame(values, columns=names)
    return frame.infer_objects() if values.dtype == object else frame


def text_positions(columns: Columns, names: tuple[str, ...] | None, width: int) -> frozenset[int]:
    """Return which columns of a body, in its own order, the model takes as text."""
    if names is None or columns.names is None:
        return frozenset(position for position in columns.text if position < width)
    text = {columns.names[position] for position in columns.text}
    return frozenset(position for position, name in enumerate(names) if name in text)

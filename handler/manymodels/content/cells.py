"""Cells as a parser found them become a Table with the types that the model needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manymodels.content.body_text import is_storable, shown
from manymodels.content.limits import known_width
from manymodels.content.table import Columns, Table, text_positions
from manymodels.errors import BadRequest, PayloadTooLarge

Cells = Sequence[Sequence[object]]
WIDEST = 1 << 16
"""Columns that need not be numbers: each is an object of its own, many times its text's size."""
_NUMBERS = {int, float, bool, type(None)}
_MISSING = float("nan")


class Source(NamedTuple):
    """What messages call the rows of a body: ``JSON row 3``, or ``JSON Lines line 7``."""

    form: str
    unit: str = "row"
    numbers: Sequence[int] | None = None
    """The rows' own numbers, where they are not 1, 2, 3: of the lines that are not blank."""
    checked: bool = True
    """Whether text is known to be proper: our parsers see to it, one before us may not have."""

    def row(self, index: int) -> str:
        """Return the name of a row; ``index`` counts from 0."""
        return f"{self.unit} {index + 1 if self.numbers is None else self.numbers[index]}"

    def cell(self, index: int, column: int, names: Sequence[str] | None) -> str:
        """Return the name of a cell, with its column's; both count from 0."""
        name = f" ({names[column]!r})" if names else ""
        return f"{self.form} {self.row(index)}, column {column + 1}{name}"


def table_of_rows(
    rows: Cells, names: tuple[str, ...] | None, columns: Columns, source: Source, *, plain: bool
) -> Table:
    """Return a parser's rows as a Table; None is a missing value.

    ``plain`` says that no cell is text, which spares a look at each. Raises BadRequest that names
    the row and column of what cannot be a cell of the model's.
    """
    if columns.numbers or not (columns.frame or columns.text or _named(names, columns)):
        values = _as_numbers(rows, plain)
        if values is not None and (names is None or values.shape[1] == len(names)):
            return Table(values, names)
    check_widths(rows, names, source)
    refused = misfit(len(rows[0]), names, columns, source)
    if refused is not None:
        return refused
    kinds = set(map(type, chain.from_iterable(rows)))
    if columns.numbers or not kinds <= _NUMBERS | {str}:
        _check_cells(rows, names, source, text=not columns.numbers)
    if columns.numbers:
        return Table(np.array(rows, dtype=np.float64), names)
    if str in kinds and not source.checked:
        _check_text(rows, names, source)
    try:
        return table_of_columns(list(zip(*rows, strict=True)), names, columns)
    except OverflowError:  # an integer of hundreds of digits, from a parser other than ours
        _check_cells(rows, names, source, text=True)
        raise


def table_of_columns(cells: Cells, names: tuple[str, ...] | None, columns: Columns) -> Table:
    """Return columns of int, float, bool, text and None as a Table with the types they have.

    A DataFrame where the model takes one; else an array of float64 where all are numbers, and of
    objects, with NaN for None, where they are not.
    """
    text = text_positions(columns, names, len(cells))
    arrays = [_typed(column, position in text) for position, column in enumerate(cells)]
    if columns.frame or _named(names, columns):
        return Table(_frame(arrays, names or columns.names), names)
    if all(array.dtype.kind != "O" for array in arrays):
        return Table(np.column_stack(arrays).astype(np.float64, copy=False), names)
    values = np.empty((len(cells[0]), len(cells)), dtype=object)
    for position, array in enumerate(arrays):
        values[:, position] = array
    return Table(values, names)


def misfit(
    width: int, names: tuple[str, ...] | None, columns: Columns, source: Source
) -> Table | None:
    """Return what `table.arrange` refuses, where the body's columns are not the model's.

    Asked before cells are looked at: a column that is not the model's may hold anything. Raises
    PayloadTooLarge for more columns than are given types, one by one.
    """
    if names is not None and columns.names is not None:
        if set(names) != set(columns.names):
            return Table(np.empty((1, len(names)), dtype=object), names)
    elif known_width(columns) not in (None, width):
        return Table(np.empty((1, width), dtype=object))
    if width > WIDEST and not columns.numbers:
        raise PayloadTooLarge(
            f"the {source.form} body has {width} columns, not all of numbers; "
            f"at most {WIDEST} are accepted"
        )
    return None


def check_widths(rows: Cells, names: Sequence[str] | None, source: Source) -> None:
    """Raise BadRequest for rows that differ in their number of values, or have none."""
    width = len(rows[0]) if names is None else len(names)
    reference = source.row(0) if names is None else "the header"
    if not width:
        raise BadRequest(f"the {source.form} body's rows have no values")
    for index, row in enumerate(rows):
        if len(row) != width:
            raise BadRequest(
                f"{source.form} {source.row(index)} has {len(row)} values, {reference} has {width}"
            )


def _named(names: tuple[str, ...] | None, columns: Columns) -> bool:
    """Whether a model that says no names is given those of the body, as `table.arrange` has it."""
    return names is not None and columns.names is None and not columns.numbers


def _as_numbers(rows: Cells, plain: bool) -> NDArray[np.float64] | None:
    """Return rows of numbers in one go, or None if they are not that."""
    try:
        # NumPy would take the text "2" for a number.
        if not plain and not set(map(type, chain.from_iterable(rows))) <= _NUMBERS:
            return None
        values = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return None
    return values if values.ndim == 2 and values.shape[1] else None


def _check_cells(rows: Cells, names: Sequence[str] | None, source: Source, *, text: bool) -> None:
    what = "number or a text" if text else "number"
    for index, row in enumerate(rows):
        for column, cell in enumerate(row):
            if not (_is_number(cell) or (text and isinstance(cell, str))):
                at = source.cell(index, column, names)
                raise BadRequest(f"{at}: {shown(cell)} is not a {what}")


def _is_number(cell: object) -> bool:
    if isinstance(cell, int):
        try:
            float(cell)
        except OverflowError:
            return False
        return True
    return cell is None or isinstance(cell, float)


def _check_text(rows: Cells, names: Sequence[str] | None, source: Source) -> None:
    for index, row in enumerate(rows):
        for column, cell in enumerate(row):
            if isinstance(cell, str) and not is_storable(cell):
                at = source.cell(index, column, names)
                raise BadRequest(f"{at} has half of a surrogate pair, which is no character")


def _typed(cells: Sequence[object], text: bool) -> NDArray[Any]:
    """Return one column with the type its cells have, as pandas would find it."""
    kinds = set(map(type, cells))
    if text and not kinds.isdisjoint((int, float)):
        return _objects(map(_written, cells))
    if text:
        return _objects(cells)
    if kinds == {bool}:
        return np.array(cells)
    if kinds <= {int, float, type(None)}:
        array = np.array(cells, dtype=np.float64 if type(None) in kinds else None)
        # Of integers above 64 bits NumPy makes objects.
        return array.astype(np.float64) if array.dtype.kind == "O" else array
    return _objects(cells)


def _written(cell: object) -> object:
    """Return a number in a column of text as text: a postal code may come without its quotes."""
    return str(cell) if type(cell) in (int, float) else cell


def _objects(cells: Iterable[object]) -> NDArray[Any]:
    found = list(cells)
    array = np.empty(len(found), dtype=object)
    array[:] = [_MISSING if cell is None else cell for cell in found] if None in found else found
    return array


def _frame(arrays: list[NDArray[Any]], names: tuple[str, ...] | None) -> Any:
    import pandas as pd

    labels = names if names is not None and len(names) == len(arrays) else None
    if len({array.dtype for array in arrays}) == 1 and arrays[0].dtype.kind != "O":
        # One block of numbers: a tenth of the time that separate columns take.
        return pd.DataFrame(np.column_stack(arrays), columns=labels)
    frame = pd.DataFrame(dict(enumerate(arrays)), copy=False)
    if labels is not None:
        frame.columns = pd.Index(labels)
    return frame

"""What an ONNX graph takes, and how a request's rows become it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Rows
from manymodels.content import Columns
from manymodels.errors import BadRequest, ModelLoadError

Feed = Callable[[Rows], dict[str, NDArray[Any]]]
_TEXT = "tensor(string)"
_TYPES: Mapping[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def table_inputs(inputs: Sequence[Any], name: str) -> tuple[Columns, Feed]:
    """Return the columns that a graph takes, and what feeds it rows of them.

    One input is a tensor of rows; several are a column each, by name. Raises ModelLoadError for
    a graph that takes anything else.
    """
    if len(inputs) == 1 and _is_tensor(inputs[0]) and len(inputs[0].shape) == 2:
        return _one_tensor(inputs[0])
    if len(inputs) > 1 and all(_is_tensor(each) and _is_column(each.shape) for each in inputs):
        return _a_column_each(inputs)
    taken = ", ".join(f"{each.name}: {each.type} {each.shape}" for each in inputs)
    raise ModelLoadError(
        f"{name} takes {taken}; served without code are one tensor of shape [rows, columns], or "
        "tensors of one column each: let code/inference.py feed it"
    )


def _is_tensor(given: Any) -> bool:
    return given.type == _TEXT or given.type in _TYPES


def _is_column(shape: Sequence[Any]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def _one_tensor(given: Any) -> tuple[Columns, Feed]:
    count = given.shape[1] if isinstance(given.shape[1], int) else None
    if given.type == _TEXT:
        text = frozenset(range(count or 0))
        return Columns(count, text=text), lambda rows: {given.name: _texts(_array(rows))}
    kind = _TYPES[given.type]
    return (
        Columns(count, numbers=True),
        lambda rows: {given.name: _numbers(_array(rows), kind)},
    )


def _a_column_each(inputs: Sequence[Any]) -> tuple[Columns, Feed]:
    text = frozenset(i for i, each in enumerate(inputs) if each.type == _TEXT)
    names = tuple(each.name for each in inputs)
    columns = Columns(len(inputs), names, numbers=not text, frame=bool(text), text=text)

    def feed(rows: Rows) -> dict[str, NDArray[Any]]:
        array = _array(rows)
        return {each.name: _cells(array[:, i : i + 1], each, i) for i, each in enumerate(inputs)}

    return columns, feed


def _cells(cells: NDArray[Any], given: Any, column: int) -> NDArray[Any]:
    cells = cells if len(given.shape) == 2 else cells[:, 0]
    if given.type == _TEXT:
        return _texts(cells, column)
    return _numbers(cells, _TYPES[given.type], column)


def _array(rows: Rows) -> NDArray[Any]:
    if hasattr(rows, "toarray"):
        return np.asarray(rows.toarray())
    return np.asarray(rows)


def _texts(cells: NDArray[Any], column: int = 0) -> NDArray[Any]:
    for position, cell in np.ndenumerate(cells):
        if not isinstance(cell, str):
            shown = str(cell)[:60]
            raise BadRequest(f"{_place(position, column)}: the model takes a text, not {shown}")
    return cells.astype(object)


def _numbers(cells: NDArray[Any], kind: Any, column: int = 0) -> NDArray[Any]:
    if cells.dtype == object:
        cells = _floats(cells, column)
    if np.issubdtype(kind, np.floating):
        with np.errstate(over="ignore"):  # what is too large becomes infinite, as in C
            return np.ascontiguousarray(cells, dtype=kind)
    with np.errstate(invalid="ignore"):
        whole = cells.astype(kind)
    if not (whole == cells).all():
        position = tuple(np.argwhere(whole != cells)[0])
        cell = cells[position]
        raise BadRequest(f"{_place(position, column)}: the model takes whole numbers, not {cell}")
    return whole


def _floats(cells: NDArray[Any], column: int) -> NDArray[Any]:
    try:
        return cells.astype(np.float64)
    except (TypeError, ValueError):
        for position, cell in np.ndenumerate(cells):
            if not isinstance(cell, (int, float)):
                raise BadRequest(
                    f"{_place(position, column)}: {str(cell)[:60]!r} is not a number"
                ) from None
        raise


def _place(position: tuple[Any, ...], column: int) -> str:
    within = position[1] if len(position) > 1 else 0
    return f"row {position[0] + 1}, column {column + within + 1}"

"""Columns that a booster was trained on as pandas categories, made so again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from manymodels.artifacts.model import Rows
from manymodels.errors import BadRequest

Categories = Mapping[int, Sequence[Any]]
"""The trained values of each categorical column, by position."""


def text_positions(categories: Categories) -> frozenset[int]:
    """Return the columns whose trained values are texts."""
    return frozenset(
        position
        for position, values in categories.items()
        if any(isinstance(value, str) for value in values)
    )


def with_categories(rows: Rows, categories: Categories, *, strict: bool) -> Any:
    """Return a DataFrame whose categorical columns have the trained categories.

    A value that was not seen in training is BadRequest where ``strict``, else missing.
    """
    import pandas as pd

    frame = pd.DataFrame(rows) if not isinstance(rows, pd.DataFrame) else rows.copy(deep=False)
    for position, values in categories.items():
        name = frame.columns[position]
        known = pd.Index(values)
        codes = known.get_indexer(frame[name])
        if strict:
            _refuse_unseen(frame[name], codes, position)
        frame[name] = pd.Categorical.from_codes(codes, categories=known)
    return frame


def _refuse_unseen(given: Any, codes: NDArray[Any], position: int) -> None:
    unseen = (codes < 0) & given.notna().to_numpy()
    if unseen.any():
        row = int(unseen.argmax())
        shown = str(given.iloc[row])[:60]
        raise BadRequest(
            f"row {row + 1}, column {position + 1}: {shown!r} is no category that the model knows"
        )

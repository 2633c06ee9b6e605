"""What a scikit-learn estimator takes: how many columns, their names, which of them are text.

Estimators are asked by what they have, not by their classes: this imports no library, and holds
for whoever keeps scikit-learn's conventions. Positions are those of the model's own columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from manymodels.content import Columns

_WITHIN = ("best_estimator_", "estimator_", "regressor_", "estimator", "_preprocessor")
"""Where an estimator keeps another that sees the same columns."""
_MANY_WITHIN = ("estimators_", "calibrated_classifiers_")
_LOOKED_AT = 8
"""Of many estimators alike; an ensemble's know the same columns."""


def columns_of(estimator: Any) -> Columns:
    """Return the columns that ``estimator`` takes, as far as it says."""
    names = feature_names(estimator)
    count = _count(estimator)
    if count is None and names is not None:
        count = len(names)
    if not callable(getattr(estimator, "get_params", None)):  # no estimator: what is in it is its
        return Columns(count, names, frame=names is not None)
    if takes_texts(estimator):
        return Columns(count=1, text=frozenset({0}))
    text = frozenset(_text(estimator, range(count or 0), names))
    return Columns(count, names, frame=names is not None, text=text)


def takes_texts(estimator: Any) -> bool:
    """Say whether an estimator takes a sequence of texts in place of rows, as vectorizers do."""
    if callable(getattr(estimator, "build_analyzer", None)):
        return True
    if steps := _real(_steps(estimator)):
        return takes_texts(steps[0])
    if union := getattr(estimator, "transformer_list", None):
        return any(takes_texts(part) for _, part in union)
    return any(takes_texts(inner) for inner in _within(estimator))


def feature_names(estimator: Any) -> tuple[str, ...] | None:
    """Return the names of the columns that an estimator was trained on, if they had any."""
    names = _said(estimator, "feature_names_in_")
    return None if names is None else tuple(str(name) for name in names)


def _count(estimator: Any) -> int | None:
    count = _said(estimator, "n_features_in_")
    return int(count) if isinstance(count, (int, np.integer)) else None


def _said(estimator: Any, attribute: str) -> Any:
    """What an estimator says of its columns, or else the one within that is given them."""
    value = getattr(estimator, attribute, None)
    if value is not None:
        return value
    within = _real(_steps(estimator))[:1] or [getattr(estimator, "best_estimator_", None)]
    return None if within[0] is None else _said(within[0], attribute)


def _text(estimator: Any, columns: Sequence[int], names: tuple[str, ...] | None) -> Iterator[int]:
    """Yield the positions whose trained values are texts; ``columns`` are what it is given."""
    for column, values in zip(columns, _trained_values(estimator), strict=False):
        if _textual(values):
            yield column
    for step in _column_keeping(_steps(estimator)):
        yield from _text(step, columns, names)
    for _, part in getattr(estimator, "transformer_list", None) or ():
        yield from _text(part, columns, names)
    for _, part, selection in _parts(estimator):
        selected = _selected(selection, columns, names)
        if takes_texts(part):
            yield from selected
        else:
            yield from _text(part, selected, names)
    for inner, seen in _within_with_columns(estimator, columns):
        yield from _text(inner, seen, names)


def _trained_values(estimator: Any) -> Sequence[Any]:
    """What each column was seen to hold: an encoder's categories, an imputer's statistics."""
    for attribute in ("categories_", "statistics_"):
        values = getattr(estimator, attribute, None)
        if isinstance(values, (list, np.ndarray)):
            return list(values)
    return ()


def _textual(values: Any) -> bool:
    kind = getattr(getattr(values, "dtype", None), "kind", None)
    if kind in ("U", "S", "T"):
        return True
    if isinstance(values, str):
        return True
    return kind == "O" and any(isinstance(value, str) for value in np.ravel(values))


def _steps(estimator: Any) -> list[Any]:
    steps = getattr(estimator, "steps", None)
    return [step for _, step in steps] if isinstance(steps, list) else []


def _real(steps: Sequence[Any]) -> list[Any]:
    return [step for step in steps if step is not None and not isinstance(step, str)]


def _column_keeping(steps: Sequence[Any]) -> Iterator[Any]:
    """The steps that are given the pipeline's own columns: up to the first that changes them."""
    for step in _real(steps):
        yield step
        if not hasattr(step, "statistics_"):  # an imputer leaves each column in its place
            return


def _parts(estimator: Any) -> Iterator[tuple[str, Any, Any]]:
    """A ColumnTransformer's, without the columns that it drops or passes on."""
    for name, part, selection in getattr(estimator, "transformers_", None) or ():
        if not isinstance(part, str):
            yield name, part, selection


def _selected(selection: Any, columns: Sequence[int], names: tuple[str, ...] | None) -> list[int]:
    """Return which of ``columns`` a ColumnTransformer's selection means."""
    if isinstance(selection, slice) and not isinstance(selection.start or selection.stop, str):
        return list(columns[selection])
    if isinstance(selection, slice):
        return _between(selection, columns, names or ())
    chosen = np.atleast_1d(np.asarray(selection))
    if chosen.dtype == bool:
        return [column for column, wanted in zip(columns, chosen, strict=False) if wanted]
    if chosen.dtype.kind in "iu":
        return [columns[int(i)] for i in chosen if -len(columns) <= i < len(columns)]
    return [names.index(str(name)) for name in chosen if names and str(name) in names]


def _between(selection: slice, columns: Sequence[int], names: tuple[str, ...]) -> list[int]:
    # Slices of names have their end in them, as in pandas.
    first = names.index(selection.start) if selection.start in names else 0
    last = names.index(selection.stop) if selection.stop in names else len(columns) - 1
    return list(columns[first : last + 1])


def _within_with_columns(
    estimator: Any, columns: Sequence[int]
) -> Iterator[tuple[Any, Sequence[int]]]:
    features = getattr(estimator, "estimators_features_", None)
    if features is None:
        for inner in _within(estimator):
            yield inner, columns
    else:  # bagging: each has columns of its own
        for inner, chosen in zip(_many_within(estimator), features, strict=False):
            yield inner, [columns[i] for i in chosen if i < len(columns)]


def _within(estimator: Any) -> Iterator[Any]:
    for attribute in _WITHIN:
        inner = getattr(estimator, attribute, None)
        if inner is not None and not isinstance(inner, (str, type)):
            yield inner
    yield from _many_within(estimator)


def _many_within(estimator: Any) -> Iterator[Any]:
    for attribute in _MANY_WITHIN:
        many = getattr(estimator, attribute, None)
        if isinstance(many, np.ndarray):
            many = many.ravel().tolist()
        if isinstance(many, (list, tuple)):
            yield from many[:_LOOKED_AT]

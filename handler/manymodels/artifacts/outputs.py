"""Selectable inference: more than a prediction, by the names of AWS's XGBoost container.

What a model has no value for is NaN, as it is there: a setting holds for all models of a
container, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Model, Rows
from manymodels.errors import BadRequest


class Selection:
    """One answer's values, each computed once and only if it is asked for."""

    def __init__(self, model: Model, rows: Rows) -> None:
        self._model = model
        self._rows = rows
        self._n_rows = int(rows.shape[0])
        self._known: dict[str, NDArray[Any]] = {}

    def column(self, output: str) -> NDArray[Any]:
        """Return one output's values, shape (n_rows,) or (n_rows, n_classes)."""
        values = OUTPUTS[output](self)
        return np.full(self._n_rows, np.nan) if values is None else values

    def predicted_label(self) -> NDArray[Any] | None:
        if self._model.classes is None:
            return None
        return self._value("labels", self._model.labels or self._model.predict_rows)

    def labels(self) -> NDArray[Any] | None:
        classes = self._model.classes
        return None if classes is None else np.tile(classes, (self._n_rows, 1))

    def probability(self) -> NDArray[Any] | None:
        """The positive class's of two, the winning class's of more."""
        return _decisive(self.probabilities())

    def probabilities(self) -> NDArray[Any] | None:
        return self._value("probabilities", self._model.probabilities)

    def raw_score(self) -> NDArray[Any] | None:
        return _decisive(self.raw_scores())

    def raw_scores(self) -> NDArray[Any] | None:
        """What a classifier decides by; of an XGBoost booster, as there, what it predicts."""
        if self._model.framework == "xgboost" and self._model.labels is not None:
            return _both(self._value("predictions", self._model.predict_rows))
        return self._value("raw_scores", self._model.raw_scores)

    def predicted_score(self) -> NDArray[Any] | None:
        if self._model.classes is not None:
            return None
        return self._value("predictions", self._model.predict_rows)

    def _value(self, name: str, function: Callable[[Rows], Any] | None) -> NDArray[Any] | None:
        if function is None:
            return None
        if name not in self._known:
            self._known[name] = self._model.call(function, self._rows)
        return self._known[name]


OUTPUTS: Mapping[str, Callable[[Selection], NDArray[Any] | None]] = {
    "predicted_label": Selection.predicted_label,
    "labels": Selection.labels,
    "probability": Selection.probability,
    "probabilities": Selection.probabilities,
    "raw_score": Selection.raw_score,
    "raw_scores": Selection.raw_scores,
    "predicted_score": Selection.predicted_score,
}


def parse_outputs(text: str) -> tuple[str, ...]:
    """Return the names in a list with commas; BadRequest for a name that is none."""
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    for name in names:
        if name not in OUTPUTS:
            raise BadRequest(f"{name!r} is none of the outputs {', '.join(OUTPUTS)}")
    return names


def select(model: Model, rows: Rows, outputs: tuple[str, ...]) -> list[NDArray[Any]]:
    """Return a column an output: shape (n_rows,) or (n_rows, n_classes) each."""
    selection = Selection(model, rows)
    return [selection.column(output) for output in outputs]


def _both(scores: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return a score a class, where there is one of two."""
    return (
        np.column_stack([1 - scores, scores]) if scores is not None and scores.ndim == 1 else scores
    )


def _decisive(scores: NDArray[Any] | None) -> NDArray[Any] | None:
    if scores is None or scores.ndim == 1:
        return scores
    return scores[:, 1] if scores.shape[1] == 2 else scores.max(axis=1)

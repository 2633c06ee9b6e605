"""What every loaded model is, whatever library trained it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.content import Columns
from manymodels.errors import BadRequest

Rows = Any
"""What `content.decode` returns for the model's columns: an array, a CSR matrix or a DataFrame."""
Predict = Callable[[Rows], Any]
_CHECKING = ("sklearn", "xgboost", "lightgbm", "onnxruntime", "pandas", "scipy")
"""Libraries that find fault with what they are given by a ValueError or TypeError."""


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Args:
        framework: the library it is of, such as ``scikit-learn``.
        kind: its class's name.
        columns: what it takes.
        predict_rows: what the library's own ``predict`` answers, or its equal, for rows.
        native: the object that the library loaded, for code that knows it.
        classes: of a classifier, the labels in the order of its probabilities.
        labels: rows to labels, where a classifier's ``predict_rows`` answers something else.
        probabilities: rows to shape (n_rows, n_classes), where the model has them.
        raw_scores: rows to what the model computes before it decides: margins, votes, distances
            to the boundary; shape (n_rows,) or (n_rows, n_classes).
        origin: what wrote the file and what is to be known of it, for people.
    """

    framework: str
    kind: str
    columns: Columns
    predict_rows: Predict
    native: Any = None
    classes: NDArray[Any] | None = None
    labels: Predict | None = None
    probabilities: Predict | None = None
    raw_scores: Predict | None = None
    origin: Mapping[str, str] = field(default_factory=dict)

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return predictions, shape (n_rows,) or (n_rows, n_outputs).

        ``rows`` is what `content.decode` returns for ``columns``. Raises BadRequest when the
        library finds fault with the values; whatever else it raises passes through.
        """
        return self.call(self.predict_rows, rows)

    def call(self, function: Predict, rows: Rows) -> NDArray[Any]:
        """Call one of the model's functions; returns and raises as ``predict`` does."""
        try:
            predictions = function(rows)
        except (ValueError, TypeError, KeyError) as error:
            # Columns and types are checked by now: what a library still refuses is the values.
            if _raised_by(error.__traceback__) not in _CHECKING:
                raise
            reason = str(error).partition("\n")[0]
            raise BadRequest(f"the model does not take these values: {reason}") from error
        if hasattr(predictions, "toarray"):
            return np.asarray(predictions.toarray())
        return np.asarray(predictions)


def _raised_by(traceback: TracebackType | None) -> str:
    """Return the package in whose code an exception was raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.partition(".")[0]

"""Which scikit-learn estimators have a shorter way to the same predictions."""

from __future__ import annotations

from typing import Any

from manymodels.artifacts.linear import linear_predict
from manymodels.artifacts.model import Predict


def shortcut(estimator: Any) -> Predict | None:
    """Return an equal of ``estimator.predict`` for float64 rows, or None if there is none.

    Rows have two dimensions and the estimator's number of features. What is not finite, and
    whatever else the estimator refuses, ends as it does there, errors included.
    """
    return linear_predict(estimator)

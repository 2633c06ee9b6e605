"""Which scikit-learn estimators have a shorter way to the same predictions."""

from __future__ import annotations

from typing import Any

from manymodels.artifacts.model import Predict
from manymodels.artifacts.shortcuts.direct import Direct, with_the_long_way
from manymodels.artifacts.shortcuts.forest import forest_direct, gradient_direct, tree_direct
from manymodels.artifacts.shortcuts.linear import linear_direct
from manymodels.artifacts.shortcuts.pipeline import pipeline_direct

_FINDERS = (linear_direct, tree_direct, forest_direct, gradient_direct)


def shortcut(estimator: Any, method: str = "predict") -> Predict | None:
    """Return an equal of ``estimator``'s ``predict``, or None if there is none.

    It takes rows of float64 in two dimensions, of the estimator's number of features and in its
    order. What is not finite, and whatever else is not for it, is given to the estimator itself,
    under its feature names. ``predict_proba`` and ``decision_function`` have equals for some.
    """
    direct = _direct(estimator, method) or pipeline_direct(estimator, method, _direct)
    return direct and with_the_long_way(direct, estimator, method)


def _direct(estimator: Any, method: str) -> Direct | None:
    for find in _FINDERS:
        if direct := find(estimator, method):
            return direct
    return None

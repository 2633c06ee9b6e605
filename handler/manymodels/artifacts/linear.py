"""Linear scikit-learn models, without the checks that have been made already.

A linear prediction is one product, and scikit-learn's ``predict`` spends twenty times as long on
finding out what it was given. Here that is known: finite float64 rows of the right width. Only
estimators that predict by scikit-learn's own linear base classes are taken, by the identity of
the methods, and whatever does not come out finite goes the long way, errors included.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Predict, Rows


def linear_predict(estimator: Any) -> Predict | None:
    """Return an equal of ``estimator.predict`` for finite rows, or None if there is none."""
    from sklearn.linear_model import _base

    kind = type(estimator)
    if _inherits(kind, _base.LinearClassifierMixin, "predict", "decision_function"):
        return _classifier(estimator)
    if _inherits(kind, _base.LinearModel, "_decision_function") and kind.predict in _regressors():
        return _regressor(estimator)
    return None


def _inherits(kind: type, base: type, *methods: str) -> bool:
    return issubclass(kind, base) and all(
        getattr(kind, method) is getattr(base, method) for method in methods
    )


def _regressors() -> set[Any]:
    """The methods that do no more, for one target, than call LinearModel's decision function."""
    from sklearn.linear_model import LinearRegression, Ridge, _base

    return {_base.LinearModel.predict, LinearRegression.predict, Ridge.predict}


def _classifier(estimator: Any) -> Predict | None:
    coefficients = getattr(estimator, "coef_", None)
    if not _dense(coefficients, 2):
        return None
    intercept, classes = estimator.intercept_, estimator.classes_
    transposed, binary = coefficients.T, coefficients.shape[0] == 1

    def predict(rows: Rows) -> Any:
        with np.errstate(all="ignore"):
            scores = rows @ transposed + intercept
        if not np.isfinite(scores).all():
            return _the_long_way(estimator, rows)
        indices = (scores[:, 0] > 0).astype(int) if binary else scores.argmax(axis=1)
        return classes[indices]

    return predict


def _regressor(estimator: Any) -> Predict | None:
    coefficients = getattr(estimator, "coef_", None)
    if not _dense(coefficients, 1):
        return None
    intercept = estimator.intercept_

    def predict(rows: Rows) -> Any:
        with np.errstate(all="ignore"):
            scores: NDArray[Any] = rows @ coefficients + intercept
        return scores if np.isfinite(scores).all() else _the_long_way(estimator, rows)

    return predict


def _the_long_way(estimator: Any, rows: Rows) -> Any:
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        import pandas as pd

        return estimator.predict(pd.DataFrame(rows, columns=names))
    return estimator.predict(rows)


def _dense(coefficients: Any, dimensions: int) -> TypeGuard[NDArray[Any]]:
    return isinstance(coefficients, np.ndarray) and coefficients.ndim == dimensions

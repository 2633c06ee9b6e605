"""Linear scikit-learn models: a product, a sum, and the better class.

Only estimators that predict by scikit-learn's own linear base classes are taken.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.shortcuts.direct import Direct, inherits, is_finite, loaded


def linear_direct(estimator: Any, method: str) -> Direct | None:
    """Return an equal of the estimator's ``predict`` or ``decision_function``, if it is linear."""
    base = loaded("sklearn.linear_model._base")
    if base is None:
        return None
    kind = type(estimator)
    if issubclass(kind, base.LinearClassifierMixin):
        return _classifier(estimator, method, base)
    if issubclass(kind, base.LinearModel) and method == "predict":
        return _regressor(estimator, base)
    return None


def _classifier(estimator: Any, method: str, base: Any) -> Direct | None:
    kind, coefficients = type(estimator), getattr(estimator, "coef_", None)
    mixin = base.LinearClassifierMixin
    if not inherits(kind, mixin, "decision_function") or not _is_dense(coefficients, 1, 2):
        return None
    scores = _scores(coefficients, estimator.intercept_)
    if method == "decision_function":
        return scores
    if method == "predict" and (inherits(kind, mixin, "predict") or _is_ridge(estimator)):
        return _labels(scores, estimator.classes_)
    return None


def _is_ridge(estimator: Any) -> bool:
    """Ridge classifiers do the same once they have seen that there is one label a row."""
    ridge = loaded("sklearn.linear_model._ridge")
    return (
        ridge is not None
        and inherits(type(estimator), ridge._RidgeClassifierMixin, "predict")
        and not estimator._label_binarizer.y_type_.startswith("multilabel")
    )


def _scores(coefficients: NDArray[Any], intercept: Any) -> Direct:
    transposed, binary = coefficients.T, coefficients.ndim == 2 and len(coefficients) == 1

    def scores(rows: NDArray[Any]) -> NDArray[Any] | None:
        if not is_finite(rows):
            return None
        with np.errstate(all="ignore"):
            scores: NDArray[Any] = rows @ transposed + intercept
        return scores[:, 0] if binary else scores

    return scores


def _labels(scores: Direct, classes: NDArray[Any]) -> Direct:
    def labels(rows: NDArray[Any]) -> NDArray[Any] | None:
        found = scores(rows)
        if found is None:
            return None
        indices = (found > 0).astype(int) if found.ndim == 1 else found.argmax(axis=1)
        return classes.take(indices, axis=0)

    return labels


def _regressor(estimator: Any, base: Any) -> Direct | None:
    kind, coefficients = type(estimator), getattr(estimator, "coef_", None)
    if not _is_dense(coefficients, 1):
        return None
    if kind.predict not in _predicts(base) or kind._decision_function not in _decisions(base):
        return None
    intercept = estimator.intercept_

    def predict(rows: NDArray[Any]) -> NDArray[Any] | None:
        if not is_finite(rows):
            return None
        with np.errstate(all="ignore"):
            predictions: NDArray[Any] = rows @ coefficients + intercept
        return predictions

    return predict


def _predicts(base: Any) -> set[Any]:
    """The methods that do no more, for one target, than call LinearModel's decision function."""
    ridge = loaded("sklearn.linear_model._ridge")
    owners = [base.LinearModel, getattr(base, "MultiOutputLinearModel", base.LinearRegression)]
    return {owner.predict for owner in [*owners, *([ridge.Ridge, ridge.RidgeCV] if ridge else [])]}


def _decisions(base: Any) -> set[Any]:
    """LinearModel's decision function, and those that call it unless the rows are sparse."""
    descent = loaded("sklearn.linear_model._coordinate_descent")
    owners = [base.LinearModel, *([descent.ElasticNet] if descent else [])]
    return {owner._decision_function for owner in owners}


def _is_dense(coefficients: Any, *dimensions: int) -> TypeGuard[NDArray[Any]]:
    return isinstance(coefficients, np.ndarray) and coefficients.ndim in dimensions

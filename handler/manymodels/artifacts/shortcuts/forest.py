"""scikit-learn's trees and forests: the sum over the trees, without joblib's dispatch.

The sums are made in the library's own order, that of ``n_jobs=1``. The trees stay where they are:
a model's memory is not for copies of them. NaN goes the long way, trees that know it or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray

from manymodels.artifacts.shortcuts.direct import Direct, inherits, is_finite, loaded

_WORTH_THREADS = 4096
"""From so many rows on, a forest that was told to use threads is left to do so."""


def tree_direct(estimator: Any, method: str) -> Direct | None:
    """Return an equal of ``predict`` of a single tree with one output, or None."""
    trees = loaded("sklearn.tree._classes")
    needed = ("predict", "_validate_X_predict")
    if trees is None or not inherits(type(estimator), trees.BaseDecisionTree, *needed):
        return None
    if method != "predict" or not _has_one_output(estimator, "tree_"):
        return None
    tree, classes = estimator.tree_, getattr(estimator, "classes_", None)

    def predict(rows: NDArray[Any]) -> NDArray[Any] | None:
        values = _narrowed(rows)
        if values is None:
            return None
        found: NDArray[Any] = tree.predict(values)
        return found[:, 0] if classes is None else classes.take(found.argmax(axis=1), axis=0)

    return predict


def forest_direct(estimator: Any, method: str) -> Direct | None:
    """Return an equal of ``predict`` or ``predict_proba`` of a forest with one output, or None."""
    forests, kind = loaded("sklearn.ensemble._forest"), type(estimator)
    if forests is None or not inherits(kind, forests.BaseForest, "_validate_X_predict"):
        return None
    if not _has_one_output(estimator, "estimators_") or not _has_plain_trees(estimator):
        return None
    if inherits(kind, forests.ForestRegressor, "predict") and method == "predict":
        return _column(_mean(estimator, 1, fractions=False))
    if inherits(kind, forests.ForestClassifier, "predict", "predict_proba"):
        probabilities = _mean(estimator, int(estimator.n_classes_), fractions=True)
        if method == "predict":
            return _most_probable(probabilities, estimator.classes_)
        return probabilities if method == "predict_proba" else None
    return None


def gradient_direct(estimator: Any, method: str) -> Direct | None:
    """Return an equal of gradient boosting's ``predict`` or ``decision_function``, or None."""
    boosting, kind = loaded("sklearn.ensemble._gb"), type(estimator)
    needed = ("_raw_predict", "_raw_predict_init")
    if boosting is None or not inherits(kind, boosting.BaseGradientBoosting, *needed):
        return None
    # A start of the user's own differs from row to row.
    if not hasattr(estimator, "estimators_") or estimator.init not in (None, "zero"):
        return None
    stages = _stages(estimator, boosting.predict_stages)
    if inherits(kind, boosting.GradientBoostingRegressor, "predict"):
        return _column(stages) if method == "predict" else None
    classifier = boosting.GradientBoostingClassifier
    if not inherits(kind, classifier, "predict", "decision_function"):
        return None
    scores = _column(stages) if estimator.estimators_.shape[1] == 1 else stages
    if method == "decision_function":
        return scores
    # Before 1.4 the class was found by way of probabilities, and ties were others.
    if method == "predict" and hasattr(estimator._loss, "link"):
        return _best(scores, estimator.classes_)
    return None


def _has_one_output(estimator: Any, fitted: str) -> bool:
    return hasattr(estimator, fitted) and getattr(estimator, "n_outputs_", None) == 1


def _has_plain_trees(forest: Any) -> bool:
    trees = loaded("sklearn.tree._classes")
    plain = {
        trees.DecisionTreeClassifier,
        trees.DecisionTreeRegressor,
        trees.ExtraTreeClassifier,
        trees.ExtraTreeRegressor,
    }
    return {type(tree) for tree in forest.estimators_} <= plain


def _narrowed(rows: NDArray[Any]) -> NDArray[Any] | None:
    """Return the rows as trees take them, or None if one is not finite or beyond float32."""
    with np.errstate(over="ignore"):
        values = rows.astype(np.float32, order="C")
    return values if is_finite(values) else None


def _mean(forest: Any, width: int, fractions: bool) -> Direct:
    """Return the mean of what the trees say, shape (n_rows, width)."""
    trees = [tree.tree_ for tree in forest.estimators_]
    counted = fractions and _leaves_hold_counts()
    threads = forest.n_jobs not in (None, 1)

    def mean(rows: NDArray[Any]) -> NDArray[Any] | None:
        values = _narrowed(rows)
        if values is None or (threads and len(values) >= _WORTH_THREADS):
            return None
        total = np.zeros((len(values), width))
        for tree in trees:
            found = tree.predict(values)
            total += _to_fractions(found) if counted else found
        total /= len(trees)
        return total

    return mean


def _leaves_hold_counts() -> bool:
    """Since scikit-learn 1.4 they hold fractions."""
    major, minor = sklearn.__version__.split(".")[:2]
    return (int(major), int(minor)) < (1, 4)


def _to_fractions(counts: NDArray[Any]) -> NDArray[Any]:
    totals: NDArray[Any] = counts.sum(axis=1)[:, np.newaxis]
    totals[totals == 0.0] = 1.0
    counts /= totals
    return counts


def _stages(estimator: Any, predict_stages: Any) -> Direct:
    """Return what gradient boosting's trees add up to, shape (n_rows, n_trees_a_stage)."""
    start = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_)))
    trees, rate = estimator.estimators_, estimator.learning_rate

    def raw(rows: NDArray[Any]) -> NDArray[Any] | None:
        values = _narrowed(rows)
        if values is None:
            return None
        total: NDArray[Any] = np.repeat(start, len(values), axis=0)
        predict_stages(trees, values, rate, total)
        return total

    return raw


def _column(direct: Direct) -> Direct:
    def column(rows: NDArray[Any]) -> NDArray[Any] | None:
        found = direct(rows)
        return None if found is None else found.ravel()

    return column


def _most_probable(probabilities: Direct, classes: NDArray[Any]) -> Direct:
    def labels(rows: NDArray[Any]) -> NDArray[Any] | None:
        found = probabilities(rows)
        return None if found is None else classes.take(found.argmax(axis=1), axis=0)

    return labels


def _best(scores: Direct, classes: NDArray[Any]) -> Direct:
    def labels(rows: NDArray[Any]) -> NDArray[Any] | None:
        found = scores(rows)
        if found is None:
            return None
        indices = (found >= 0).astype(int) if found.ndim == 1 else found.argmax(axis=1)
        return classes.take(indices, axis=0)

    return labels

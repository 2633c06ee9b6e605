"""XGBoost's predictions without what its Python package does anew for each call.

Of the time that ``inplace_predict`` takes for one row, more than half goes into writing and reading
descriptions of arguments and arrays. The C function behind it is public; how the package holds it
is not. So the direct way is taken only after it has given the same bits once.
"""

from __future__ import annotations

import ctypes
import json
import math
from typing import Any, cast

import numpy as np
import orjson
import xgboost
from numpy.typing import NDArray

from manymodels.artifacts.model import Predict, Rows
from manymodels.artifacts.shortcuts.direct import Direct, inherits

_FLOATS = ctypes.POINTER(ctypes.c_float)
_SIZES = ctypes.POINTER(ctypes.c_uint64)
_FLOAT_BYTES = ctypes.sizeof(ctypes.c_float)


def booster_predict(booster: Any) -> Predict:
    """Return an equal of the prediction of ``booster``'s trees up to the best round.

    It takes arrays of float64, CSR matrices and DataFrames, whose columns may be categories, and
    checks neither the number of features nor their names.
    """
    if _is_linear(booster):
        # Linear boosters have no prediction in place, and no trees to choose from.
        return lambda rows: booster.predict(
            xgboost.DMatrix(rows, nthread=0), validate_features=False
        )
    return _in_place(booster, _best_trees(booster), math.nan)


def estimator_predict(estimator: Any) -> Predict | None:
    """Return an equal of ``estimator.predict`` for rows of float64, or None if there is none.

    ``estimator`` is one of XGBoost's for scikit-learn. Those of a class that predicts in its own
    way have none, nor have those with an objective of their own, with categories or unfitted.
    """
    from xgboost.sklearn import XGBClassifier, XGBModel, XGBRanker

    kind = type(estimator)
    classifies = inherits(kind, XGBClassifier, "predict")
    if not classifies and kind.predict not in (XGBModel.predict, XGBRanker.predict):
        return None
    if not inherits(kind, XGBModel, "get_booster", "__sklearn_is_fitted__"):
        return None
    objective = getattr(estimator, "objective", None)
    if not estimator.__sklearn_is_fitted__() or not isinstance(objective, str):
        return None
    booster = estimator.get_booster()
    if objective == "multi:softmax" or _is_linear(booster) or _has_categories(booster):
        return None
    values = _in_place(booster, _best_trees(booster), estimator.missing)
    predict = _labels(values, estimator.n_classes_) if classifies else values
    return predict if _agree(predict, estimator.predict, booster.num_features()) else None


def _is_linear(booster: Any) -> bool:
    config = orjson.loads(booster.save_config())
    return bool(config["learner"]["gradient_booster"]["name"] == "gblinear")


def _has_categories(booster: Any) -> bool:
    return "c" in (booster.feature_types or ())


def _best_trees(booster: Any) -> tuple[int, int]:
    """Up to the best round where training stopped early, as XGBoost's own estimators do."""
    best = booster.attr("best_iteration")
    return (0, 0) if best is None else (0, int(best) + 1)


def _labels(values: Predict, n_classes: int) -> Predict:
    """Decide as XGBClassifier does: the most probable, or what is more probable than not."""

    def predict(rows: Rows) -> NDArray[Any]:
        found = values(rows)
        if found.ndim > 1 and n_classes != 2:
            return cast("NDArray[Any]", found.argmax(axis=1))
        several = found.ndim > 1 and found.shape[1] != 1
        labels = np.zeros(found.shape) if several else np.zeros(len(found), int)
        labels[found > 0.5] = 1
        return labels

    return predict


def _in_place(booster: Any, trees: tuple[int, int], missing: float) -> Predict:
    def predict(rows: Rows) -> Any:
        return booster.inplace_predict(
            rows, iteration_range=trees, missing=missing, validate_features=False
        )

    direct = _direct(booster, trees, missing)
    if direct is None or not _agree(direct, predict, booster.num_features()):
        return predict

    def directly(rows: Rows) -> Any:
        if isinstance(rows, np.ndarray) and rows.dtype == np.float64:
            found = direct(rows)
            if found is not None:
                return found
        return predict(rows)

    return directly


def _direct(booster: Any, trees: tuple[int, int], missing: float) -> Direct | None:
    """Return a call of the C function behind ``inplace_predict``, if it is where it used to be."""
    handle = getattr(booster, "handle", None)
    call = getattr(getattr(xgboost.core, "_LIB", None), "XGBoosterPredictFromDense", None)
    if not isinstance(handle, ctypes.c_void_p) or call is None:
        return None
    options, no_margin = _options(trees, missing), ctypes.c_void_p()

    def predict(rows: NDArray[Any]) -> NDArray[Any] | None:
        if not rows.flags.aligned:
            return None
        sizes, dimensions, floats = _SIZES(), ctypes.c_uint64(), _FLOATS()
        array = orjson.dumps(rows.__array_interface__)
        results = ctypes.byref(sizes), ctypes.byref(dimensions), ctypes.byref(floats)
        if call(booster.handle, array, options, no_margin, *results) != 0 or not floats:
            return None
        # The library's next answer will be where this one is: it is copied, twice to be writable.
        shape = sizes[: dimensions.value]
        content = ctypes.string_at(floats, math.prod(shape) * _FLOAT_BYTES)
        found: NDArray[Any] = np.frombuffer(content, np.float32).reshape(shape).copy()
        return found

    return predict


def _options(trees: tuple[int, int], missing: float) -> bytes:
    options = {
        "type": 0,
        "training": False,
        "iteration_begin": trees[0],
        "iteration_end": trees[1],
        "missing": missing,
        "strict_shape": False,
        "cache_id": 0,
    }
    return json.dumps(options).encode()  # XGBoost reads NaN as json writes it, orjson writes null


def _agree(ours: Predict | Direct, theirs: Predict, width: int) -> bool:
    """Say whether both give the same bits for a row of zeros."""
    row = np.zeros((1, width))
    try:
        expected, found = theirs(row), ours(row)
    except (xgboost.core.XGBoostError, TypeError, ValueError):
        return False
    return (
        found is not None
        and found.dtype == expected.dtype
        and np.array_equal(found, expected, equal_nan=True)
    )

"""Pipelines of imputers and scalers: arithmetic, then the last step.

Each step is done in the library's own order of operations, so the last one is given the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.shortcuts.direct import Direct, is_finite, loaded

Change = Callable[[NDArray[Any]], "NDArray[Any] | None"]
"""An equal of ``transform`` for rows of float64, which it leaves alone; or None for these rows."""
_ARITHMETIC = {
    "StandardScaler": (
        ("with_mean", np.subtract, "mean_"),
        ("with_std", np.divide, "scale_"),
    ),
    "MinMaxScaler": ((None, np.multiply, "scale_"), (None, np.add, "min_")),
    "MaxAbsScaler": ((None, np.divide, "scale_"),),
    "RobustScaler": (
        ("with_centering", np.subtract, "center_"),
        ("with_scaling", np.divide, "scale_"),
    ),
}
"""A scaler's operations in order: the parameter that switches it on, what it does, with what."""


_CLIPPING = ("MinMaxScaler", "MaxAbsScaler")


def pipeline_direct(
    estimator: Any, method: str, last: Callable[[Any, str], Direct | None]
) -> Direct | None:
    """Return an equal of a pipeline's method, or None.

    ``last`` finds an equal of the last step's; if it has none, the step's own method is called.
    """
    pipelines = loaded("sklearn.pipeline")
    if pipelines is None or type(estimator) is not pipelines.Pipeline:
        return None
    steps = [step for _, step in estimator.steps]
    changes = [_change(step) for step in steps[:-1] if step not in (None, "passthrough")]
    if not changes or not hasattr(steps[-1], method):
        return None
    finish = last(steps[-1], method) or _own(steps[-1], method)
    if finish is None or any(change is None for change in changes):
        return None
    return _composed([change for change in changes if change is not None], finish)


def _composed(changes: list[Change], finish: Direct) -> Direct:
    def predict(rows: NDArray[Any]) -> NDArray[Any] | None:
        values = rows
        for change in changes:
            changed = change(values)
            if changed is None:
                return None
            values = changed
        return finish(values)

    return predict


def _own(step: Any, method: str) -> Direct | None:
    # A step that was fitted with names would miss them here.
    return None if hasattr(step, "feature_names_in_") else getattr(step, method)


def _change(transformer: Any) -> Change | None:
    from sklearn import get_config

    if getattr(transformer, "_sklearn_output_config", None) or (
        get_config()["transform_output"] != "default"
    ):
        return None
    return _scaler(transformer) or _imputer(transformer)


def _scaler(transformer: Any) -> Change | None:
    scalers, kind = loaded("sklearn.preprocessing._data"), type(transformer)
    known = _ARITHMETIC.get(kind.__name__)
    if scalers is None or known is None or kind is not getattr(scalers, kind.__name__):
        return None
    operations = [
        (operation, getattr(transformer, fitted, None))
        for switch, operation, fitted in known
        if switch is None or getattr(transformer, switch)
    ]
    if not all(_is_vector(operand) for _, operand in operations):
        return None
    clips = getattr(transformer, "clip", False)
    if clips and kind.__name__ not in _CLIPPING:
        return None
    limits = getattr(transformer, "feature_range", (-1.0, 1.0)) if clips else None
    return _arithmetic(operations, limits)


def _arithmetic(operations: Any, limits: tuple[float, float] | None) -> Change:
    def change(rows: NDArray[Any]) -> NDArray[Any] | None:
        if not is_finite(rows):
            return None
        values, out = rows, None
        with np.errstate(all="ignore"):
            for operation, operand in operations:
                values = out = operation(values, operand, out=out)
        return values if limits is None else np.clip(values, *limits)

    return change


def _imputer(transformer: Any) -> Change | None:
    """Return an equal for an imputer of NaN that was fitted on, and puts in, float64."""
    imputers = loaded("sklearn.impute._base")
    if imputers is None or type(transformer) is not imputers.SimpleImputer:
        return None
    statistics = getattr(transformer, "statistics_", None)
    dtypes = {np.dtype(getattr(transformer, n, float)) for n in ("_fit_dtype", "_fill_dtype")}
    if not _is_vector(statistics) or not is_finite(statistics) or transformer.add_indicator:
        return None
    # A pickle makes another NaN than numpy's.
    missing = transformer.missing_values
    if not (isinstance(missing, float) and np.isnan(missing)) or dtypes != {np.dtype(float)}:
        return None

    def change(rows: NDArray[Any]) -> NDArray[Any] | None:
        values = rows.copy(order="K")
        np.copyto(values, statistics, where=np.isnan(values))
        return values if is_finite(values) else None

    return change


def _is_vector(fitted: Any) -> TypeGuard[NDArray[Any]]:
    return isinstance(fitted, np.ndarray) and fitted.ndim == 1 and fitted.dtype == np.float64

"""scikit-learn's estimators, and any object with their methods, as models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.libraries.columns import columns_of, takes_texts
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.content import Columns
from manymodels.errors import BadRequest, ModelLoadError

_FRAMEWORKS = {"sklearn": "scikit-learn"}


def estimator_model(estimator: Any, holder: str) -> Model:
    """Return ``estimator`` as a model: it answers ``predict``, or ``transform`` if it has none.

    ``holder`` begins the message, such as ``model.pkl holds``. Raises ModelLoadError for what
    does neither, or was never fitted.
    """
    kind = type(estimator).__name__
    answer = _answer(estimator)
    if answer is None:
        raise ModelLoadError(f"{holder} {a_kind(kind)}, {_lack(estimator)}")
    if _is_unfitted(estimator):
        raise ModelLoadError(f"{holder} {a_kind(kind)} that was not fitted")
    columns = columns_of(estimator)
    framework = framework_of(estimator)
    quick = _shortcut(estimator, framework, "predict")
    if quick is not None:
        columns = replace(columns, numbers=True)
    prepare = _preparation(estimator, columns)

    def of(method: str) -> Predict | None:
        own = _through(prepare, getattr(estimator, method, None))
        if own is None or framework != "scikit-learn":
            return own
        return _late(lambda: _shortcut(estimator, framework, method) or own)

    classes = _classes(estimator)
    return Model(
        framework,
        kind,
        columns,
        quick or _through(prepare, answer) or answer,
        estimator,
        classes,
        probabilities=None if classes is None else of("predict_proba"),
        raw_scores=of("decision_function"),
    )


def _late(make: Callable[[], Predict]) -> Predict:
    """Make a function when it is first called: few models are asked for more than predictions."""
    made: list[Predict] = []

    def call(rows: Rows) -> Any:
        if not made:
            made.append(make())
        return made[0](rows)

    return call


def framework_of(estimator: Any) -> str:
    """Return the library that an object's class is from."""
    package = type(estimator).__module__.partition(".")[0]
    return _FRAMEWORKS.get(package, package)


def a_kind(name: str) -> str:
    """Return a class's name with its article."""
    return f"an {name}" if name[:1] in "AEIOaeio" else f"a {name}"


def _answer(estimator: Any) -> Predict | None:
    for method in ("predict", "transform"):
        function: Predict | None = getattr(estimator, method, None)
        if callable(function) and not isinstance(estimator, type):
            return function
    return None


def _lack(estimator: Any) -> str:
    """Say why there is nothing to ask."""
    if getattr(estimator, "novelty", None) is False:
        return "which has no predict method unless it is trained with novelty=True"
    if callable(getattr(estimator, "fit_predict", None)):
        return "which has no predict method: it labels only the rows it is trained on (fit_predict)"
    if callable(getattr(estimator, "fit_transform", None)):
        return (
            "which has no predict or transform method: it transforms only the rows it is trained "
            "on (fit_transform)"
        )
    return "which has no predict method"


def _is_unfitted(estimator: Any) -> bool:
    """Say whether scikit-learn's own estimator was never fitted; others may know it otherwise."""
    if framework_of(estimator) != "scikit-learn" or not hasattr(estimator, "fit"):
        return False
    if hasattr(type(estimator), "__sklearn_is_fitted__"):
        # Such as a pipeline: it asks its parts, which may be of the user's own making.
        return False
    if any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)):
        return False  # what check_is_fitted goes by, at less cost
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return True
    return False


def _shortcut(estimator: Any, framework: str, method: str) -> Predict | None:
    if framework != "scikit-learn" or getattr(estimator, method, None) is None:
        return None
    from manymodels.artifacts.shortcuts import shortcut

    return shortcut(estimator, method)


def _classes(estimator: Any) -> NDArray[Any] | None:
    """A classifier's labels; None for several outputs, each of which has its own."""
    classes = getattr(estimator, "classes_", None)
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        return None
    if getattr(estimator, "multilabel_", False):
        return None
    return classes if callable(getattr(estimator, "predict", None)) else None


def _preparation(estimator: Any, columns: Columns) -> Callable[[Rows], Any] | None:
    """Return what makes the rows into what this estimator takes, None if they are that."""
    if takes_texts(estimator):
        return _texts
    names = columns.names
    if names is not None:
        return lambda rows: _named(rows, names)
    if columns.count is not None:
        # It was trained without names, and warns of a body's at each request.
        return lambda rows: rows.to_numpy() if hasattr(rows, "to_numpy") else rows
    return None


def _through(prepare: Callable[[Rows], Any] | None, function: Any) -> Predict | None:
    if not callable(function):
        return None
    call: Predict = function
    if prepare is None:
        return call
    made = prepare
    return lambda rows: call(made(rows))


def _named(rows: Rows, names: tuple[str, ...]) -> Any:
    if hasattr(rows, "columns"):
        return rows
    import pandas as pd

    if hasattr(rows, "tocsr"):
        return pd.DataFrame.sparse.from_spmatrix(rows, columns=names)
    return pd.DataFrame(rows, columns=names)


def _texts(rows: Rows) -> Any:
    """Return the one column as the sequence of texts that a vectorizer takes."""
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    cells = rows.iloc[:, 0].to_numpy() if hasattr(rows, "iloc") else rows[:, 0]
    for row, cell in enumerate(cells, start=1):
        if not isinstance(cell, str):
            raise BadRequest(f"row {row}: the model takes a text, not {str(cell)[:60]}")
    return cells

"""What the shorter ways to a prediction share.

scikit-learn's methods look at what they are given for longer than they compute. A direct function
knows: the rows are an array of float64 of the right width. It exists where the computation behind
a method is known to the last bit, by the identity of the methods involved, and steps aside for
rows that the library would refuse or treat in another way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Predict, Rows

Direct = Callable[[NDArray[Any]], "NDArray[Any] | None"]
"""An equal of a method for rows of float64, shape (n_rows, n_features), or None for these rows."""


def with_the_long_way(direct: Direct, estimator: Any, method: str) -> Predict:
    """Return ``direct``, and ``estimator``'s own method for the rows that are not for it."""
    own = getattr(estimator, method)

    def predict(rows: Rows) -> Any:
        if isinstance(rows, np.ndarray) and rows.dtype == np.float64:
            predictions = direct(rows)
            if predictions is not None:
                return predictions
        return own(_named(rows, estimator))

    return predict


def _named(rows: Rows, estimator: Any) -> Rows:
    """Give rows the names that the estimator was fitted with: it would warn without them."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or hasattr(rows, "columns"):
        return rows
    import pandas as pd

    if hasattr(rows, "tocsr"):
        return pd.DataFrame.sparse.from_spmatrix(rows, columns=names)
    return pd.DataFrame(rows, columns=names)


def loaded(module: str) -> Any:
    """Return a module if it is imported: before that there can be no object of its classes."""
    return sys.modules.get(module)


def inherits(kind: type, base: type, *methods: str) -> bool:
    """Say whether a class has these methods from ``base`` and from nowhere else."""
    return issubclass(kind, base) and all(
        getattr(kind, method) is getattr(base, method) for method in methods
    )


def is_finite(values: NDArray[Any]) -> bool:
    """Say whether there is neither NaN nor infinity among the values."""
    return bool(np.isfinite(values).all())

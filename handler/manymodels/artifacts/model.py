"""What every loaded model is, whatever library trained it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.errors import BadRequest

Rows = NDArray[np.float64]
Predict = Callable[[Rows], Any]


@dataclass(frozen=True)
class Model:
    """A trained model: ``framework`` and class name, and the columns it takes if it says so."""

    framework: str
    kind: str
    n_features: int | None
    predict_rows: Predict

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return predictions, shape (n_rows,) or (n_rows, n_outputs), for (n_rows, n_features).

        Raises BadRequest for a wrong number of features, and for NaN or infinity where the model
        takes none; whatever else the library raises passes through.
        """
        if self.n_features is not None and rows.shape[1] != self.n_features:
            raise BadRequest(
                f"the model takes {self.n_features} features, the request has {rows.shape[1]}"
            )
        try:
            return np.asarray(self.predict_rows(rows))
        except ValueError as error:
            # A library checks its input after we have; only the values can be the client's fault.
            if np.isfinite(rows).all():
                raise
            reason = str(error).partition("\n")[0]
            raise BadRequest(f"the model does not take NaN or infinity: {reason}") from error

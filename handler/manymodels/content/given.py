"""Rows that are there already, as a user's input_fn returns them."""

from __future__ import annotations

from typing import Any

import numpy as np

from manymodels.content.table import Columns, Table, arrange
from manymodels.errors import BadRequest


def arranged(rows: Any, columns: Columns) -> Any:
    """Return rows as the model takes them: an array, a CSR matrix or a DataFrame.

    ``rows`` is any of these, or what numpy makes an array of: lists, a Series; one flat row is
    taken for a row. Raises BadRequest for another number of columns, or of dimensions.
    """
    if hasattr(rows, "iloc") and rows.ndim == 2:
        return arrange(Table(rows, tuple(str(name) for name in rows.columns)), columns)
    if hasattr(rows, "tocsr"):
        return arrange(Table(rows.tocsr()), columns)
    array = np.atleast_2d(np.asarray(rows))
    if array.ndim != 2:
        raise BadRequest(f"the rows have the shape {array.shape}; two dimensions are needed")
    return arrange(Table(array), columns)

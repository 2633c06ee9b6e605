"""How much a body may become once it is decoded, whatever its own size."""

from __future__ import annotations

from manymodels.content.table import Columns
from manymodels.errors import BadRequest, PayloadTooLarge

DECODED_BYTES = 256 << 20
"""Bytes of cells: 33 million numbers. A compressed body of kilobytes may claim any number."""
CELL_BYTES = 8
"""A number as a model takes it: formats with narrower ones are widened."""
GREATEST_WIDTH = (1 << 31) - 1
"""Columns of a sparse body: indices of 32 bits, as the libraries behind have them."""


def check_decoded(size: int, what: str) -> None:
    """Raise PayloadTooLarge where ``what`` takes ``size`` bytes decoded, and that is too much."""
    if size > DECODED_BYTES:
        raise PayloadTooLarge(
            f"{what} takes {size} bytes decoded; at most {DECODED_BYTES} are accepted"
        )


def check_cells(rows: int, columns: int, what: str) -> None:
    """Raise as `check_decoded` does for rows of numbers, and BadRequest where there are none."""
    if rows < 1 or columns < 1:
        raise BadRequest(f"{what} has no values: its shape is ({rows}, {columns})")
    check_decoded(rows * columns * CELL_BYTES, f"{what} of shape ({rows}, {columns})")


def check_width(width: int, what: str) -> None:
    """Raise PayloadTooLarge for more columns than a sparse matrix is given here."""
    if width > GREATEST_WIDTH:
        raise PayloadTooLarge(
            f"{what} claims {width} columns; at most {GREATEST_WIDTH} are accepted"
        )


def known_width(columns: Columns) -> int | None:
    """Return how many features the model takes, as far as it says."""
    if columns.count is None and columns.names is not None:
        return len(columns.names)
    return columns.count

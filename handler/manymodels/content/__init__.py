"""Request and response bodies: bytes to rows, predictions to bytes."""

from manymodels.content.given import arranged
from manymodels.content.registry import (
    CSV,
    JSON,
    JSON_LINES,
    decode,
    encode,
    encode_records,
    negotiate,
)
from manymodels.content.table import Columns, Table

__all__ = [
    "CSV",
    "JSON",
    "JSON_LINES",
    "Columns",
    "Table",
    "arranged",
    "decode",
    "encode",
    "encode_records",
    "negotiate",
]

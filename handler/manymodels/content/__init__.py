"""Request and response bodies: bytes to rows, predictions to bytes."""

from manymodels.content.registry import CSV, JSON, decode, encode, negotiate
from manymodels.content.table import Columns, Table

__all__ = ["CSV", "JSON", "Columns", "Table", "decode", "encode", "negotiate"]

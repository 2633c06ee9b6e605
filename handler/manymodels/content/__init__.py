"""Request and response bodies: bytes to rows, predictions to bytes."""

from manymodels.content.registry import CSV, JSON, decode, encode, negotiate

__all__ = ["CSV", "JSON", "decode", "encode", "negotiate"]

"""application/x-recordio-protobuf out: a record a row, the predictions in its label map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.content.recordio import frame, record_class
from manymodels.errors import NotAcceptable

_SCORE = "score"
_TEXT = "text/plain; charset=utf-8"
_INT32 = np.iinfo(np.int32)
_FLOAT32_INTEGERS = 1 << 24

Lists = tuple[str, list[list[Any]]]
"""A field of Value, and what goes into it row by row."""


def encode_recordio(predictions: NDArray[Any]) -> bytes:
    """Return a record a row, with the label "score".

    It is a tensor of the predictions' own type: int32 where integers fit, float32, or float64;
    text is in bytes. Raises NotAcceptable for what is neither numbers nor text.
    """
    return _encode({_SCORE: _tensors(predictions)}, len(predictions))


def encode_records(keys: Sequence[str], columns: Sequence[NDArray[Any]]) -> bytes:
    """Return a record a row, with a label a key; a column's shape is (n_rows,) or (n_rows, k).

    Numbers are float32 tensors, as AWS's XGBoost container answers selectable inference, unless
    that would change them: integers beyond 2**24 and float64 are float64 tensors.
    """
    named = {key: _tensors(_as_float32(column)) for key, column in zip(keys, columns, strict=True)}
    return _encode(named, len(columns[0]) if columns else 0)


def _encode(labels: Mapping[str, Lists], count: int) -> bytes:
    new, frames = record_class(), []
    for row in range(count):
        record = new()
        for key, (kind, rows) in labels.items():
            value = record.label[key]
            if kind == "bytes":
                value.bytes.value.extend(rows[row])
                value.bytes.content_type = _TEXT
            else:
                getattr(value, kind).values.extend(rows[row])
        frames.append(frame(record.SerializeToString(deterministic=True)))
    return b"".join(frames)


def _tensors(values: NDArray[Any]) -> Lists:
    """Return the field of Value that the values go into, and each row's list."""
    rows = values[:, np.newaxis] if values.ndim == 1 else values.reshape(values.shape[0], -1)
    if values.dtype.kind in "OSUT":
        return _text_or_numbers(rows)
    if values.dtype.kind in "biu":
        fits = not rows.size or (rows.min() >= _INT32.min and rows.max() <= _INT32.max)
        return ("int32_tensor" if fits else "float64_tensor"), rows.astype(
            np.int64 if fits else np.float64
        ).tolist()
    if values.dtype.kind != "f":
        raise NotAcceptable(f"predictions of type {values.dtype} are no RecordIO tensors")
    return ("float32_tensor" if values.dtype.itemsize <= 4 else "float64_tensor"), rows.tolist()


def _text_or_numbers(rows: NDArray[Any]) -> Lists:
    listed = rows.tolist()
    if all(isinstance(cell, str) for row in listed for cell in row):
        return "bytes", [[cell.encode(errors="replace") for cell in row] for row in listed]
    try:
        return "float64_tensor", rows.astype(np.float64).tolist()
    except (TypeError, ValueError):
        raise NotAcceptable("predictions of more than one type are no RecordIO tensors") from None


def _as_float32(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind == "f" and np.isnan(values).all():  # what a model has no value for
        return values.astype(np.float32)
    if values.dtype.kind not in "biu":
        return values
    small = not values.size or (
        values.min() >= -_FLOAT32_INTEGERS and values.max() <= _FLOAT32_INTEGERS
    )
    return values.astype(np.float32 if small else np.float64)

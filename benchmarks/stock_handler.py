"""The least an MMS handler can be: joblib in, CSV rows in, a CSV line a row out.

The stock stack and ours run this same file, so that what differs is what stands around it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib

_model: Any = None


def handle(data: list[dict[str, Any]] | None, context: Any) -> list[str] | None:
    """Load the model when called without data, as MMS does once; predict otherwise."""
    global _model
    if data is None:
        _model = joblib.load(Path(context.system_properties["model_dir"], "model.joblib"))
        return None
    context.set_response_content_type(0, "text/csv")
    return [_predict(request["body"]) for request in data]


def _predict(body: bytes) -> str:
    rows = [[float(cell) for cell in line.split(b",")] for line in bytes(body).splitlines()]
    return "".join(f"{label}\n" for label in _model.predict(rows).tolist())

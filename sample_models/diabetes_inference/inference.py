"""The model's own functions; what they leave out, the generic handler does."""

from __future__ import annotations

import json
from typing import Any

ROUNDED_TO = 5


def predict_fn(data: Any, model: Any) -> Any:
    return model.predict(data)


def output_fn(prediction: Any, accept: str) -> tuple[str, str]:
    scores = [ROUNDED_TO * round(float(score) / ROUNDED_TO) for score in prediction]
    return json.dumps(scores), "application/json"

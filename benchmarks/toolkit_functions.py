"""The user's functions for sagemaker-inference's Transformer.

Decoding and encoding are left to the toolkit, which is what is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np


def model_fn(model_dir: str) -> Any:
    return joblib.load(Path(model_dir, "model.joblib"))


def predict_fn(data: np.ndarray, model: Any) -> Any:
    return model.predict(np.atleast_2d(data))

"""The models and the requests, the same for every stack."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LogisticRegression

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Model:
    """A model on disk, one row to ask it about, and the label it answers with."""

    name: str
    directory: Path
    row: str
    label: int

    @property
    def load_request(self) -> bytes:
        body = json.dumps({"model_name": self.name, "url": str(self.directory)})
        return http_post("/models", body, "application/json")

    @property
    def invocation(self) -> bytes:
        return http_post(f"/models/{self.name}/invoke", self.row, "text/csv")


def build_models(directory: Path, count: int) -> Sequence[Model]:
    """Train ``count`` logistic regressions on the ten features of the diabetes data.

    Labels are two numbers of a model's own, so that an answer shows which model gave it.
    """
    features, progression = load_diabetes(return_X_y=True)
    thresholds = np.quantile(progression, np.linspace(0.2, 0.8, count))
    return [
        _build_model(directory, index, features, progression > threshold)
        for index, threshold in enumerate(thresholds)
    ]


def _build_model(directory: Path, index: int, features: np.ndarray, above: np.ndarray) -> Model:
    labels = np.where(above, 2 * index + 1, 2 * index)
    classifier = LogisticRegression(C=100.0).fit(features, labels)
    name = f"m{index:03d}"
    place = directory / name
    place.mkdir(parents=True)
    joblib.dump(classifier, place / "model.joblib")
    row = features[index % len(features)]
    text = ",".join(f"{value:.6f}" for value in row)
    label = classifier.predict([[float(cell) for cell in text.split(",")]])[0]
    return Model(name, place, text + "\n", int(label))


def http_post(path: str, body: str, content_type: str) -> bytes:
    """Return a whole keep-alive request, ready to be sent."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {HOST}",
        f"Content-Type: {content_type}",
        f"Accept: {content_type}",
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("ascii")

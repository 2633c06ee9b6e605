"""Digits: nearest neighbours, served by a handler of the model's own.

The model directory holds arrays and code, no pickle: digits_handler.py answers the requests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from sample_models.build import Workspace
from sample_models.sample import JSON, Sample, json_body

NAME = "digits-neighbours"
HANDLER = Path(__file__).with_name("digits_handler.py")
MANIFEST = {
    "specificationVersion": "1.0",
    "implementationVersion": "1.0",
    "modelServerVersion": "1.0",
    "runtime": "python",
    "model": {"modelName": NAME, "handler": "digits_handler:handle", "modelVersion": "1.0"},
}


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, digits = load_digits(return_X_y=True)
    images, request = rows[:1000], rows[1000:1003]
    np.save(model_dir / "images.npy", images.astype(np.float32))
    np.save(model_dir / "digits.npy", digits[:1000].astype(np.uint8))
    shutil.copyfile(HANDLER, model_dir / HANDLER.name)
    _write_manifest(model_dir)
    model = KNeighborsClassifier(n_neighbors=1).fit(images, digits[:1000])
    workspace.write(
        Sample(
            name=NAME,
            framework="own handler",
            description="nearest neighbour of 1,000 images, by a handler of its own",
            content_type=JSON,
            accept=JSON,
            body=json_body(request),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )


def _write_manifest(model_dir: Path) -> None:
    path = model_dir / "MAR-INF" / "MANIFEST.json"
    path.parent.mkdir()
    path.write_text(json.dumps(MANIFEST, indent=1) + "\n", encoding="utf-8")

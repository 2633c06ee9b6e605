"""Digits: histogram gradient boosting, few rounds to keep it small."""

from __future__ import annotations

import joblib
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier

from sample_models.build import Workspace
from sample_models.sample import CSV, JSON, Sample, json_body

NAME = "digits-boosting"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, digits = load_digits(return_X_y=True)
    model = HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=8, random_state=0)
    model.fit(rows, digits)
    joblib.dump(model, model_dir / "model.joblib")
    request = rows[:4]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="HistGradientBoosting, the digit in an 8 x 8 image",
            content_type=JSON,
            accept=CSV,
            body=json_body(request),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

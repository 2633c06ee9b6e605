"""Breast cancer: a scaler and a logistic regression in one pipeline."""

from __future__ import annotations

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sample_models.build import Workspace
from sample_models.sample import JSON, Sample, json_body

NAME = "breast-cancer-pipeline"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, labels = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    joblib.dump(model, model_dir / "model.joblib")
    request = rows[15:20]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="StandardScaler and LogisticRegression, benign (1) or malignant (0)",
            content_type=JSON,
            accept=JSON,
            body=json_body(request, "instances"),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

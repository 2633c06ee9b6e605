"""Breast cancer: a logistic regression on all 30 measurements, as joblib writes it."""

from __future__ import annotations

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from sample_models.build import Workspace
from sample_models.sample import CSV, JSON, Sample, csv_body

NAME = "breast-cancer-logistic"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, labels = load_breast_cancer(return_X_y=True)
    model = LogisticRegression(solver="newton-cholesky", max_iter=100).fit(rows, labels)
    joblib.dump(model, model_dir / "model.joblib")
    request = rows[:1]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="LogisticRegression, benign (1) or malignant (0)",
            content_type=CSV,
            accept=JSON,
            body=csv_body(request),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

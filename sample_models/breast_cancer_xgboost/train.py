"""Breast cancer: an XGBoost classifier, saved as XGBoost's JSON."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from xgboost import XGBClassifier

from sample_models.build import Workspace
from sample_models.sample import CSV, Sample, csv_body

NAME = "breast-cancer-xgboost"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, labels = load_breast_cancer(return_X_y=True)
    model = XGBClassifier(n_estimators=30, max_depth=3, n_jobs=1, random_state=0)
    model.fit(rows, labels)
    model.save_model(model_dir / "model.json")
    request = rows[18:22]
    workspace.write(
        Sample(
            name=NAME,
            framework="xgboost",
            description="XGBoost, probability of benign",
            content_type=CSV,
            accept=CSV,
            body=csv_body(request),
            expected=model.predict_proba(request)[:, 1].astype(float).tolist(),
            tolerance=1e-6,
            model_dir=model_dir,
        )
    )

"""Diabetes: an XGBoost regressor, saved as UBJSON."""

from __future__ import annotations

from sklearn.datasets import load_diabetes
from xgboost import XGBRegressor

from sample_models.build import Workspace
from sample_models.sample import JSON, Sample, json_body

NAME = "diabetes-xgboost"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, progression = load_diabetes(return_X_y=True)
    model = XGBRegressor(n_estimators=40, max_depth=3, n_jobs=1, random_state=0)
    model.fit(rows, progression)
    model.save_model(model_dir / "model.ubj")
    request = rows[:3]
    workspace.write(
        Sample(
            name=NAME,
            framework="xgboost",
            description="XGBoost, progression of the disease after a year",
            content_type=JSON,
            accept=JSON,
            body=json_body(request, "inputs"),
            expected=model.predict(request).astype(float).tolist(),
            tolerance=1e-5,
            model_dir=model_dir,
        )
    )

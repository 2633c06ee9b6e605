"""Diabetes: ridge regression; the request is one flat row."""

from __future__ import annotations

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from sample_models.build import Workspace
from sample_models.sample import JSON, Sample, json_body

NAME = "diabetes-ridge"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, progression = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.1).fit(rows, progression)
    joblib.dump(model, model_dir / "model.joblib")
    request = rows[0]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="Ridge, progression of the disease after a year",
            content_type=JSON,
            accept=JSON,
            body=json_body(request),
            expected=model.predict(request.reshape(1, -1)).tolist(),
            tolerance=1e-6,
            model_dir=model_dir,
        )
    )

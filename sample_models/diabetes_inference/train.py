"""Diabetes: a Ridge with a code/inference.py that rounds its answers."""

from __future__ import annotations

import shutil
from pathlib import Path

import joblib
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from sample_models.build import Workspace
from sample_models.diabetes_inference.inference import ROUNDED_TO
from sample_models.sample import CSV, JSON, Sample, csv_body

NAME = "diabetes-inference"
PROGRAM = Path(__file__).with_name("inference.py")


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, progression = load_diabetes(return_X_y=True)
    model = Ridge(alpha=0.1).fit(rows, progression)
    joblib.dump(model, model_dir / "model.joblib")
    (model_dir / "code").mkdir()
    shutil.copyfile(PROGRAM, model_dir / "code" / PROGRAM.name)
    request = rows[:3]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="Ridge with functions of its own: answers in steps of five",
            content_type=CSV,
            accept=JSON,
            body=csv_body(request),
            expected=[ROUNDED_TO * round(float(s) / ROUNDED_TO) for s in model.predict(request)],
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

"""Diabetes: a model a group of patients, by sex and age band."""

from __future__ import annotations

from collections.abc import Iterator

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from sample_models.build import Workspace
from sample_models.sample import CSV, JSON, Sample, csv_body

AGE, SEX = 0, 1
AGE_BANDS = {"to-40": (0, 40), "41-to-55": (41, 55), "from-56": (56, 200)}

Floats = NDArray[np.float64]


def train(workspace: Workspace) -> None:
    for group, rows, progression in groups():
        name = f"diabetes-{group}"
        model_dir = workspace.new_model(name)
        model = Ridge(alpha=1.0).fit(rows, progression)
        joblib.dump(model, model_dir / "model.joblib")
        request = rows[:2]
        workspace.write(
            Sample(
                name=name,
                framework="scikit-learn",
                description=f"Ridge of {len(rows)} patients: {group}",
                content_type=CSV,
                accept=JSON,
                body=csv_body(request),
                expected=model.predict(request).tolist(),
                tolerance=1e-6,
                model_dir=model_dir,
            )
        )


def groups() -> Iterator[tuple[str, Floats, Floats]]:
    """Yield each group's name, its rows (n, 8) without sex and age, and their targets (n,)."""
    rows, progression = load_diabetes(return_X_y=True, scaled=False)
    for sex in (1, 2):
        for band, (youngest, oldest) in AGE_BANDS.items():
            age = rows[:, AGE]
            group = (rows[:, SEX] == sex) & (age >= youngest) & (age <= oldest)
            yield f"sex-{sex}-age-{band}", rows[group, 2:], progression[group]

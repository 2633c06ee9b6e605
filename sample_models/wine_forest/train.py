"""Wine: a random forest, as pickle writes it."""

from __future__ import annotations

import pickle

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from sample_models.build import Workspace
from sample_models.sample import CSV, Sample, csv_body

NAME = "wine-forest"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    rows, cultivars = load_wine(return_X_y=True)
    model = RandomForestClassifier(n_estimators=40, max_depth=6, random_state=0).fit(
        rows, cultivars
    )
    (model_dir / "model.pkl").write_bytes(pickle.dumps(model, protocol=5))
    request = rows[[0, 70, 150]]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="RandomForest, which of three cultivars",
            content_type=CSV,
            accept=CSV,
            body=csv_body(request),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

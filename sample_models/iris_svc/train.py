"""Iris: a support vector classifier whose answers are names."""

from __future__ import annotations

import pickle

from sklearn.datasets import load_iris
from sklearn.svm import SVC

from sample_models.build import Workspace
from sample_models.sample import CSV, Sample, csv_body

NAME = "iris-svc"


def train(workspace: Workspace) -> None:
    model_dir = workspace.new_model(NAME)
    iris = load_iris()
    model = SVC(random_state=0).fit(iris.data, iris.target_names[iris.target])
    (model_dir / "model.pickle").write_bytes(pickle.dumps(model, protocol=5))
    request = iris.data[[0, 60, 120]]
    workspace.write(
        Sample(
            name=NAME,
            framework="scikit-learn",
            description="SVC, which of three species, by name",
            content_type=CSV,
            accept=CSV,
            body=csv_body(request),
            expected=model.predict(request).tolist(),
            tolerance=0.0,
            model_dir=model_dir,
        )
    )

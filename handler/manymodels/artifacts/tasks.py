"""A model as its manymodels.json wants it: what it answers, its labels, its columns' names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.description import DESCRIPTION_FILE, ModelDescription
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.errors import ModelLoadError


def as_described(model: Model, description: ModelDescription) -> Model:
    """Return ``model`` with the description's feature names, class labels and task.

    Raises ModelLoadError where the two do not go together: it names the key and both sides.
    """
    if description.feature_names:
        model = _with_names(model, description.feature_names)
    if description.class_labels:
        model = _with_labels(model, np.asarray(description.class_labels))
    if description.task is not None:
        model = _TASKS[description.task](model)
    return model


def _with_names(model: Model, names: tuple[str, ...]) -> Model:
    columns = model.columns
    if columns.count is not None and columns.count != len(names):
        raise _misfit("feature_names", f"has {len(names)} names", f"takes {columns.count} features")
    if columns.frame and columns.names is not None and columns.names != names:
        raise _misfit("feature_names", "has others", "was trained on columns with their own names")
    return replace(model, columns=replace(columns, names=names, count=len(names)))


def _with_labels(model: Model, labels: NDArray[Any]) -> Model:
    if model.classes is None:
        raise _misfit("class_labels", f"has {len(labels)} labels", "is no classifier")
    if len(model.classes) != len(labels):
        raise _misfit("class_labels", f"has {len(labels)} labels", f"knows {len(model.classes)}")
    named = _renamed(model.labels or model.predict_rows, model.classes, labels)
    if model.labels is None:
        return replace(model, classes=labels, predict_rows=named)
    return replace(model, classes=labels, labels=named)


def _renamed(function: Predict, classes: NDArray[Any], labels: NDArray[Any]) -> Predict:
    order = np.argsort(classes)
    ordered = classes[order]

    def renamed(rows: Rows) -> NDArray[Any]:
        return np.asarray(labels[order[np.searchsorted(ordered, function(rows))]])

    return renamed


def _classification(model: Model) -> Model:
    if model.classes is None:
        raise _misfit("task", "is 'classification'", "is no classifier")
    if model.labels is None:
        return model
    return replace(model, predict_rows=model.labels, labels=None)


def _probability(model: Model) -> Model:
    if model.probabilities is None:
        raise _misfit("task", "is 'probability'", "has no probabilities")
    labels = model.labels or model.predict_rows
    return replace(model, predict_rows=model.probabilities, labels=labels)


def _regression(model: Model) -> Model:
    if model.classes is not None and model.labels is None:
        raise _misfit("task", "is 'regression'", "answers labels")
    return replace(model, classes=None, labels=None, probabilities=None, raw_scores=None)


_TASKS = {
    "classification": _classification,
    "probability": _probability,
    "regression": _regression,
}


def _misfit(key: str, described: str, model: str) -> ModelLoadError:
    return ModelLoadError(f"{DESCRIPTION_FILE}: {key!r} {described}, but the model {model}")

"""Several boosters as one model: the mean of what they predict, or the label most of them vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.libraries.booster import (
    Objective,
    booster_model,
    ensemble_answers,
    objective_of,
)
from manymodels.artifacts.libraries.objectives import VOTED
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.errors import ModelLoadError


def ensemble_model(members: Sequence[Model], names: Sequence[str]) -> Model:
    """Return boosters of the same features and kind of objective as one model.

    It predicts as AWS's XGBoost container does: the vote of boosters that predict labels (the
    lowest of equals), else the mean. Its raw scores are the mean of theirs, its probabilities the
    mean or the shares of the votes. Raises ModelLoadError, with the files' ``names``, for what
    has nothing in common.
    """
    boosters = [_as_booster(member, name) for member, name in zip(members, names, strict=True)]
    objectives = [objective_of(model.native) for model in boosters]
    _agree("number of features", [str(model.columns.count) for model in boosters], names)
    _agree("feature names", *_named(boosters, names))
    families = [objective.family for objective in objectives]
    shown = [f"{each.name} ({each.n_classes} classes)" for each in objectives]
    if len(set(families)) > 1:
        _agree("objective", shown, names)
    return _combined(boosters, objectives[0])


def _combined(boosters: Sequence[Model], objective: Objective) -> Model:
    first = next((model for model in boosters if model.columns.names), boosters[0])
    margins = _mean([model.raw_scores for model in boosters if model.raw_scores])
    if objective.name in VOTED and first.classes is not None:
        votes = _shares([model.predict_rows for model in boosters], len(first.classes))
        predict: Predict = lambda rows: votes(rows).argmax(axis=1).astype(np.float32)  # noqa: E731
        found = replace(ensemble_answers(objective, predict, margins), probabilities=votes)
    else:
        predict = _mean([model.predict_rows for model in boosters])
        found = ensemble_answers(objective, predict, margins)
    return replace(
        first,
        kind="Ensemble",
        predict_rows=predict,
        native=[model.native for model in boosters],
        classes=found.classes,
        labels=found.labels,
        probabilities=found.probabilities,
        raw_scores=found.raw_scores,
        origin={**first.origin, "members": str(len(boosters))},
    )


def _as_booster(member: Model, name: str) -> Model:
    """Return a member as a Booster predicts: an estimator's labels have no mean."""
    native = member.native
    if member.framework != "xgboost" or native is None:
        raise ModelLoadError(
            f"{name} holds a {member.kind}; models that answer together must all be XGBoost's"
        )
    if not hasattr(native, "get_booster"):
        return member
    if not np.isnan(native.missing):
        raise ModelLoadError(
            f"{name} takes {native.missing} for a missing value, which an ensemble cannot; "
            "save its Booster"
        )
    return booster_model(native.get_booster())


def _agree(what: str, values: Sequence[str], names: Sequence[str]) -> None:
    for value, name in zip(values, names, strict=True):
        if value != values[0]:
            raise ModelLoadError(
                f"models that answer together must have the same {what}: "
                f"{names[0]} has {values[0]}, {name} has {value}"
            )


def _named(boosters: Sequence[Model], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the feature names of the boosters that have them, and those boosters' files."""
    pairs = zip(boosters, names, strict=True)
    known = [(str(model.columns.names), name) for model, name in pairs if model.columns.names]
    return [columns for columns, _ in known], [name for _, name in known]


def _mean(functions: Sequence[Predict]) -> Predict:
    def mean(rows: Rows) -> NDArray[Any]:
        return np.asarray(np.mean([function(rows) for function in functions], axis=0))

    return mean


def _shares(functions: Sequence[Predict], n_classes: int) -> Predict:
    """Return what part of the votes each class has, shape (n_rows, n_classes)."""

    def shares(rows: Rows) -> NDArray[Any]:
        votes = np.asarray([function(rows) for function in functions])
        return np.asarray((votes[:, :, None] == np.arange(n_classes)).mean(axis=0))

    return shares

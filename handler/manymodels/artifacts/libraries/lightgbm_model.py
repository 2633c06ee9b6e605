"""LightGBM: its text files, Boosters from elsewhere, and the estimators around them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from manymodels.artifacts.libraries import estimator as estimators
from manymodels.artifacts.libraries import objectives
from manymodels.artifacts.libraries.categories import Categories, text_positions, with_categories
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.artifacts.provenance import running
from manymodels.content import Columns

_NO_NAME = re.compile(r"Column_\d+")


def load_lightgbm(path: Path, threads: int | None = None) -> Model:
    """Return the model of a LightGBM text file; LightGBMError if it is none."""
    import lightgbm

    text = path.read_text()
    booster = lightgbm.Booster(model_str=text)
    version = re.search(r"^version=(\w+)", text[:200], re.MULTILINE)
    origin = {"running": running("lightgbm")}
    if version:
        origin["written_by"] = f"lightgbm, model format {version[1]}"
    return booster_model(booster, threads, origin)


def booster_model(
    booster: Any, threads: int | None = None, origin: dict[str, str] | None = None
) -> Model:
    """Return a Booster as a model: it predicts what its objective says, often probabilities."""
    objective, n_classes = _objective(booster)
    categories = _categories(booster)

    def of(**options: Any) -> Predict:
        def predict(rows: Rows) -> Any:
            if categories:
                rows = with_categories(rows, categories, strict=False)
            return booster.predict(rows, num_threads=threads or 0, **options)

        return predict

    predict, margins = of(), of(raw_score=True)
    found = objectives.answers(objectives.LIGHTGBM, objective, n_classes, predict, margins)
    return Model(
        "lightgbm",
        type(booster).__name__,
        _columns(booster, categories),
        predict,
        booster,
        found.classes,
        found.labels,
        found.probabilities,
        found.raw_scores,
        {**(origin or {}), "objective": objective},
    )


def estimator_model(estimator: Any, holder: str, threads: int | None = None) -> Model:
    """Return an LGBMClassifier, LGBMRegressor or LGBMRanker as a model: it predicts as itself."""
    estimator.n_jobs = threads or 1
    model = estimators.estimator_model(estimator, holder)
    booster = estimator.booster_
    origin = {**model.origin, "objective": _objective(booster)[0]}
    categories = _categories(booster)
    columns = replace(model.columns, names=model.columns.names or _names(booster))
    if not categories:
        return replace(model, columns=replace(columns, numbers=True), origin=origin)

    def framed(function: Predict) -> Predict:
        return lambda rows: function(with_categories(rows, categories, strict=False))

    return replace(
        model,
        columns=replace(columns, frame=True, text=text_positions(categories)),
        predict_rows=framed(estimator.predict),
        probabilities=framed(estimator.predict_proba) if model.probabilities else None,
        origin=origin,
    )


def _columns(booster: Any, categories: Categories) -> Columns:
    names = _names(booster)
    if categories:
        text = text_positions(categories)
        return Columns(booster.num_feature(), names, frame=True, text=text)
    return Columns(booster.num_feature(), names, numbers=True)


def _names(booster: Any) -> tuple[str, ...] | None:
    names = tuple(booster.feature_name())
    # Where training gave none, LightGBM numbers them.
    return None if all(_NO_NAME.fullmatch(name) for name in names) else names


def _objective(booster: Any) -> tuple[str, int]:
    """Return the objective's name and the number of classes, 1 for two or none."""
    described = booster.dump_model(num_iteration=1)
    name, _, _ = str(described.get("objective", "custom")).partition(" ")
    return name, int(described["num_class"])


def _categories(booster: Any) -> Categories:
    """Return the trained categories of the columns that were pandas categories."""
    trained = booster.pandas_categorical or []
    if not trained:
        return {}
    params = booster.params
    columns = params.get("categorical_feature", params.get("categorical_column"))
    infos = booster.dump_model(num_iteration=1)["feature_infos"]
    if not isinstance(columns, list) or len(columns) != len(trained):
        names = booster.feature_name()
        columns = [names.index(name) for name, info in infos.items() if info["values"]]
    return dict(zip(columns, trained, strict=False))

"""XGBoost: its own files, Boosters from elsewhere, and the estimators around them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import xgboost

from manymodels.artifacts.libraries import objectives
from manymodels.artifacts.libraries.categories import Categories, text_positions, with_categories
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.artifacts.provenance import mismatch, running, xgboost_version
from manymodels.artifacts.shortcuts.boosting import booster_predict, estimator_predict
from manymodels.content import Columns
from manymodels.errors import ModelLoadError

_LAST_WITH_BINARY = "3.0.5"
_FIRST_WITHOUT_BINARY = (3, 1)
_STRINGS = "offsets"
_VERSION_WITHIN = 256


@dataclass(frozen=True)
class Objective:
    """What a booster was trained for."""

    name: str
    n_classes: int
    n_targets: int

    @property
    def family(self) -> tuple[str, int, int]:
        """What boosters must have in common for their predictions to be averaged."""
        group, _, _ = self.name.partition(":")
        alike = group if group not in ("binary", "multi") else self.name
        return alike, self.n_classes, self.n_targets


def load_booster(path: Path, threads: int | None = None) -> Model:
    """Return the model of an XGBoost .json or .ubj file; XGBoostError if it is none."""
    content = bytearray(path.stat().st_size)
    with path.open("rb") as file:
        file.readinto(content)
    booster = xgboost.Booster()
    # From memory XGBoost goes by what is in it, from a file by its name.
    booster.load_model(content)
    ends = bytes(content[:_VERSION_WITHIN]) + bytes(content[-_VERSION_WITHIN:])
    return booster_model(booster, threads, _origin(path, xgboost_version(ends)))


def load_old_booster(path: Path, threads: int | None = None) -> Model:
    """Return the model of a file in the format before JSON.

    Raises ModelLoadError, which says how to convert it, where XGBoost reads it no more.
    """
    if _version() >= _FIRST_WITHOUT_BINARY:
        raise ModelLoadError(
            f"{path.name} is in XGBoost's old binary format, which XGBoost reads up to "
            f"{_LAST_WITH_BINARY}, and {running('xgboost')} is here; convert it once: "
            f'pip install xgboost=={_LAST_WITH_BINARY} && python -c "import xgboost; b = '
            f"xgboost.Booster(); b.load_model('{path.name}'); b.save_model('model.ubj')\""
        )
    return load_booster(path, threads)


def booster_model(
    booster: Any, threads: int | None = None, origin: dict[str, str] | None = None
) -> Model:
    """Return a Booster as a model: it predicts what its objective says, often probabilities."""
    # As many threads as the process may use, whatever the model was trained with.
    booster.set_param({"nthread": threads or 0})
    categories = _categories(booster)
    predict, margins = booster_predict(booster), _margins(booster)
    if categories:
        predict, margins = _framed(predict, categories), _framed(margins, categories)
    objective = objective_of(booster)
    found = _answers(objective, predict, margins)
    return Model(
        "xgboost",
        type(booster).__name__,
        _columns(booster, categories),
        predict,
        booster,
        found.classes,
        found.labels,
        found.probabilities,
        found.raw_scores,
        {**(origin or {}), "objective": objective.name},
    )


def estimator_model(estimator: Any, holder: str, threads: int | None = None) -> Model:
    """Return an XGBClassifier, XGBRegressor or XGBRanker as a model: it predicts as itself.

    ``holder`` begins the ModelLoadError for one that was not fitted.
    """
    if not estimator.__sklearn_is_fitted__():
        raise ModelLoadError(f"{holder} an {type(estimator).__name__} that was not fitted")
    booster = estimator.get_booster()
    booster.set_param({"nthread": threads or 0})
    estimator.n_jobs = threads or 0
    categories = _categories(booster)
    objective = objective_of(booster)
    classes = getattr(estimator, "classes_", None) if objective.n_targets == 1 else None

    def of(method: str, **options: Any) -> Predict | None:
        function = getattr(estimator, method, None)
        if function is None or (classes is None and method != "predict"):
            return None
        return _framed(_unvalidated(function, **options), categories)

    predict = None if categories else estimator_predict(estimator)
    columns = _columns(booster, categories)
    if columns.names and not type(estimator).__module__.startswith("xgboost."):
        # Somebody's own methods may ask for columns by name.
        columns = replace(columns, numbers=False, frame=True)
    return Model(
        "xgboost",
        type(estimator).__name__,
        columns,
        predict or of("predict") or estimator.predict,
        estimator,
        None if classes is None else np.asarray(classes),
        probabilities=of("predict_proba"),
        raw_scores=None if classes is None else of("predict", output_margin=True),
        origin={"objective": objective.name},
    )


def objective_of(booster: Any) -> Objective:
    """Return what a booster was trained for."""
    learner = orjson.loads(booster.save_config())["learner"]
    parameters = learner["learner_model_param"]
    return Objective(
        learner["objective"]["name"],
        int(parameters["num_class"]),
        int(parameters.get("num_target", 1)),
    )


def _answers(objective: Objective, predict: Predict, margins: Predict) -> objectives.Answers:
    if objective.n_targets > 1:
        return objectives.Answers()
    return objectives.answers(
        objectives.XGBOOST, objective.name, objective.n_classes, predict, margins
    )


def ensemble_answers(
    objective: Objective, predict: Predict, margins: Predict
) -> objectives.Answers:
    """Return what boosters of one objective answer together, from what they predict together."""
    return _answers(objective, predict, margins)


def _columns(booster: Any, categories: Categories) -> Columns:
    return Columns(
        booster.num_features(),
        booster.feature_names and tuple(booster.feature_names),
        numbers=not categories,
        frame=bool(categories),
        text=text_positions(categories) if categories else frozenset(),
        absent_is_missing=True,
    )


def _margins(booster: Any) -> Predict:
    best = booster.attr("best_iteration")
    trees = (0, 0) if best is None else (0, int(best) + 1)

    def margins(rows: Rows) -> Any:
        matrix = xgboost.DMatrix(rows, enable_categorical=True)
        return booster.predict(
            matrix, output_margin=True, iteration_range=trees, validate_features=False
        )

    return margins


def _unvalidated(function: Callable[..., Any], **options: Any) -> Predict:
    """Call a method with rows whose columns are in order, though they may have no names."""
    if "validate_features" not in inspect.signature(function).parameters:
        return lambda rows: function(rows, **options)  # a subclass's own
    return lambda rows: function(rows, validate_features=False, **options)


def _framed(predict: Predict, categories: Categories) -> Predict:
    if not categories:
        return predict
    return lambda rows: predict(with_categories(rows, categories, strict=True))


def _categories(booster: Any) -> Categories:
    """Return the trained categories, which XGBoost keeps since 3.1; before it took their codes."""
    if "c" not in (booster.feature_types or ()) or _version() < (3, 1):
        return {}
    learner = orjson.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    model = learner.get("model") or learner.get("gbtree", {}).get("model", {})
    found = {
        position: _trained(encoding)
        for position, encoding in enumerate(model.get("cats", {}).get("enc", ()))
    }
    return {position: values for position, values in found.items() if values}


def _trained(encoding: dict[str, Any]) -> list[Any]:
    values = encoding.get("values", [])
    if _STRINGS not in encoding:
        return list(values)
    text, offsets = bytes(byte % 256 for byte in values), encoding[_STRINGS]
    return [text[start:end].decode() for start, end in itertools.pairwise(offsets)]


def _origin(path: Path, version: str | None) -> dict[str, str]:
    here = running("xgboost")
    if version is None:
        return {"running": here}
    if tuple(int(part) for part in version.split(".")[:2]) > _version():
        return mismatch(path, f"xgboost {version}", "xgboost")  # older ones are read as they are
    return {"written_by": f"xgboost {version}", "running": here}


def _version() -> tuple[int, int]:
    major, minor = xgboost.__version__.split(".")[:2]
    return int(major), int(minor)

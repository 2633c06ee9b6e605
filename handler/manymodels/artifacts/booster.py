"""XGBoost's own files: a Booster, without the scikit-learn wrapper around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import xgboost

from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.content import Columns


def load_booster(path: Path) -> Model:
    """Return the model of an XGBoost .json or .ubj file; XGBoostError if it is none."""
    booster = xgboost.Booster()
    booster.load_model(path)
    return booster_model(booster)


def booster_model(booster: Any) -> Model:
    """Return a Booster as a model: it predicts what its objective says, often probabilities."""
    # As many threads as the process may use, whatever the model was trained with.
    booster.set_param({"nthread": 0})
    names = booster.feature_names
    columns = Columns(booster.num_features(), names and tuple(names), numbers=True)
    return Model("xgboost", type(booster).__name__, columns, _predict(booster), booster)


def _predict(booster: Any) -> Predict:
    trees = _trees_to_use(booster)
    config = orjson.loads(booster.save_config())
    if config["learner"]["gradient_booster"]["name"] == "gblinear":
        # Linear boosters have no prediction in place, and no trees to choose from.
        return lambda rows: booster.predict(
            xgboost.DMatrix(rows, nthread=0), validate_features=False
        )

    def predict(rows: Rows) -> Any:
        return booster.inplace_predict(rows, iteration_range=trees, validate_features=False)

    return predict


def _trees_to_use(booster: Any) -> tuple[int, int]:
    """Up to the best round where training stopped early, as XGBoost's own estimators do."""
    best = booster.attr("best_iteration")
    return (0, 0) if best is None else (0, int(best) + 1)

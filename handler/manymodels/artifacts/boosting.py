"""XGBoost's predictions without what its wrappers do anew for each call."""

from __future__ import annotations

from typing import Any

import orjson
import xgboost

from manymodels.artifacts.model import Predict, Rows


def booster_predict(booster: Any) -> Predict:
    """Return an equal of ``booster.predict`` for float64 arrays, CSR matrices and DataFrames."""
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


def estimator_predict(estimator: Any) -> Predict | None:
    """Return an equal of ``estimator.predict``, or None if there is none."""
    return None


def _trees_to_use(booster: Any) -> tuple[int, int]:
    """Up to the best round where training stopped early, as XGBoost's own estimators do."""
    best = booster.attr("best_iteration")
    return (0, 0) if best is None else (0, int(best) + 1)

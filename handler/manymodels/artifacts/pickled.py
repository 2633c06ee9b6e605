"""Pickles: scikit-learn's estimators, and any object with their ``predict``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib

from manymodels.artifacts.model import Model
from manymodels.content import Columns
from manymodels.errors import ModelLoadError

_FRAMEWORKS = {"sklearn": "scikit-learn"}


def load_pickle(path: Path) -> Model:
    """Return the model pickled in ``path`` by joblib or pickle.

    Raises ModelLoadError when the object in it does not predict, and whatever unpickling raises.
    """
    estimator = joblib.load(path)
    kind = type(estimator).__name__
    if not callable(getattr(estimator, "predict", None)):
        raise ModelLoadError(f"{path.name} holds a {kind}, which has no predict method")
    if _is_xgboost(estimator, "Booster"):
        from manymodels.artifacts.booster import booster_model

        return booster_model(estimator)
    if _is_xgboost(estimator, "XGBModel"):
        estimator.get_booster().set_param({"nthread": 0})
        return Model("xgboost", kind, _columns(estimator), estimator.predict, estimator)
    framework, columns, predict = _framework(estimator), _columns(estimator), estimator.predict
    if framework == "scikit-learn":
        from manymodels.artifacts.linear import linear_predict

        if linear := linear_predict(estimator):
            predict, columns = linear, replace(columns, numbers=True)
    return Model(framework, kind, columns, predict, estimator)


def _is_xgboost(estimator: Any, class_name: str) -> bool:
    # Unpickling one has imported the library; asking must not import it for everything else.
    xgboost = sys.modules.get("xgboost")
    return xgboost is not None and isinstance(estimator, getattr(xgboost, class_name))


def _framework(estimator: Any) -> str:
    package = type(estimator).__module__.partition(".")[0]
    return _FRAMEWORKS.get(package, package)


def _columns(estimator: Any) -> Columns:
    count = getattr(estimator, "n_features_in_", None)
    names = getattr(estimator, "feature_names_in_", None)
    return Columns(
        count=None if count is None else int(count),
        names=None if names is None else tuple(str(name) for name in names),
        frame=names is not None,
    )

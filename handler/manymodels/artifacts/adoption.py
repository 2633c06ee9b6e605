"""An object that a library made, or a user's model_fn returned, becomes a model."""

from __future__ import annotations

import sys
from typing import Any

from manymodels.artifacts.description import ModelDescription
from manymodels.artifacts.model import Model
from manymodels.artifacts.tasks import as_described


def adopt(native: object, description: ModelDescription | None = None) -> Model:
    """Return any object that predicts as a model: an estimator, a Booster, an ONNX session.

    Raises ModelLoadError for an object that does not predict, or not as ``description`` says.
    """
    described = description or ModelDescription()
    return as_described(native_model(native, "model_fn returned", described), described)


def native_model(native: Any, holder: str, description: ModelDescription) -> Model:
    """Return ``native`` as a model of its library; ``holder`` begins the message if it is none."""
    threads = description.threads
    if isinstance(native, Model):
        return native
    if _is_of("xgboost", "Booster", native):
        from manymodels.artifacts.libraries import booster

        return booster.booster_model(native, threads)
    if _is_of("xgboost", "XGBModel", native):
        from manymodels.artifacts.libraries import booster

        return booster.estimator_model(native, holder, threads)
    if _is_of("lightgbm", "Booster", native):
        from manymodels.artifacts.libraries import lightgbm_model

        return lightgbm_model.booster_model(native, threads)
    if _is_of("lightgbm", "LGBMModel", native):
        from manymodels.artifacts.libraries import lightgbm_model

        return lightgbm_model.estimator_model(native, holder, threads)
    if _is_of("onnxruntime", "InferenceSession", native):
        from manymodels.artifacts.libraries import onnx_model

        return onnx_model.session_model(native, holder, description.class_labels)
    from manymodels.artifacts.libraries import estimator

    return estimator.estimator_model(native, holder)


def _is_of(library: str, class_name: str, native: Any) -> bool:
    # Whoever made one has imported the library; asking must not import it for everything else.
    module = sys.modules.get(library)
    known = getattr(module, class_name, None)
    return known is not None and isinstance(native, known)

"""A model's life in a worker: loaded once, then asked."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manymodels.artifacts import Model
from manymodels.errors import ModelLoadError
from manymodels.service.failure import failure
from manymodels.service.generic import GenericAnswers
from manymodels.service.loading import Loaded, load
from manymodels.service.user import UserAnswers
from manymodels.settings import HandlerSettings

logger = logging.getLogger(__name__)


class ModelService:
    """One loaded model, and how its requests become answers."""

    def __init__(self) -> None:
        self._answers: GenericAnswers | UserAnswers | None = None

    def initialize(self, context: Any) -> None:
        """Load the model of the context's ``model_dir``.

        Raises:
            ModelLoadError, SettingsError: why it cannot be loaded.
            Exception: what the model's own code, or unpickling it, raises.
        """
        settings = HandlerSettings.from_environment(os.environ)
        loaded = load(Path(context.system_properties["model_dir"]), settings, context)
        self._answers = _answers(loaded, settings)
        logger.info("model %s is %s", context.model_name, loaded.summary)

    def handle(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body a request; a request that fails gets its own status, type and body."""
        if self._answers is None:
            error = ModelLoadError("the model is not loaded")
            return [failure(index, error, context) for index in range(len(data))]
        return self._answers.answer(data, context)


def describe(model_dir: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """Load a model as `ModelService.initialize` does, and return what it is, for people."""
    loaded = load(model_dir.absolute(), HandlerSettings.from_environment(variables), None)
    return _described(loaded.model) | (
        {"functions": list(loaded.functions.names)} if loaded.functions else {}
    )


def _answers(loaded: Loaded, settings: HandlerSettings) -> GenericAnswers | UserAnswers:
    functions = loaded.functions
    if functions is not None and any(name in functions for name in UserAnswers.STEPS):
        return UserAnswers(loaded, functions, settings)
    assert loaded.model is not None
    return GenericAnswers(loaded.model, loaded.description, settings)


def _described(model: Model | None) -> dict[str, Any]:
    if model is None:
        return {}
    columns = model.columns
    fields = {
        "framework": model.framework,
        "kind": model.kind,
        "features": columns.count,
        "feature_names": columns.names and list(columns.names),
        "takes": "numbers" if columns.numbers else "a DataFrame" if columns.frame else "an array",
        "text_columns": sorted(columns.text),
        "classes": None if model.classes is None else model.classes.tolist(),
        **model.origin,
    }
    return {name: value for name, value in fields.items() if value not in (None, [])}

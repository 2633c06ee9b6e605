"""The Multi Model Server handler service: ``handle(data, context)``.

It works in a stock MMS worker and under sagemaker-inference too, so it knows of them only what
MMS's Context offers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manymodels.artifacts.own_code import loaded_modules, user_code
from manymodels.service.model_service import ModelService, describe

__all__ = ["ModelService", "describe", "handle", "prepare"]

_service = ModelService()


def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model when MMS calls without data, else answer the requests in ``data``."""
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)


def prepare() -> None:
    """Do once, before processes are forked, what each load would do for itself."""
    import manymodels.artifacts.own_code.requirements_file  # noqa: F401

    loaded_modules.remember()
    user_code.rehearse()

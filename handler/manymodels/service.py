"""The Multi Model Server handler service: ``handle(data, context)``.

It works in a stock MMS worker too, so it knows of MMS only what its Context offers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson

from manymodels import artifacts, content
from manymodels.errors import (
    ManyModelsError,
    ModelLoadError,
    UnsupportedMediaType,
    error_body,
)

logger = logging.getLogger(__name__)


class ModelService:
    """One loaded model, and how its requests become answers."""

    def __init__(self, default_accept: str = content.JSON) -> None:
        self._default_accept = default_accept
        self._model: artifacts.Model | None = None

    def initialize(self, context: Any) -> None:
        """Load the model of the context's ``model_dir``; ModelLoadError and MemoryError pass."""
        self._model = artifacts.load(Path(context.system_properties["model_dir"]))

    def handle(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body a request; a request that fails gets its own status, type and body.

        MemoryError passes, whichever request it hits: it is the process that has run out.
        """
        return [self._answer(index, item, context) for index, item in enumerate(data)]

    def _answer(self, index: int, item: Mapping[str, Any], context: Any) -> bytes:
        try:
            body, media_type = self._predict(item, context.get_all_request_header(index))
        except MemoryError:
            raise
        except ManyModelsError as error:
            return _failure(index, error.status, error, context)
        except Exception as error:
            logger.exception(
                "model %s failed on request %s", context.model_name, context.get_request_id(index)
            )
            return _failure(index, HTTPStatus.INTERNAL_SERVER_ERROR, error, context)
        context.set_response_content_type(index, media_type)
        return body

    def _predict(self, item: Mapping[str, Any], headers: Mapping[str, Any]) -> tuple[bytes, str]:
        if self._model is None:
            raise ModelLoadError("the model is not loaded")
        if "body" not in item:
            raise UnsupportedMediaType(
                "the request came as a form or in parts, without a body of its own: "
                f"send the rows as the body, with Content-Type {content.CSV} or {content.JSON}"
            )
        content_type, accept = _content_headers(headers)
        media_type = content.negotiate(accept, self._default_accept)
        rows = content.decode(item["body"], content_type, self._model.columns)
        return content.encode(self._model.predict(rows), media_type), media_type


def _content_headers(headers: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return Content-Type (JSON if there is none) and Accept, whatever case they came in."""
    content_type, accept = content.JSON, None
    for name, value in headers.items():
        # MMS keeps the parameters among the headers, each with a dict for a value.
        if isinstance(value, str):
            lowered = name.lower()
            if lowered == "content-type":
                content_type = value or content_type
            elif lowered == "accept":
                accept = value
    return content_type, accept


def _failure(index: int, status: int, error: Exception, context: Any) -> bytes:
    context.set_response_status(int(status), HTTPStatus(status).phrase, index)
    context.set_response_content_type(index, content.JSON)
    message = str(error).encode(errors="replace").decode()  # a lone surrogate is not JSON
    return orjson.dumps(error_body(int(status), type(error).__name__, message))


_service = ModelService()


def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model when MMS calls without data, else answer the requests in ``data``."""
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)

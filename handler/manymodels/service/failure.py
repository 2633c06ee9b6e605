"""What a request that failed is answered, and what the log says of it."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

import orjson

from manymodels.artifacts.own_code.outcome import status_of
from manymodels.content import JSON
from manymodels.errors import error_body

logger = logging.getLogger(__name__)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def failure(index: int, error: Exception, context: Any) -> bytes:
    """Set the status of one request's error, log it if it is not the client's, return its body."""
    status, type_name, message = status_of(error)
    if status >= 500:
        logger.error(
            "model %s failed on request %s",
            context.model_name,
            context.get_request_id(index),
            exc_info=error,
        )
    context.set_response_status(status, _PHRASES.get(status, ""), index)
    context.set_response_content_type(index, JSON)
    text = message.encode(errors="replace").decode()  # a lone surrogate is not JSON
    return orjson.dumps(error_body(status, type_name, text))

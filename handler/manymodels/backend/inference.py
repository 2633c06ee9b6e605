"""One batch through one handler: a Predict message in, a prediction a request out.

A handler is called as a stock MMS worker calls it. What it raises becomes an answer to every
request of the batch; nothing it does keeps a client waiting.
"""

from __future__ import annotations

import http
import json
import logging
import re
from collections.abc import Sequence
from typing import Any

from mms.context import RequestProcessor
from mms.metrics.metrics_store import MetricsStore
from mms.service import PredictionException

from manymodels.backend.handlers import Handler
from manymodels.errors import BadRequest, ManyModelsError, error_body
from manymodels.wire import Parameter, Prediction, Request

_PHRASES = {status.value: status.phrase for status in http.HTTPStatus}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
logger = logging.getLogger(__name__)


class InvalidOutput(ManyModelsError):
    """The handler returned, or set, what cannot be sent."""

    status = 503


class Inference:
    """Runs batches through a loaded handler.

    Args:
        handler: what to call.
        decode_input: parse JSON bodies and decode text ones first, as MMS does by default.
        response_bytes: the most that one response's body may have.
    """

    def __init__(self, handler: Handler, decode_input: bool, response_bytes: int) -> None:
        self._entry_point, self.context = handler
        self._decode_input = decode_input
        self._response_bytes = response_bytes

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer every request of a batch by one call of the handler. Never raises."""
        try:
            outputs = self._call(requests)
        # A handler's sys.exit() must not end the process either.
        except BaseException as error:
            return _failed(requests, error)
        return [
            self._prediction(index, request, output)
            for index, (request, output) in enumerate(zip(requests, outputs, strict=True))
        ]

    def _call(self, requests: Sequence[Request]) -> list[Any]:
        context = self.context
        ids = {index: request.request_id for index, request in enumerate(requests)}
        context.request_ids = ids
        context.request_processor = [_processor(request) for request in requests]
        context.metrics = MetricsStore(ids, context.model_name)
        inputs = [{p.name: self._value(p) for p in request.parameters} for request in requests]
        outputs = self._entry_point(inputs, context)
        if not isinstance(outputs, list):
            raise InvalidOutput(
                f"Invalid model predict output: a list is needed, not {type(outputs).__name__}"
            )
        if len(outputs) != len(requests):
            raise InvalidOutput(
                f"number of batch response mismatched: {len(requests)} requests, "
                f"{len(outputs)} responses"
            )
        return outputs

    def _value(self, parameter: Parameter) -> Any:
        # Handlers of the stock worker are given, and may test for, a bytearray.
        if not self._decode_input:
            return bytearray(parameter.value)
        try:
            if parameter.content_type == "application/json":
                return json.loads(parameter.value)
            if parameter.content_type.startswith("text"):
                return parameter.value.decode()
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{parameter.name}: not {parameter.content_type}: {error}") from error
        return bytearray(parameter.value)

    def _prediction(self, index: int, request: Request, output: Any) -> Prediction:
        try:
            return self._sendable(index, request, _body(output))
        except Exception as error:
            return _failure(request, error)

    def _sendable(self, index: int, request: Request, body: bytes) -> Prediction:
        if len(body) > self._response_bytes:
            raise InvalidOutput(
                f"the response has {len(body)} bytes; {self._response_bytes} are possible "
                "(MMS_MAX_RESPONSE_SIZE)"
            )
        processor = self.context.request_processor[index]
        status, phrase = (
            processor.get_response_status_code(),
            processor.get_response_status_phrase(),
        )
        status = 200 if status is None else status
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise InvalidOutput(f"the handler set the status {status!r}")
        headers = processor.get_response_headers()
        content_type = headers.get("content-type") or ""
        extra = (
            {str(k): str(v) for k, v in headers.items() if k != "content-type"}
            if len(headers) > bool(content_type)
            else {}
        )
        _check_headers(content_type, extra)
        phrase = _UNSENDABLE.sub(" ", phrase) if phrase else _PHRASES.get(status, "")
        return Prediction(request.request_id, body, content_type, status, phrase, extra)


def refusal(
    requests: Sequence[Request], status: int, type_name: str, message: str
) -> list[Prediction]:
    """Answer every request with one error."""
    body = json.dumps(error_body(status, type_name, message), indent=2).encode() + b"\n"
    return [
        Prediction(r.request_id, body, "application/json", status, _PHRASES.get(status, ""))
        for r in requests
    ]


def _processor(request: Request) -> Any:
    """The request's headers as the stock worker hands them out, a parameter's type by its name."""
    properties: dict[str, Any] = {
        p.name: {"content-type": p.content_type} for p in request.parameters
    }
    properties.update(request.headers)
    return RequestProcessor(properties)


def _body(output: Any) -> bytes:
    if isinstance(output, bytes | bytearray):
        return bytes(output)
    if isinstance(output, str):
        return output.encode()
    try:
        return json.dumps(output, indent=2).encode()
    except TypeError as error:
        raise InvalidOutput(f"Unsupported model output data type: {error}") from error


def _check_headers(content_type: str, headers: dict[str, str]) -> None:
    """The frontend drops the connection on a header that cannot be one."""
    for name, value in (("content-type", content_type), *headers.items()):
        if not _TOKEN.fullmatch(name) or _UNSENDABLE.search(value):
            raise InvalidOutput(f"the handler set the header {name!r} to {value!r}")


def _failed(requests: Sequence[Request], error: BaseException) -> list[Prediction]:
    ids = ", ".join(request.request_id for request in requests)
    status, type_name, message = _outcome(error)
    if status < 500:
        logger.info("request %s is answered %d: %s", ids, status, message)
    else:
        logger.error("prediction failed (request %s)", ids, exc_info=error)
    return refusal(requests, status, type_name, message)


def _failure(request: Request, error: Exception) -> Prediction:
    return _failed([request], error)[0]


def _outcome(error: BaseException) -> tuple[int, str, str]:
    """Return the status, type and message that answer an exception."""
    if isinstance(error, PredictionException):
        status = getattr(error, "error_code", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            status = 500
        return status, type(error).__name__, _words(getattr(error, "message", error))
    if isinstance(error, MemoryError):
        return 507, "OutOfMemory", "Out of resources"
    if isinstance(error, ManyModelsError):
        return error.status, type(error).__name__, error.message
    return 500, type(error).__name__, f"{type(error).__name__}: {_words(error)}"


def _words(thing: object) -> str:
    """Return str(thing); a handler's exception may fail even there."""
    try:
        return str(thing)
    except Exception:
        return "it cannot be put into words"

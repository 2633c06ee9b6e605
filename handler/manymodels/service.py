"""The Multi Model Server handler service: ``handle(data, context)``.

It works in a stock MMS worker and under sagemaker-inference too, so it knows of them only what
MMS's Context offers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from manymodels import artifacts, content
from manymodels.artifacts.batch import predict_each
from manymodels.artifacts.outputs import parse_outputs, select
from manymodels.errors import (
    BadRequest,
    ManyModelsError,
    ModelLoadError,
    OutOfMemory,
    SettingsError,
    UnsupportedMediaType,
    error_body,
)
from manymodels.settings import HandlerSettings

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
OUTPUT_VARIABLE = "SAGEMAKER_INFERENCE_OUTPUT"
logger = logging.getLogger(__name__)


class Question(NamedTuple):
    """A request as it was understood: the model's rows, and how it is to be answered."""

    rows: Any
    media_type: str
    outputs: tuple[str, ...]


class ModelService:
    """One loaded model, and how its requests become answers."""

    def __init__(self) -> None:
        self._settings = HandlerSettings()
        self._outputs: tuple[str, ...] = ()
        self._model: artifacts.Model | None = None

    def initialize(self, context: Any) -> None:
        """Load the model of the context's ``model_dir``; ModelLoadError and MemoryError pass."""
        self._settings = HandlerSettings.from_environment(os.environ)
        self._outputs = _outputs_of_all(self._settings.outputs)
        self._model = artifacts.load(Path(context.system_properties["model_dir"]))

    def handle(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body a request; a request that fails gets its own status, type and body."""
        answers: list[bytes] = [b""] * len(data)
        asked: dict[tuple[str, ...], dict[int, Question]] = {}
        for index, item in enumerate(data):
            try:
                question = self._read(item, context.get_all_request_header(index))
            except Exception as error:
                answers[index] = _failure(index, error, context)
            else:
                asked.setdefault(question.outputs, {})[index] = question
        for outputs, questions in asked.items():
            for index, answer in self._answers(outputs, questions, context):
                answers[index] = answer
        return answers

    def _read(self, item: Mapping[str, Any], headers: Mapping[str, Any]) -> Question:
        if self._model is None:
            raise ModelLoadError("the model is not loaded")
        if "body" not in item:
            raise UnsupportedMediaType(
                "the request came as a form or in parts, without a body of its own: "
                f"send the rows as the body, with Content-Type {content.CSV} or {content.JSON}"
            )
        asked = _Headers.of(headers)
        outputs = self._outputs if asked.attributes is None else _outputs_of(asked.attributes)
        media_type = content.negotiate(asked.accept, self._settings.default_accept)
        rows = content.decode(item["body"], asked.content_type, self._model.columns)
        return Question(rows, media_type, self._outputs if outputs is None else outputs)

    def _answers(
        self, outputs: tuple[str, ...], questions: Mapping[int, Question], context: Any
    ) -> list[tuple[int, bytes]]:
        model = self._model
        assert model is not None

        def predict(rows: Any) -> list[Any]:
            return select(model, rows, outputs) if outputs else [model.predict(rows)]

        outcomes = predict_each(predict, [question.rows for question in questions.values()])
        return [
            (index, self._encoded(index, question, outcome, context))
            for (index, question), outcome in zip(questions.items(), outcomes, strict=True)
        ]

    def _encoded(self, index: int, question: Question, outcome: Any, context: Any) -> bytes:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            body = content.encode(outcome[0], question.media_type)
        except Exception as error:
            return _failure(index, error, context)
        context.set_response_content_type(index, question.media_type)
        return body


class _Headers(NamedTuple):
    """The headers that matter, whatever case they came in."""

    content_type: str = content.JSON
    accept: str | None = None
    attributes: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> _Headers:
        content_type, accept, attributes = content.JSON, None, None
        for name, value in headers.items():
            # MMS keeps the parameters among the headers, each with a dict for a value.
            if isinstance(value, str):
                lowered = name.lower()
                if lowered == "content-type":
                    content_type = value or content_type
                elif lowered == "accept":
                    accept = value
                elif lowered == CUSTOM_ATTRIBUTES:
                    attributes = value
        return cls(content_type, accept, attributes)


def _outputs_of_all(text: str | None) -> tuple[str, ...]:
    try:
        return parse_outputs(text or "")
    except BadRequest as error:
        raise SettingsError(f"{OUTPUT_VARIABLE}={text!r}: {error}") from None


def _outputs_of(attributes: str) -> tuple[str, ...] | None:
    """Return the outputs that custom attributes such as ``a=1; NAME=labels`` name, if any."""
    for attribute in attributes.split(";"):
        name, sign, value = attribute.partition("=")
        if sign and name.strip().upper() == OUTPUT_VARIABLE:
            return parse_outputs(value)
    return None


def _failure(index: int, error: Exception, context: Any) -> bytes:
    """Set the status of one request's error, log it if it is not the client's, return its body."""
    answer = OutOfMemory("out of memory") if isinstance(error, MemoryError) else error
    status = HTTPStatus(answer.status if isinstance(answer, ManyModelsError) else 500)
    if status >= 500:
        request_id = context.get_request_id(index)
        logger.error(
            "model %s failed on request %s", context.model_name, request_id, exc_info=error
        )
    context.set_response_status(int(status), status.phrase, index)
    context.set_response_content_type(index, content.JSON)
    message = str(answer).encode(errors="replace").decode()  # a lone surrogate is not JSON
    return orjson.dumps(error_body(int(status), type(answer).__name__, message))


_service = ModelService()


def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model when MMS calls without data, else answer the requests in ``data``."""
    if data is None:
        _service.initialize(context)
        return None
    return _service.handle(data, context)

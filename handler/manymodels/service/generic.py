"""Requests answered without any code of the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from manymodels import content
from manymodels.artifacts import Model, ModelDescription
from manymodels.artifacts.batch import predict_each
from manymodels.artifacts.outputs import select
from manymodels.service.failure import failure
from manymodels.service.request import Headers, body_of, outputs_of_all
from manymodels.settings import HandlerSettings


class Question(NamedTuple):
    """A request as it was understood: the model's rows, and how it is to be answered."""

    rows: Any
    media_type: str
    outputs: tuple[str, ...]


class GenericAnswers:
    """Decodes, predicts and encodes; the requests of a batch together where they agree."""

    def __init__(
        self, model: Model, description: ModelDescription, settings: HandlerSettings
    ) -> None:
        self._model = model
        self._accept = description.accept or settings.default_accept
        self._outputs = description.output or outputs_of_all(settings.outputs)
        self._lines = settings.lines

    def answer(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body a request; what fails is said in that request's answer."""
        answers = [b""] * len(data)
        asked: dict[tuple[str, ...], dict[int, Question]] = {}
        for index, item in enumerate(data):
            try:
                question = self._read(item, context.get_all_request_header(index))
            except Exception as error:
                answers[index] = failure(index, error, context)
            else:
                asked.setdefault(question.outputs, {})[index] = question
        for outputs, questions in asked.items():
            outcomes = predict_each(
                self._predict(outputs), [question.rows for question in questions.values()]
            )
            for (index, question), outcome in zip(questions.items(), outcomes, strict=True):
                answers[index] = self._written(index, question, outcome, context)
        return answers

    def _read(self, item: Mapping[str, Any], headers: Mapping[str, Any]) -> Question:
        asked = Headers.of(headers)
        outputs = asked.outputs() if asked.attributes else None
        media_type = content.negotiate(asked.accept, self._accept)
        rows = content.decode(body_of(item), asked.content_type, self._model.columns)
        return Question(rows, media_type, self._outputs if outputs is None else outputs)

    def _predict(self, outputs: tuple[str, ...]) -> Any:
        if outputs:
            return lambda rows: select(self._model, rows, outputs)
        return lambda rows: [self._model.predict(rows)]

    def _written(self, index: int, question: Question, outcome: Any, context: Any) -> bytes:
        try:
            if isinstance(outcome, Exception):
                raise outcome
            body = self._encode(question, outcome)
        except Exception as error:
            return failure(index, error, context)
        context.set_response_content_type(index, question.media_type)
        return body

    def _encode(self, question: Question, columns: list[Any]) -> bytes:
        # Batch transform joins answers by lines, whatever they are called.
        lines = self._lines and question.media_type == content.JSON
        media_type = content.JSON_LINES if lines else question.media_type
        if question.outputs:
            return content.encode_records(question.outputs, columns, media_type)
        return content.encode(columns[0], media_type)

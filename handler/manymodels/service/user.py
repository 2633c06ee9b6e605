"""Requests answered by the user's functions, the generic handler doing what they leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from manymodels import content
from manymodels.artifacts.own_code import request_context
from manymodels.artifacts.own_code.user_exchange import (
    Answer,
    accept_for_user,
    answer_of,
    body_for_user,
)
from manymodels.artifacts.own_code.user_functions import UserFunctions
from manymodels.errors import NotAcceptable
from manymodels.service.failure import failure
from manymodels.service.loading import Loaded
from manymodels.service.request import Headers, body_of
from manymodels.settings import HandlerSettings


class UserAnswers:
    """Calls input_fn, predict_fn and output_fn, or transform_fn, a request at a time."""

    STEPS = ("input_fn", "predict_fn", "output_fn", "transform_fn")

    def __init__(self, loaded: Loaded, functions: UserFunctions, settings: HandlerSettings) -> None:
        self._model = loaded.model
        self._native = loaded.native
        self._functions = functions
        self._accept = loaded.description.accept or settings.default_accept
        predicts = self._model is not None and "predict_fn" not in functions
        self._columns = self._model.columns if self._model and predicts else content.Columns()

    def answer(self, data: list[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body a request; what fails is said in that request's answer."""
        return [self._answer(index, item, context) for index, item in enumerate(data)]

    def _answer(self, index: int, item: Mapping[str, Any], context: Any) -> bytes:
        try:
            view = request_context.of_request(context, index)
            headers = Headers.of(context.get_all_request_header(index))
            answer = self._run(body_of(item), headers, view)
        except Exception as error:
            return failure(index, error, context)
        if answer.status is not None:
            context.set_response_status(answer.status, "", index)
        # As sagemaker-inference does, an answer without a type has that which was asked for.
        typed = answer.content_type or context.get_response_content_type(index)
        context.set_response_content_type(index, typed or self._asked_for(headers.accept))
        return answer.body

    def _asked_for(self, accept: str | None) -> str:
        first = accept_for_user(accept, self._accept).partition(",")[0].partition(";")[0].strip()
        return self._accept if "*" in first else first

    def _run(self, body: Any, headers: Headers, view: Any) -> Answer:
        call, functions = self._functions.call, self._functions
        accept = accept_for_user(headers.accept, self._accept)
        if "transform_fn" in functions:
            text = body_for_user(body, headers.content_type)
            arguments = (self._native, text, headers.content_type, accept)
            return answer_of(call("transform_fn", *arguments, context=view))
        if "output_fn" in functions:
            prediction = self._predict(self._read(body, headers, view), view)
            return answer_of(call("output_fn", prediction, accept, context=view))
        media_type = content.negotiate(headers.accept, self._accept)
        prediction = self._predict(self._read(body, headers, view), view)
        return Answer(_encoded(prediction, media_type), media_type)

    def _read(self, body: Any, headers: Headers, view: Any) -> Any:
        if "input_fn" in self._functions:
            text = body_for_user(body, headers.content_type)
            return self._functions.call("input_fn", text, headers.content_type, context=view)
        return content.decode(body, headers.content_type, self._columns)

    def _predict(self, data: Any, view: Any) -> Any:
        if "predict_fn" in self._functions:
            return self._functions.call("predict_fn", data, self._native, context=view)
        assert self._model is not None
        if "input_fn" in self._functions:
            data = content.arranged(data, self._columns)
        return self._model.predict(data)


def _encoded(prediction: Any, media_type: str) -> bytes:
    """Encode what a predict_fn returned, which may be anything."""
    if hasattr(prediction, "toarray"):
        prediction = prediction.toarray()
    is_array = hasattr(prediction, "to_numpy") or isinstance(prediction, np.ndarray)
    if media_type == content.JSON and not is_array:
        if isinstance(prediction, str):
            return orjson.dumps(prediction)
        return answer_of(prediction).body
    array = _as_array(prediction, media_type)
    return content.encode(array, media_type)


def _as_array(prediction: Any, media_type: str) -> Any:
    try:
        array = np.atleast_1d(np.asarray(prediction))
    except ValueError:  # ragged
        array = None
    nested = array is not None and array.dtype == object and isinstance(array.flat[0], dict | list)
    if array is None or array.ndim > 2 or nested:
        raise NotAcceptable(
            f"what the model's predict_fn returned, a {type(prediction).__name__}, cannot be "
            f"written as {media_type}; ask for {content.JSON}"
        )
    return array

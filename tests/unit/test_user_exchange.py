import io
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from mms.context import Context, RequestProcessor
from mms.metrics.metrics_store import MetricsStore
from mms.service import PredictionException
from sagemaker_inference import decoder, encoder
from sagemaker_inference.errors import GenericInferenceToolkitError

from manymodels.artifacts.own_code import request_context
from manymodels.artifacts.own_code.outcome import status_of
from manymodels.artifacts.own_code.user_exchange import (
    Answer,
    accept_for_user,
    answer_of,
    body_for_user,
)
from manymodels.errors import BadRequest, ModelLoadError, UnsupportedMediaType

JSON, CSV = "application/json", "text/csv"
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (b"1,2", CSV, "1,2"),
        (bytearray("é,2".encode()), "Text/CSV; header=present", "é,2"),
        ("é".encode("latin-1"), "text/csv; charset=ISO-8859-1", "é"),
        ("é".encode("utf-16"), 'text/csv; charset="utf-16"', "é"),
        ("\ufeff[1]".encode(), "application/json; charset=UTF-8", "[1]"),
        (b"[1]", JSON, "[1]"),
        ("1,2", CSV, "1,2"),
        ([[1, 2]], JSON, "[[1, 2]]"),
        ({"a": None}, JSON, '{"a": null}'),
        (None, JSON, "null"),
        (3, JSON, "3"),
        ("text", JSON, '"text"'),
        (b"\x93NUMPY\xff", "application/x-npy", b"\x93NUMPY\xff"),
        (bytearray(b"\xff"), "application/octet-stream", bytearray(b"\xff")),
        (memoryview(b"\xff"), None, b"\xff"),
        ("1 1:2", "text/libsvm", bytearray(b"1 1:2")),
        (b"[1]", None, b"[1]"),
    ],
)
def test_a_body_is_what_the_toolkits_functions_expect(body, content_type, expected):
    given = body_for_user(body, content_type)
    assert given == expected
    assert type(given) is type(expected)


@pytest.mark.parametrize("value", [float("nan"), 1 << 80, "\ud800", 0.1, {"1": [True]}])
def test_json_that_was_parsed_already_is_read_as_the_same(value):
    read = json.loads(body_for_user({"value": value}, JSON))["value"]
    assert read == value or (read != read and value != value)


@pytest.mark.parametrize(
    ("body", "content_type", "error", "message"),
    [
        (b"\xff", CSV, BadRequest, "the text/csv body is not utf-8: "),
        (b"\xff", "application/json;charset=ascii", BadRequest, "application/json body is not asc"),
        (b"1", "text/csv; charset=klingon", UnsupportedMediaType, "charset 'klingon' of text/csv"),
        (b"1", "text/csv; charset=hex", UnsupportedMediaType, "charset 'hex' of text/csv is not"),
    ],
)
def test_a_body_that_is_not_text_is_the_clients_fault(body, content_type, error, message):
    with pytest.raises(error) as caught:
        body_for_user(body, content_type)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("accept", "given"),
    [(None, CSV), ("", CSV), ("*/*", CSV), (JSON, JSON), ("a/b, */*;q=0.1", "a/b, */*;q=0.1")],
)
def test_accept_is_handed_over_as_it_came_or_the_default(accept, given):
    assert accept_for_user(accept, CSV) == given


class Response:
    """As werkzeug's, of which AWS's older containers have one."""

    def __init__(self, response, mimetype, status_code=200):
        self.response, self.mimetype, self.status_code = response, mimetype, status_code


class WithData(Response):
    content_type = "text/csv; charset=utf-8"

    def get_data(self):
        return b"".join(self.response)


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("é", Answer("é".encode())),
        (b"\xff", Answer(b"\xff")),
        (bytearray(b"1"), Answer(b"1")),
        (memoryview(b"1"), Answer(b"1")),
        (io.BytesIO(b"1"), Answer(b"1")),
        (("1", CSV), Answer(b"1", CSV)),
        (("1", None), Answer(b"1")),
        ((b"1", CSV, "more"), Answer(b"1", CSV)),
        (([1], "application/vnd.x+json"), Answer(b"[1]", "application/vnd.x+json")),
        (([1], None), Answer(b"[1]", JSON)),
        ({"a": [1, 2.5, None]}, Answer(b'{"a":[1,2.5,null]}', JSON)),
        ({1: "b"}, Answer(b'{"1":"b"}', JSON)),
        ((1, 2), Answer(b"[1,2]", JSON)),
        (3, Answer(b"3", JSON)),
        (None, Answer(b"null", JSON)),
        (1 << 70, Answer(b"1180591620717411303424", JSON)),
        (np.float32(0.5), Answer(b"0.5", JSON)),
        (np.array([[1.5, np.nan]]), Answer(b"[[1.5,null]]", JSON)),
        (np.array([[1, 2], [3, 4]]).T, Answer(b"[[1,3],[2,4]]", JSON)),
        (np.array(["a", "b"]), Answer(b'["a","b"]', JSON)),
        ({"p": np.array([1], dtype=object)}, Answer(b'{"p":[1]}', JSON)),
        (pd.Series([1, 2]), Answer(b"[1,2]", JSON)),
        (pd.DataFrame({"a": [1], "b": ["x"]}), Answer(b'[[1,"x"]]', JSON)),
        (scipy.sparse.csr_matrix([[0, 1]]), Answer(b"[[0,1]]", JSON)),
        (Response("1", CSV), Answer(b"1", CSV, 200)),
        (Response([b"1", "2"], CSV, 202), Answer(b"12", CSV, 202)),
        (WithData([b"1"], CSV), Answer(b"1", "text/csv; charset=utf-8", 200)),
    ],
)
def test_what_a_function_returns_becomes_a_body(returned, expected):
    assert answer_of(returned) == expected


@pytest.mark.parametrize("accept", [JSON, CSV, "application/x-npy"])
def test_what_the_toolkits_encoder_returns_is_sent_as_it_is(accept):
    returned = encoder.encode(np.eye(2), accept)
    sent = returned.encode() if isinstance(returned, str) else returned
    assert answer_of((returned, accept)) == Answer(sent, accept)


@pytest.mark.parametrize("returned", [object(), {"a": {1, 2}}, [Decimal(1)], iter(())])
def test_what_json_cannot_say_is_an_error_that_says_what_can(returned):
    with pytest.raises(TypeError, match="cannot be sent: return bytes, str, what JSON can say"):
        answer_of(returned)


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError


def error_with(**attributes):
    error = ValueError("why")
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadRequest("row 1"), (400, "BadRequest", "row 1")),
        (ModelLoadError("gone"), (500, "ModelLoadError", "gone")),
        (MemoryError(), (507, "OutOfMemory", "Out of resources")),
        (
            GenericInferenceToolkitError(422, "no such row", "bad"),
            (422, "GenericInferenceToolkitError", "no such row"),
        ),
        (PredictionException("not ready", 503), (503, "PredictionException", "not ready")),
        (PredictionException("odd", 200), (500, "PredictionException", "odd")),
        (error_with(status_code=404), (404, "ValueError", "why")),
        (error_with(status_code=418, message="short"), (418, "ValueError", "short")),
        (error_with(status_code=302), (500, "ValueError", "why")),
        (error_with(status_code="404"), (500, "ValueError", "why")),
        (error_with(error_code=404), (500, "ValueError", "why")),
        (KeyError("age"), (500, "KeyError", "'age'")),
        (ValueError(), (500, "ValueError", "ValueError")),
        (Wordless(), (500, "Wordless", "Wordless, which cannot be put into words")),
        (
            ValueError("a worker died\nTraceback (most recent call last):\n  File"),
            (500, "ValueError", "a worker died"),
        ),
        (SystemExit(3), (500, "SystemExit", "3")),
    ],
)
def test_an_exception_keeps_its_status_and_message(error, expected):
    assert status_of(error) == expected


def test_the_toolkits_unsupported_format_is_told_by_where_it_arose():
    for function, status in ((decoder.decode, 415), (encoder.encode, 406)):
        with pytest.raises(Exception, match="image/png is not supported") as caught:
            function("1", "image/png")
        outcome = status_of(caught.value)
        assert outcome[:2] == (status, "UnsupportedFormatError")
        assert "Traceback" not in outcome.message


@pytest.fixture
def context():
    """The context of a batch of two requests."""
    context = Context("churn", "/models/churn", None, 2, None, "1.1.11")
    context.request_ids = {0: "first", 1: "second"}
    context.request_processor = [
        RequestProcessor({"body": {"content-type": CSV}, ATTRIBUTES.lower(): "a=1"}),
        RequestProcessor({"body": {"content-type": CSV}, ATTRIBUTES.upper(): "a=2", "Accept": CSV}),
    ]
    context.metrics = MetricsStore(context.request_ids, "churn")
    return context


def test_each_request_of_a_batch_has_the_index_0_in_its_own_context(context):
    for index, (request_id, attributes) in enumerate([("first", "a=1"), ("second", "a=2")]):
        view = request_context.of_request(context, index)
        assert view.get_request_id(0) == view.get_request_id() == request_id
        assert view.get_request_header(0, ATTRIBUTES) == attributes
        assert view.get_all_request_header(0)[ATTRIBUTES] == attributes
        assert view.request_processor[0].get_request_property("x-amzn-" + ATTRIBUTES[7:])
        assert ATTRIBUTES in view.request_processor[0].get_request_properties()
        assert (view.model_name, view.system_properties) == ("churn", context.system_properties)


def test_headers_that_are_not_there_are_none_or_missing(context):
    headers = request_context.of_request(context, 1).get_all_request_header(0)
    assert headers.get("X-Nothing") is None
    assert headers.get("X-Nothing", "else") == "else"
    assert "X-Nothing" not in headers
    assert (headers["accept"], headers["body"]) == (CSV, {"content-type": CSV})
    with pytest.raises(KeyError, match="X-Nothing"):
        headers["X-Nothing"]
    assert json.loads(json.dumps(headers)) == dict(headers)


def test_what_is_set_through_the_view_arrives_in_the_real_context(context):
    view = request_context.of_request(context, 1)
    view.set_response_content_type(0, CSV)
    view.set_response_header(0, ATTRIBUTES, "b=2")
    view.set_response_status(202, "Accepted", 0)
    view.metrics.add_counter("rows", 3, 0)
    assert context.get_response_headers(1) == {"content-type": CSV, ATTRIBUTES: "b=2"}
    assert context.get_response_status(1) == (202, "Accepted")
    assert (context.get_response_headers(0), context.get_response_status(0)) == ({}, (200, None))
    (metric,) = context.metrics.store
    assert (metric.name, metric.request_id) == ("rows", "second")
    assert context.request_ids == {0: "first", 1: "second"}

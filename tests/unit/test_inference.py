"""A batch through a handler: what it returns and raises, as the client will see it."""

from __future__ import annotations

import http
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mms.context import Context
from mms.service import PredictionException

from manymodels.backend.handlers import Handler
from manymodels.backend.inference import Inference, refusal
from manymodels.errors import BadRequest, OutOfMemory, UnsupportedMediaType
from manymodels.wire import Parameter, Prediction, ReplyDecoder, Request, encode_reply

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""

LIMIT = 1000
EntryPoint = Callable[[Any, Any], Any]


def inference(
    entry_point: EntryPoint, decode_input: bool = False, response_bytes: int = LIMIT
) -> Inference:
    context = Context("m", "/models/m", None, 1, None, "1.1.11")
    return Inference(Handler(entry_point, context), decode_input, response_bytes)


def request(
    request_id: str = "r-0",
    body: bytes = b"1,2",
    content_type: str = "text/csv",
    headers: tuple[tuple[str, str], ...] = (),
) -> Request:
    return Request(request_id, headers, [Parameter("body", content_type, body)])


def batch(size: int) -> list[Request]:
    return [request(f"r-{i}", b"%d" % i) for i in range(size)]


def predict(entry_point: EntryPoint, **options: Any) -> Prediction:
    """The answer to one request, which the wire can carry."""
    (prediction,) = inference(entry_point, **options).predict([request()])
    return carried(prediction)


def carried(prediction: Prediction) -> Prediction:
    decoder = ReplyDecoder()
    decoder.feed(encode_reply([prediction]))
    (reply,) = decoder.messages()
    (received,) = reply.predictions
    # The phrase may have been padded.
    assert received._replace(phrase="") == prediction._replace(phrase="")
    assert received.phrase.strip() == prediction.phrase.strip()
    return prediction


def returning(output: Any) -> EntryPoint:
    return lambda data, context: output


def raising(error: BaseException) -> EntryPoint:
    def entry_point(data: Any, context: Any) -> Any:
        raise error

    return entry_point


def error_of(prediction: Prediction) -> tuple[int, str, str]:
    """Status, type and message of an error in the frontend's JSON shape."""
    assert prediction.content_type == "application/json"
    body = json.loads(prediction.body)
    assert set(body) == {"code", "type", "message"}
    assert body["code"] == prediction.status
    return body["code"], body["type"], body["message"]


# -- outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "body"),
    [
        (b"raw \xff", b"raw \xff"),
        (bytearray(b"raw"), b"raw"),
        ("é", "é".encode()),
        ("", b""),
        ({"a": [1, 2.5, None]}, None),
        ([1, 2], None),
        (3, None),
        (None, None),
        (True, None),
    ],
)
def test_bytes_and_text_are_sent_as_they_are_and_the_rest_as_json(output, body):
    prediction = predict(returning([output]))
    assert (prediction.status, prediction.phrase, prediction.content_type) == (200, "OK", "")
    if body is None:
        assert json.loads(prediction.body) == output
    else:
        assert prediction.body == body


@pytest.mark.parametrize("output", [object(), {1, 2}, {b"a": 1}, {"a": b"b"}, 1j])
def test_an_output_that_is_no_json_is_503_and_says_so(output):
    status, name, message = error_of(predict(returning([output])))
    assert (status, name) == (503, "InvalidOutput")
    assert message.startswith("Unsupported model output data type: ")


def test_an_output_that_holds_itself_is_an_error():
    loop: list[Any] = []
    loop.append(loop)
    assert error_of(predict(returning([loop])))[0] == 500


def test_text_with_a_lone_surrogate_is_an_error():
    assert error_of(predict(returning(["\udcff"])))[:2] == (500, "UnicodeEncodeError")


@pytest.mark.parametrize("output", [None, b"x", "x", {"a": 1}, ("x",), iter(["x"])])
def test_anything_but_a_list_is_503_for_every_request(output):
    answers = inference(returning(output)).predict(batch(3))
    for answer in answers:
        status, name, message = error_of(answer)
        assert (status, name) == (503, "InvalidOutput")
        assert f"a list is needed, not {type(output).__name__}" in message


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_of_the_wrong_length_is_503_for_every_request_and_names_both_lengths(count):
    answers = inference(returning([b"x"] * count)).predict(batch(2))
    assert [answer.request_id for answer in answers] == ["r-0", "r-1"]
    for answer in answers:
        status, _, message = error_of(answer)
        assert status == 503
        assert f"2 requests, {count} responses" in message


def test_a_response_may_have_exactly_the_size_that_is_possible():
    assert predict(returning([b"x" * LIMIT])).body == b"x" * LIMIT


def test_a_response_above_the_size_that_is_possible_is_an_error_that_names_both_sizes():
    status, _, message = error_of(predict(returning([b"x" * (LIMIT + 1)])))
    assert status == 503
    assert f"{LIMIT + 1} bytes; {LIMIT} are possible" in message


def test_in_a_batch_only_the_output_that_cannot_be_sent_is_an_error():
    answers = inference(returning([b"a", object(), b"x" * 2000, b"d"])).predict(batch(4))
    assert [answer.status for answer in answers] == [200, 503, 503, 200]
    assert (answers[0].body, answers[3].body) == (b"a", b"d")
    assert [answer.request_id for answer in answers] == ["r-0", "r-1", "r-2", "r-3"]


def test_an_empty_batch_has_no_answers():
    assert inference(returning([])).predict([]) == []


# -- exceptions --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 404, 422, 429, 500, 503, 599, http.HTTPStatus.CONFLICT])
def test_a_prediction_exception_answers_with_its_code_and_message(code):
    prediction = predict(raising(PredictionException("no such row", code)))
    assert error_of(prediction) == (code, "PredictionException", "no such row")


@pytest.mark.parametrize("code", [200, 302, 399, 600, 0, -1, 99999, "404", None, 404.0, True])
def test_a_prediction_exception_with_a_code_that_is_no_error_is_500(code):
    prediction = predict(raising(PredictionException("no such row", code)))
    assert error_of(prediction) == (500, "PredictionException", "no such row")


@pytest.mark.parametrize("message", [None, 5, {"a": 1}, "\udcff", "two\nlines", ""])
def test_a_prediction_exception_may_have_any_message(message):
    error = PredictionException(message, 400)
    assert error_of(predict(raising(error))) == (400, "PredictionException", str(message))


@pytest.mark.parametrize("error", [MemoryError(), MemoryError("Unable to allocate 8 TiB")])
def test_a_memory_error_is_507(error):
    assert error_of(predict(raising(error))) == (507, "OutOfMemory", "Out of resources")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("3 features"), (500, "ValueError", "ValueError: 3 features")),
        (KeyError("body"), (500, "KeyError", "KeyError: 'body'")),
        (RuntimeError(), (500, "RuntimeError", "RuntimeError: ")),
        (ValueError("\udcff"), (500, "ValueError", "ValueError: \udcff")),
        (SystemExit(0), (500, "SystemExit", "SystemExit: 0")),
        (KeyboardInterrupt(), (500, "KeyboardInterrupt", "KeyboardInterrupt: ")),
        (BadRequest("2 columns"), (400, "BadRequest", "2 columns")),
        (UnsupportedMediaType("x/y"), (415, "UnsupportedMediaType", "x/y")),
        (OutOfMemory("full"), (507, "OutOfMemory", "full")),
    ],
)
def test_any_other_exception_answers_with_its_type_and_message(error, expected):
    assert error_of(predict(raising(error))) == expected


def test_the_traceback_goes_to_the_log_and_not_to_the_client(caplog):
    prediction = predict(raising(ValueError("3 features")))
    assert b"Traceback" not in prediction.body
    assert "r-0" in caplog.text
    assert "Traceback" in caplog.text


class Unprintable(Exception):
    """An exception that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Wordless(PredictionException):
    """A prediction exception whose maker has not called its base."""

    def __init__(self) -> None:
        pass


@pytest.mark.parametrize("error", [Unprintable(), Wordless()])
def test_an_exception_that_cannot_be_put_into_words_is_500(error):
    status, name, _ = error_of(predict(raising(error)))
    assert (status, name) == (500, type(error).__name__)


def test_one_failed_call_answers_every_request_of_its_batch():
    answers = inference(raising(PredictionException("bad", 422))).predict(batch(5))
    assert [answer.request_id for answer in answers] == [f"r-{i}" for i in range(5)]
    assert {error_of(answer) for answer in answers} == {(422, "PredictionException", "bad")}


def test_a_failed_batch_leaves_nothing_behind_for_the_next():
    def entry_point(data: Any, context: Any) -> Any:
        context.set_response_header(0, "x-number", data[0]["body"].decode())
        context.set_response_status(201, "Made", 0)
        if data[0]["body"] == b"0":
            raise ValueError
        return [b""]

    runner = inference(entry_point)
    first, second = (runner.predict([one])[0] for one in batch(2))
    assert (first.status, first.headers) == (500, {})
    assert (second.status, second.phrase, second.headers) == (201, "Made", {"x-number": "1"})


# -- statuses and headers ----------------------------------------------------------------


def setting(action: Callable[[Any], None], output: bytes = b"x") -> EntryPoint:
    """A handler that does something to its context."""

    def entry_point(data: Any, context: Any) -> Any:
        action(context)
        return [output] * len(data)

    return entry_point


def test_headers_and_statuses_are_set_an_item():
    def entry_point(data: Any, context: Any) -> Any:
        for index in range(3):
            context.set_response_header(index, "x-index", str(index))
            context.set_response_content_type(index, f"text/x-{index}")
        context.set_response_status(404, "Nobody", 1)
        context.set_response_status(201, "", 2)
        return [b"a", b"b", b"c"]

    answers = inference(entry_point).predict(batch(3))
    assert [(a.status, a.phrase) for a in answers] == [
        (200, "OK"),
        (404, "Nobody"),
        (201, "Created"),
    ]
    assert [a.headers for a in answers] == [{"x-index": str(i)} for i in range(3)]
    assert [a.content_type for a in answers] == ["text/x-0", "text/x-1", "text/x-2"]


def test_a_status_for_all_is_for_all():
    answers = inference(setting(lambda c: c.set_all_response_status(202, "Later"))).predict(
        batch(2)
    )
    assert [(a.status, a.phrase) for a in answers] == [(202, "Later")] * 2


@pytest.mark.parametrize("status", [200, 204, 299, 404, 418, 599, http.HTTPStatus.GONE])
def test_any_final_status_may_be_set(status):
    prediction = predict(setting(lambda c: c.set_response_status(status, "Word", 0)))
    assert (prediction.status, prediction.phrase) == (status, "Word")


def test_no_status_at_all_is_200():
    prediction = predict(setting(lambda c: c.set_response_status(None, None, 0)))
    assert (prediction.status, prediction.phrase) == (200, "OK")


@pytest.mark.parametrize("status", [0, 100, 199, 600, 2**31, -5, "200", 200.0, True, object()])
def test_a_status_that_is_none_is_503_and_names_it(status):
    prediction = predict(setting(lambda c: c.set_response_status(status, "", 0)))
    code, _, message = error_of(prediction)
    assert code == 503
    assert f"the handler set the status {status!r}" in message


def test_a_status_without_a_known_phrase_has_none():
    assert predict(setting(lambda c: c.set_response_status(299, "", 0))).phrase == ""


def test_a_phrase_cannot_end_the_status_line():
    prediction = predict(setting(lambda c: c.set_response_status(400, "a\r\nb: c", 0)))
    assert prediction.phrase == "a  b: c"


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "é", "\udcff", "a\0"])
def test_a_header_name_that_cannot_be_one_is_503(name):
    prediction = predict(setting(lambda c: c.set_response_header(0, name, "v")))
    assert error_of(prediction)[:2] == (503, "InvalidOutput")


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\0", "\x7f", "\x1b[1m"])
@pytest.mark.parametrize("name", ["x-name", "content-type"])
def test_a_header_value_that_cannot_be_one_is_503(name, value):
    prediction = predict(setting(lambda c: c.set_response_header(0, name, value)))
    assert error_of(prediction)[:2] == (503, "InvalidOutput")


@pytest.mark.parametrize(
    ("value", "sent"), [(5, "5"), (None, "None"), ("a\tb", "a\tb"), ("é", "é")]
)
def test_a_header_value_of_another_type_is_sent_as_text(value, sent):
    prediction = predict(setting(lambda c: c.set_response_header(0, "x-name", value)))
    assert (prediction.status, prediction.headers) == (200, {"x-name": sent})


@pytest.mark.parametrize("value", [None, "", 0])
def test_no_content_type_is_none(value):
    prediction = predict(setting(lambda c: c.set_response_content_type(0, value)))
    assert (prediction.status, prediction.content_type, prediction.headers) == (200, "", {})


@pytest.mark.parametrize("value", [5, b"text/csv", ["x"]])
def test_a_content_type_that_is_no_text_is_an_error(value):
    prediction = predict(setting(lambda c: c.set_response_content_type(0, value)))
    assert error_of(prediction)[0] in (500, 503)


@pytest.mark.parametrize(
    "action",
    [
        lambda c: c.set_response_header(0, "x-name", "\udcff"),
        lambda c: c.set_response_content_type(0, "text/\udcff"),
        lambda c: c.set_response_status(400, "\udcff", 0),
    ],
    ids=["header", "content-type", "phrase"],
)
def test_whatever_a_handler_sets_can_be_sent(action):
    predict(setting(action))


anything = st.one_of(
    st.none(), st.integers(), st.booleans(), st.floats(), st.binary(), st.lists(st.integers()),
    st.text(st.characters(exclude_categories=("Cs",))),
)  # fmt: skip


@steady
@given(output=anything, status=anything, phrase=anything, name=anything, value=anything)
def test_any_output_status_phrase_and_header_make_an_answer_that_can_be_sent(
    output, status, phrase, name, value
):
    def entry_point(data: Any, context: Any) -> Any:
        context.set_response_status(status, phrase, 0)
        try:
            context.set_response_header(0, name, value)
        except TypeError:  # a list is no key
            context.set_response_content_type(0, value)
        return [output]

    prediction = predict(entry_point)
    assert 200 <= prediction.status <= 599
    assert prediction.request_id == "r-0"


# -- inputs ------------------------------------------------------------------------------


def inputs(requests: list[Request], decode_input: bool) -> Any:
    """What a handler is given, and the answers."""
    seen: list[Any] = []

    def entry_point(data: Any, context: Any) -> Any:
        seen.extend(data)
        return [b""] * len(data)

    return seen, inference(entry_point, decode_input).predict(requests)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/csv", "", "application/octet-stream"]
)
def test_a_body_is_a_bytearray_where_nothing_is_decoded(content_type):
    (item,), _ = inputs([request(body=b"{not json", content_type=content_type)], False)
    assert item == {"body": bytearray(b"{not json")}
    assert type(item["body"]) is bytearray


@pytest.mark.parametrize(
    ("content_type", "body", "value"),
    [
        ("application/json", b'{"a": [1, "\xc3\xa9"]}', {"a": [1, "é"]}),
        ("application/json", b"3", 3),
        ("text/csv", b"1,\xc3\xa9", "1,é"),
        ("text", b"x", "x"),
        ("application/octet-stream", b"\xff", bytearray(b"\xff")),
        ("application/jsonlines", b"{}", bytearray(b"{}")),
        ("", b"{}", bytearray(b"{}")),
    ],
)
def test_json_is_parsed_and_text_decoded_where_inputs_are_decoded(content_type, body, value):
    (item,), _ = inputs([request(body=body, content_type=content_type)], True)
    assert item == {"body": value}
    assert type(item["body"]) is type(value)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b""),
        ("application/json", b"{"),
        ("application/json", b"\xff\xfe\xfd"),
        ("application/json", b"9" * 5000),
        ("text/csv", b"caf\xe9"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_400_and_the_handler_is_not_called(content_type, body):
    seen, (answer,) = inputs([request(body=body, content_type=content_type)], True)
    assert seen == []
    status, name, message = error_of(answer)
    assert (status, name) == (400, "BadRequest")
    assert message.startswith(f"body: not {content_type}: ")


def test_json_that_is_nested_too_deeply_is_400():
    _, (answer,) = inputs([request(body=b"[" * 200_000, content_type="application/json")], True)
    assert answer.status == 400


def test_every_parameter_is_an_input_by_its_name():
    parameters = [
        Parameter("body", "text/csv", b"1"),
        Parameter("top", "", b"5"),
        Parameter("meta", "application/json", b'{"a": 1}'),
    ]
    (item,), _ = inputs([Request("r", [], parameters)], True)
    assert item == {"body": "1", "top": bytearray(b"5"), "meta": {"a": 1}}


def test_a_request_without_parameters_is_an_empty_input():
    (item,), (answer,) = inputs([Request("r", [], [])], True)
    assert (item, answer.status) == ({}, 200)


def test_one_call_has_all_requests_of_a_batch_and_each_gets_its_own_output():
    calls = []

    def entry_point(data: Any, context: Any) -> Any:
        calls.append(len(data))
        return [bytes(item["body"]) * 2 for item in data]

    answers = inference(entry_point).predict(batch(5))
    assert calls == [5]
    assert [(a.request_id, a.body) for a in answers] == [
        (f"r-{i}", b"%d%d" % (i, i)) for i in range(5)
    ]


def test_the_context_knows_ids_and_headers_of_each_request_and_a_parameters_type():
    seen = {}

    def entry_point(data: Any, context: Any) -> Any:
        for index in range(len(data)):
            seen[index] = (
                context.get_request_id(index),
                context.get_all_request_header(index),
                context.get_request_header(index, "X-A"),
            )
        return [b""] * len(data)

    headers = (("Content-Type", "text/csv; charset=utf-8"), ("X-A", "é"))
    inference(entry_point).predict([request("one", headers=headers), request("two")])
    assert seen == {
        0: (
            "one",
            {
                "body": {"content-type": "text/csv"},
                "Content-Type": "text/csv; charset=utf-8",
                "X-A": "é",
            },
            "é",
        ),
        1: ("two", {"body": {"content-type": "text/csv"}}, None),
    }


def test_a_handlers_metrics_are_of_the_batch_and_carry_its_request():
    def entry_point(data: Any, context: Any) -> Any:
        context.metrics.add_counter("rows", 2, 0)
        return [b""]

    runner = inference(entry_point)
    for request_id in ("first", "second"):
        runner.predict([request(request_id)])
        (metric,) = runner.context.metrics.store
        assert "rows.Count:2" in str(metric)
        assert "ModelName:m" in str(metric)
        assert request_id in str(metric)


def test_a_refusal_answers_every_request_with_the_same_error():
    answers = refusal(batch(2), 503, "ModelLoadError", "not there")
    assert [answer.request_id for answer in answers] == ["r-0", "r-1"]
    assert {answer.phrase for answer in answers} == {"Service Unavailable"}
    assert {error_of(answer) for answer in answers} == {(503, "ModelLoadError", "not there")}

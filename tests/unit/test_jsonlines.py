import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels import content
from manymodels.content import Columns
from manymodels.content.registry import JSON_LINES, encode_records
from manymodels.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

NAN = float("nan")
NUMBERS = Columns(numbers=True)
NAMED = Columns(2, ("a", "b"), frame=True)


@pytest.mark.parametrize(
    "name",
    [JSON_LINES, "application/jsonl", "application/x-jsonlines", "Application/X-NDJSON"],
)
def test_its_names(name):
    assert content.decode(b"[1,2]\n[3,4]\n", name).tolist() == [[1, 2], [3, 4]]
    assert content.encode(np.array([1, 2]), content.negotiate(name)) == b"1\n2\n"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[1, 2.5]", [[1, 2.5]]),
        ("\n[1, 2]\r\n  \n[3, null]\n", [[1, 2], [3, NAN]]),
        ("\ufeff[true]", [[1]]),
        ('{"features": [1, 2]}\n{"features": [3, 4]}', [[1, 2], [3, 4]]),
        ('{"data": {"features": {"values": [1, 2]}}}', [[1, 2]]),
        ('{"data": {"features": {"keys": [2, 0], "shape": [3], "values": [5, 4]}}}', [[4, 0, 5]]),
        ('{"b": 2, "a": 1}\n{"a": 3, "b": 4}', [[2, 1], [4, 3]]),
        ('{"a": "\u2028"}'.replace("\u2028", "1").replace('"1"', "1"), [[1]]),
    ],
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_rows(kind, text, rows):
    body = text if kind is str else text.encode()
    np.testing.assert_array_equal(content.decode(body, JSON_LINES, NUMBERS), rows)


def test_records_become_the_models_data_frame():
    frame = content.decode('{"b": "x\u2028y", "a": 1}\n{"a": 2, "b": null}', JSON_LINES, NAMED)
    assert list(frame.columns) == ["a", "b"]
    assert frame["a"].dtype == "int64"
    assert frame["b"][0] == "x\u2028y"
    assert frame["b"].isna().tolist() == [False, True]


def test_a_line_that_was_parsed_before_us_is_a_record():
    assert content.decode({"a": 1, "b": 2}, JSON_LINES, NAMED).to_numpy().tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the JSON Lines body is empty"),
        ("\n \n", "the JSON Lines body is empty"),
        (
            "[1]\n\n[2",
            "JSON Lines line 3 is not JSON: unexpected end of data at column 3",
        ),
        ("[1],[2]", "JSON Lines line 1 is not JSON: unexpected content after document at column 4"),
        ("[1]\n2", "JSON Lines line 2 is 2, not a list of values"),
        ("1", "JSON Lines line 1 is 1, not a list of values"),
        ("[1, 2]\n\n[3]", "JSON Lines line 3 has 1 values, line 1 has 2"),
        ('[1]\n\n["x"]', 'JSON Lines line 3, column 1: "x" is not a number'),
        ("[]", "the JSON Lines body's rows have no values"),
        ('{"a": 1}\n\n{"b": 1}', 'JSON Lines line 3 is without "a" and has unknown "b"'),
        ('{"a": 1}\n\n[1]', "JSON Lines line 3 is [1], not an object"),
        ('[1]\n{"a": 1}', 'JSON Lines line 2 is {"a":1}, not a list of values'),
        ('{"a": "x"}', "JSON Lines line 1, column 1 ('a'): \"x\" is not a number"),
        (
            '{"features": [1]}\n[1]',
            "JSON Lines line 2 is [1], not an object of features as line 1",
        ),
    ],
)
def test_what_is_wrong_is_named_by_line(text, message):
    with pytest.raises(BadRequest) as caught:
        content.decode(text, JSON_LINES, NUMBERS)
    assert caught.value.message == message


@pytest.mark.parametrize("body", [3, [[object()]], {"a": float}])
def test_what_is_not_text_is_a_bad_request(body):
    with pytest.raises(BadRequest, match="the JSON Lines body is"):
        content.decode(body, JSON_LINES)


@pytest.mark.parametrize(
    ("predictions", "text"),
    [
        (np.array([1, 2]), b"1\n2\n"),
        (np.array(3.5), b"3.5\n"),
        (np.array([0.1, NAN], dtype=np.float32), b"0.1\nnull\n"),
        (np.array([[1, 2], [3, 4]]), b"[1,2]\n[3,4]\n"),
        (np.array([[1, 2], [3, 4]]).T, b"[1,3]\n[2,4]\n"),
        (np.array([[True], [False]]), b"[true]\n[false]\n"),
        (np.array(["a,b", "],["]), b'"a,b"\n"],["\n'),
        (np.array([["a", None]], dtype=object), b'["a",null]\n'),
        (np.array([[[1, 2], [3, 4]]]), b"[[1,2],[3,4]]\n"),
        (np.array([]), b""),
        (np.array(["2020-01-02", "NaT"], dtype="M8[D]"), b'"2020-01-02"\nnull\n'),
    ],
)
def test_a_value_a_row_is_written(predictions, text):
    assert content.encode(predictions, JSON_LINES) == text


def test_a_record_a_row_is_written():
    columns = [np.array([1, 0]), np.array([[0.25, 0.75], [1, NAN]])]
    assert encode_records(["predicted_label", "probabilities"], columns, JSON_LINES) == (
        b'{"predicted_label":1,"probabilities":[0.25,0.75]}\n'
        b'{"predicted_label":0,"probabilities":[1.0,null]}\n'
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "features", "data"]), inner, max_size=2)
    ),
    max_leaves=10,
)
lines = st.lists(values.map(json.dumps), max_size=4).map("\n".join)


@given(st.binary() | st.text() | lines, st.sampled_from([Columns(), NUMBERS, NAMED]))
def test_any_body_is_rows_or_the_clients_fault(body, columns):
    with contextlib.suppress(BadRequest, PayloadTooLarge, UnsupportedMediaType):
        rows = content.decode(body, JSON_LINES, columns)
        assert rows.ndim == 2
        assert rows.shape[0]
        assert rows.shape[1]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_what_was_written_is_read(numbers):
    rows = np.array(numbers).reshape(-1, 1)
    text = content.encode(rows, JSON_LINES)
    np.testing.assert_array_equal(content.decode(text, JSON_LINES, NUMBERS), rows)

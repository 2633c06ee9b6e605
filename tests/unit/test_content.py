import csv
import io
import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from manymodels import content
from manymodels.content.csv_codec import _read_with_care
from manymodels.errors import BadRequest, NotAcceptable, UnsupportedMediaType

CSV, JSON = content.CSV, content.JSON
NAN = float("nan")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, str])
@pytest.mark.parametrize(("media_type", "text"), [(CSV, "1,2\n3,4\n"), (JSON, "[[1,2],[3,4]]")])
def test_a_body_may_be_any_kind_of_bytes_or_text(kind, media_type, text):
    body = text if kind is str else kind(text.encode())
    rows = content.decode(body, media_type)
    assert rows.dtype == np.float64
    assert rows.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1,2", [[1, 2]]),
        ("1\n2\n", [[1], [2]]),
        ("1,2\r\n3,4\r\n", [[1, 2], [3, 4]]),
        ("1,2\r3,4\r", [[1, 2], [3, 4]]),
        ("\n1,2\n\n3,4\n\n", [[1, 2], [3, 4]]),
        ("1,2\n  \n3,4\n", [[1, 2], [3, 4]]),
        ('"1","2.5"\n', [[1, 2.5]]),
        (" 1 , -2e3 ", [[1, -2000]]),
        ("\ufeff1,2\n", [[1, 2]]),
        ("1,,3", [[1, NAN, 3]]),
        ('""\n1', [[NAN], [1]]),
        ("nan,inf,-inf", [[NAN, float("inf"), float("-inf")]]),
    ],
)
def test_csv_rows(text, rows):
    np.testing.assert_array_equal(content.decode(text, CSV), rows)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the CSV body is empty"),
        (b"\n \r\n", "the CSV body is empty"),
        (b"1,2\n3,x4\n", "CSV row 2, column 2: 'x4' is not a number"),
        (b"1,2\n\n3,4\n5\n", "CSV row 3 has 1 values, row 1 has 2"),
        (b"1_000", "CSV row 1, column 1: '1_000' is not a number"),
        ("\u0661", "CSV row 1, column 1: '\u0661' is not a number"),
        (b"a" * 100, f"CSV row 1, column 1: '{'a' * 60}...' is not a number"),
        (b"1,\xff", "the CSV body is not UTF-8: invalid start byte at byte 2"),
        (b'1,"2"3', "the CSV body is malformed at line 1: ',' expected after '\"'"),
        (b'1,"2', "the CSV body is malformed at line 1: unexpected end of data"),
        ([[1]], "the CSV body is not text but list"),
    ],
)
def test_what_is_wrong_with_csv_is_named(body, message):
    with pytest.raises(BadRequest) as caught:
        content.decode(body, CSV)
    assert caught.value.message == message


@pytest.mark.parametrize("key", [None, "instances", "inputs"])
@pytest.mark.parametrize("parsed", [True, False])
@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3, 4.5]], [[1, 2], [3, 4.5]]),
        ([1, None], [[1, NAN]]),
        ([[None], [2]], [[NAN], [2]]),
        ([[True, 0]], [[1, 0]]),
        ([[2**63, -1]], [[2**63, -1]]),
    ],
)
def test_json_rows_as_text_or_parsed_before_us(key, parsed, value, rows):
    body = value if key is None else {key: value}
    decoded = content.decode(body if parsed else json.dumps(body), JSON)
    assert decoded.dtype == np.float64
    np.testing.assert_array_equal(decoded, rows)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", 'the JSON object has neither "instances" nor "inputs" but no key at all'),
        (b'{"a": 1}', 'the JSON object has neither "instances" nor "inputs" but ["a"]'),
        (b'{"inputs": 1}', "the JSON body's rows are 1, not a list"),
        (b"null", "the JSON body's rows are null, not a list"),
        (b"[]", "the JSON body has no rows"),
        (b"[[]]", "the JSON body's rows have no values"),
        (b"[[[1]]]", "the JSON body is nested 3 lists deep; rows of numbers are 2"),
        (b"[[1, 2], [3]]", "JSON row 2 has 1 values, row 1 has 2"),
        (b"[[1], 2]", "JSON row 2 is 2, not a list of numbers"),
        (b'[[1, "2"]]', 'JSON row 1, column 2: "2" is not a number'),
        (b'["red", 1]', 'JSON row 1, column 1: "red" is not a number'),
        (b"[1, [2]]", "JSON row 1, column 2: [2] is not a number"),
        (b'[{"x": 1}]', 'JSON row 1, column 1: {"x":1} is not a number'),
        ([[10**400]], "JSON row 1, column 1: int is not a number"),
    ],
)
def test_what_is_wrong_with_json_is_named(body, message):
    with pytest.raises(BadRequest) as caught:
        content.decode(body, JSON)
    assert caught.value.message == message


@pytest.mark.parametrize("body", [b"", b"[1, 2", b"[NaN]", b"\xff", "1,2", b"[" * 100_000])
def test_a_body_that_is_not_json_is_a_bad_request_that_says_where(body):
    with pytest.raises(BadRequest, match=r"the body is not JSON: .*line 1 column"):
        content.decode(body, JSON)


@pytest.mark.parametrize(
    "media_type", ["TEXT/CSV", "text/csv; charset=utf-8", " text/csv;header=no"]
)
def test_a_media_type_is_known_whatever_its_case_and_parameters(media_type):
    assert content.decode(b"1,2", media_type).tolist() == [[1, 2]]


@pytest.mark.parametrize("media_type", ["application/xml", "text", "", "text/csvx"])
def test_an_unknown_media_type_is_answered_with_those_accepted(media_type):
    with pytest.raises(UnsupportedMediaType, match="accepted are text/csv, application/json"):
        content.decode(b"1", media_type)


@pytest.mark.parametrize(
    ("accept", "default", "chosen"),
    [
        (None, JSON, JSON),
        (None, CSV, CSV),
        ("", CSV, CSV),
        ("*/*", JSON, JSON),
        ("*/*", CSV, CSV),
        ("text/*", JSON, CSV),
        ("application/*", CSV, JSON),
        ("Text/CSV; charset=utf-8", JSON, CSV),
        ("image/png, text/csv, application/json", JSON, CSV),
        ("image/png,*/*", JSON, JSON),
        (None, "Text/CSV; header=no", CSV),
    ],
)
def test_the_first_type_of_accept_that_can_be_produced_is_chosen(accept, default, chosen):
    assert content.negotiate(accept, default) == chosen


@pytest.mark.parametrize(
    ("accept", "default"), [("image/png", JSON), ("a/*, ,;", JSON), (None, "x/y")]
)
def test_an_accept_that_nothing_fits_is_answered_with_what_there_is(accept, default):
    with pytest.raises(NotAcceptable, match="available are application/json, text/csv"):
        content.negotiate(accept, default)


@pytest.mark.parametrize(
    ("predictions", "as_json", "as_csv"),
    [
        (np.array([0, 1]), b"[0,1]", b"0\n1\n"),
        (np.array([0.5, NAN]), b"[0.5,null]", b"0.5\nnan\n"),
        (np.array([0.1], dtype=np.float32), b"[0.1]", b"0.1\n"),
        (np.array([[1.5, 2.0], [3.0, 4.0]]), b"[[1.5,2.0],[3.0,4.0]]", b"1.5,2.0\n3.0,4.0\n"),
        (np.array([[0.1, 1]], dtype=np.float32), b"[[0.1,1.0]]", b"0.1,1.0\n"),
        (np.array([[1, 2], [3, 4]]).T, b"[[1,3],[2,4]]", b"1,3\n2,4\n"),
        (np.array([1, 2], dtype=">i4"), b"[1,2]", b"1\n2\n"),
        (np.array([True]), b"[true]", b"True\n"),
        (np.array(["a", 'b,"c"']), b'["a","b,\\"c\\""]', b'a\n"b,""c"""\n'),
        (np.array(["a", None, 1.5], dtype=object), b'["a",null,1.5]', b'a\n""\n1.5\n'),
        (np.array(["a\rb", "c\nd"]), b'["a\\rb","c\\nd"]', b'"a\rb"\n"c\nd"\n'),
        (np.array([np.int64(1)], dtype=object), b"[1]", b"1\n"),
    ],
)
def test_encoded_predictions(predictions, as_json, as_csv):
    assert content.encode(predictions, JSON) == as_json
    assert content.encode(predictions, CSV) == as_csv


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["instances", "inputs", "x"]), inner, max_size=2)
    ),
    max_leaves=20,
)


def assert_rows_or_bad_request(body, media_type):
    try:
        rows = content.decode(body, media_type)
    except BadRequest:
        pass
    else:
        assert rows.ndim == 2
        assert rows.size
        assert rows.dtype == np.float64


@given(st.binary() | st.text() | st.text("01.,-+eEnaif\"' \t\r\n\x00_\ufeff", max_size=40))
def test_any_csv_body_is_rows_or_a_bad_request(body):
    assert_rows_or_bad_request(body, CSV)


@given(st.binary() | st.text() | json_values | json_values.map(json.dumps))
def test_any_json_body_is_rows_or_a_bad_request(body):
    assert_rows_or_bad_request(body, JSON)


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2)))
def test_csv_reads_what_it_wrote(rows):
    text = content.encode(rows, CSV)
    np.testing.assert_array_equal(content.decode(text, CSV), rows)
    np.testing.assert_array_equal(_read_with_care(text.decode()), rows)


@given(
    arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2),
        elements=st.floats(allow_infinity=False),
    )
)
def test_json_reads_what_it_wrote(rows):
    np.testing.assert_array_equal(content.decode(content.encode(rows, JSON), JSON), rows)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_labels_survive_csv_and_json(labels):
    predictions = np.array(labels, dtype=object)
    read = csv.reader(io.StringIO(content.encode(predictions, CSV).decode(), newline=""))
    assert [row[0] for row in read] == labels
    assert orjson.loads(content.encode(predictions, JSON)) == labels

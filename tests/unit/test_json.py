import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.sparse import issparse

from manymodels import content
from manymodels.content import Columns
from manymodels.content.registry import encode_records
from manymodels.errors import BadRequest, PayloadTooLarge

JSON = content.JSON
NAN = float("nan")
OPEN = Columns()
NUMBERS = Columns(numbers=True)
FRAME = Columns(2, ("a", "b"), frame=True)
AB = Columns(2, ("a", "b"), numbers=True)


def named(*names):
    return Columns(len(names), names, numbers=True)


def decode(body, columns=NUMBERS):
    return content.decode(body, JSON, columns)


@pytest.mark.parametrize("key", [None, "instances", "inputs", "data"])
@pytest.mark.parametrize("parsed", [True, False])
@pytest.mark.parametrize("columns", [OPEN, NUMBERS])
@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3, 4.5]], [[1, 2], [3, 4.5]]),
        ([1, None], [[1, NAN]]),
        ([[None], [2]], [[NAN], [2]]),
        ([[True, 0]], [[1, 0]]),
        ([[2**63, -1]], [[2**63, -1]]),
        ([[2**80]], [[2.0**80]]),
    ],
)
def test_rows_of_numbers_as_text_or_parsed_before_us(key, parsed, columns, value, rows):
    body = value if key is None else {key: value}
    decoded = decode(body if parsed else json.dumps(body).encode(), columns)
    assert decoded.dtype == np.float64
    np.testing.assert_array_equal(decoded, rows)


@pytest.mark.parametrize("parsed", [True, False])
@pytest.mark.parametrize(
    ("body", "columns", "rows"),
    [
        # SageMaker's objects.
        ({"features": [1, 2]}, NUMBERS, [[1, 2]]),
        ({"instances": [{"features": [1, 2]}, {"features": [3, 4]}]}, NUMBERS, [[1, 2], [3, 4]]),
        ([{"features": [1, 2]}], NUMBERS, [[1, 2]]),
        ({"data": {"features": {"values": [1, None]}}}, NUMBERS, [[1, NAN]]),
        ({"instances": [{"data": {"features": {"values": [1]}}}]}, NUMBERS, [[1]]),
        ({"instances": [{"data": {"features": [1]}}]}, NUMBERS, [[1]]),
        ({"data": {"features": {"keys": [2, 0], "shape": [3], "values": [5, 4]}}}, NUMBERS,
         [[4, 0, 5]]),
        ({"features": {"keys": [1], "shape": [1, 2], "values": [True]}}, NUMBERS, [[0, 1]]),
        ({"features": {"keys": [1], "values": [7]}}, Columns(3, numbers=True), [[0, 7, 0]]),
        ([{"features": {"keys": [], "values": []}}, {"features": [1, 2]}], NUMBERS,
         [[0, 0], [1, 2]]),
        # Records.
        ([{"a": 1, "b": 2}, {"b": 4, "a": 3}], AB, [[1, 2], [3, 4]]),
        ({"instances": [{"b": 2, "a": 1}]}, AB, [[1, 2]]),
        ({"inputs": {"b": 2, "a": 1}}, AB, [[1, 2]]),
        ({"b": None, "a": True}, AB, [[1, NAN]]),
        ({"dataframe_records": [{"a": 1, "b": 2}]}, AB, [[1, 2]]),
        ([{"x": 1, "y": 2}, {"y": 4, "x": 3}], NUMBERS, [[1, 2], [3, 4]]),
        # Columns.
        ({"b": [2, 4], "a": [1, 3]}, AB, [[1, 2], [3, 4]]),
        ({"inputs": {"a": [1], "b": [2]}}, AB, [[1, 2]]),
        ({"a": {"0": 1, "1": 3}, "b": {"0": 2, "1": 4}}, AB, [[1, 2], [3, 4]]),
        # pandas's split orientation.
        ({"columns": ["b", "a"], "index": [0], "data": [[2, 1]]}, AB, [[1, 2]]),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}}, AB, [[1, 2]]),
        ({"columns": [0, 1], "data": [[1, 2]]}, NUMBERS, [[1, 2]]),
        # The model's own names come first.
        ({"data": 1, "x": 2}, named("data", "x"), [[1, 2]]),
        ({"data": [1, 2]}, named("data"), [[1], [2]]),
        ({"instances": 3}, named("instances"), [[3]]),
        ({"columns": [1], "data": [2]}, named("columns", "data"), [[1, 2]]),
        ({"columns": ["data", "columns"], "data": [[1, 2]]}, named("columns", "data"), [[2, 1]]),
        ({"features": [1, 2]}, named("features"), [[1], [2]]),
        ([{"features": 1}], named("features"), [[1]]),
        ([{"data": 1}], named("data"), [[1]]),
        ({"data": [[1, 2]]}, named("data", "x"), [[1, 2]]),
        ({"instances": [[1], [2]]}, named("instances"), [[1], [2]]),
        ({"instances": [{"data": 1, "features": 2}]}, named("data", "features"), [[1, 2]]),
    ],
)  # fmt: skip
def test_the_forms_that_rows_have(parsed, body, columns, rows):
    np.testing.assert_array_equal(decode(body if parsed else json.dumps(body), columns), rows)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{}", "the JSON object has none of 'instances', 'inputs', 'data' but no key at all"),
        (b'{"a": 1}', "the JSON object has none of 'instances', 'inputs', 'data' but \"a\""),
        (b'{"inputs": 1}', "the JSON body's rows are 1, not a list"),
        (b"null", "the JSON body's rows are null, not a list"),
        (b"[]", "the JSON body has no rows"),
        (b"[[]]", "the JSON body's rows have no values"),
        (b"[[], []]", "the JSON body's rows have no values"),
        (b"[{}]", "JSON row 1 is an object without values"),
        (b"[[[1]]]", "JSON row 1, column 1: [1] is not a number"),
        (b"[[1, 2], [3]]", "JSON row 2 has 1 values, row 1 has 2"),
        (b"[[1], 2]", "JSON row 2 is 2, not a list of values"),
        (b'[[1], {"a": 1}]', 'JSON row 2 is {"a":1}, not a list of values'),
        (b'[[1, "2"]]', 'JSON row 1, column 2: "2" is not a number'),
        (b'{"instances": [[1, {}]]}', "JSON row 1, column 2: {} is not a number"),
        (b'["red", 1]', 'JSON row 1, column 1: "red" is not a number'),
        (b"[1, [2]]", "JSON row 1, column 2: [2] is not a number"),
        (b'[{"x": [1]}]', "JSON row 1, column 1 ('x'): [1] is not a number"),
        (b'[{"x": 1}, {"y": 1}]', 'JSON row 2 is without "x" and has unknown "y"'),
        (b'[{"x": 1}, [1]]', "JSON row 2 is [1], not an object"),
        ([[10**400]], "JSON row 1, column 1: int is not a number"),
        (b'{"columns": 1, "data": []}', '"columns" is 1, not a list of names'),
        (b'{"columns": ["a"], "data": []}', '"data" is [], not a list of rows'),
        (b'{"columns": ["a"], "data": [1]}', "JSON row 1 is 1, not a list of values"),
        (b'{"columns": ["a"], "data": [[1, 2]]}', "JSON row 1 has 2 values, the header has 1"),
        (
            json.dumps({"data": {"data": {"data": {"data": [[1]]}}}}),
            "the JSON body wraps its rows more than 4 objects deep",
        ),
        (3.5, "the JSON body's rows are 3.5, not a list"),
        ([object()], "JSON row 1, column 1: object is not a number"),
    ],
)
def test_what_is_wrong_is_named(body, message):
    with pytest.raises(BadRequest) as caught:
        decode(body)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{"a": 1, "b": 2}, {"a": 1}], 'JSON row 2 is without "b"'),
        ([{"a": 1, "b": 2, "c": "x"}], 'JSON row 1 has unknown "c"'),
        ({"a": 1, "c": 2}, 'JSON row 1 is without "b" and has unknown "c"'),
        (
            {"a": [1]},
            "the request's columns are not the model's; missing: 'b'",
        ),
        ({"a": [1, 2], "b": [1]}, "the JSON column 'b' has 1 values, 'a' has 2"),
        ({"a": [1], "b": 1}, "the JSON column 'b' is 1, not a list as others are"),
        ({"a": [], "b": []}, "the JSON body has no rows"),
        (
            {"A": 1, "B": 2},
            "the JSON object has none of 'instances', 'inputs', 'data' but \"A\", \"B\"; "
            'the model\'s columns are "a", "b"',
        ),
        ({"a": [1], "b": ["x"]}, "JSON row 1, column 2 ('b'): \"x\" is not a number"),
        ([[1, 2, 3]], "the model takes 2 features, the request has 3"),
        (
            {"columns": ["a", "a", "b"], "data": [[1, 2, 3]]},
            "the request's columns are not the model's; repeated: 'a'",
        ),
    ],
)
def test_what_is_wrong_with_names_is_named(body, message):
    with pytest.raises(BadRequest) as caught:
        decode(json.dumps(body), AB)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"keys": [3], "shape": [3], "values": [1]}, "the key 3 is not a position from 0 to 2"),
        ({"keys": [-1], "shape": [3], "values": [1]}, "the key -1 is not a position from 0 to 2"),
        ({"keys": ["a"], "shape": [3], "values": [1]}, 'the key "a" is not a position'),
        ({"keys": [1, 1], "shape": [3], "values": [1, 2]}, "the key 1 is there twice"),
        ({"keys": [1, 2], "shape": [3], "values": [1]}, "not one key for each of their values"),
        ({"keys": [1], "shape": [0], "values": [1]}, "the shape is [0], not a list of the row's"),
        ({"keys": [1], "shape": [2, 3], "values": [1]}, "the shape is [2,3], not a list"),
        ({"keys": [1], "shape": [], "values": [1]}, "the shape is [], not a list"),
        ({"keys": [1], "shape": 3, "values": [1]}, "the shape is 3, not a list"),
        ({"keys": [1], "shape": [True], "values": [1]}, "the shape is [true], not a list"),
        ({"keys": [1], "shape": [3], "values": ["x"]}, 'JSON row 1: "x" is not a number'),
        ({"keys": [1], "values": [1]}, "the JSON body's sparse rows have no shape"),
        ({"values": 1}, 'the features are {"values":1}, not a list of values'),
        ({"values": [1], "names": []}, "features have keys, shape and values, not"),
        ({"values": []}, "the JSON body's rows have no values"),
        ({"values": ["x"]}, 'JSON row 1, column 1: "x" is not a number'),
    ],
)
def test_what_is_wrong_with_features_is_named(features, message):
    with pytest.raises(BadRequest) as caught:
        decode({"data": {"features": features}})
    assert message in caught.value.message


def test_sparse_rows_of_different_widths_are_named():
    sparse = {"keys": [0], "shape": [2], "values": [1]}
    with pytest.raises(BadRequest, match="JSON row 2 has a width of 3, a row above it of 2"):
        decode([{"features": sparse}, {"features": [1, 2, 3]}])
    with pytest.raises(BadRequest, match=r"JSON row 2 is \[1\], not an object of features"):
        decode([{"features": sparse}, [1]])


def test_a_wide_sparse_row_stays_sparse_and_a_wider_one_is_refused():
    features = {"keys": [5], "shape": [10**9], "values": [1.5]}
    rows = decode({"features": features})
    assert issparse(rows)
    assert rows.shape == (1, 10**9)
    assert rows[0, 5] == 1.5
    with pytest.raises(PayloadTooLarge, match="claims 1000000000000 columns"):
        decode({"features": {**features, "shape": [10**12]}})


@pytest.mark.parametrize(
    "body", [b"", b"[1, 2", b"[NaN]", b"\xff", "1,2", b"[" * 100_000, b'["\\ud800"]', b"[1e999]"]
)
def test_a_body_that_is_not_json_is_a_bad_request_that_says_where(body):
    with pytest.raises(BadRequest, match=r"the body is not JSON: .*line 1 column"):
        decode(body, OPEN)


def test_a_byte_order_mark_and_a_charset_are_understood():
    assert decode(b"\xef\xbb\xbf[1]").tolist() == [[1]]
    body = '[{"größe": 1}]'.encode("latin-1")
    rows = content.decode(body, f"{JSON}; charset=latin-1", named("größe"))
    assert rows.tolist() == [[1]]


@pytest.mark.parametrize("columns", [OPEN, NUMBERS, FRAME])
def test_what_a_parser_before_us_lets_pass_is_a_bad_request(columns):
    nested = [1]
    for _ in range(500):
        nested = [nested]
    for body in (nested, [["\ud800", 1]], [[10**400, "x"]], [[{1: 2}, b""]], {1: 2}):
        with pytest.raises(BadRequest):
            decode(body, columns)


def test_cells_keep_their_types_for_a_model_of_objects():
    rows = decode(b'[[1, 2.5, "x", null, true], [2, 3, null, "y", false]]', OPEN)
    assert rows.dtype == object
    assert [[type(cell) for cell in row] for row in rows] == [
        [int, float, str, float, bool],
        [int, float, float, str, bool],
    ]
    assert rows[0, 3] != rows[0, 3]


@pytest.mark.parametrize(
    "body",
    [
        [[1, "x"], [2, None]],
        {"instances": [{"b": "x", "a": 1}, {"a": 2, "b": None}]},
        {"a": [1, 2], "b": ["x", None]},
        {"columns": ["b", "a"], "data": [["x", 1], [None, 2]]},
        [{"features": [1, "x"]}, {"features": [2, None]}],
    ],
)
def test_a_model_of_named_columns_gets_a_data_frame_with_their_types(body):
    frame = decode(json.dumps(body), FRAME)
    assert list(frame.columns) == ["a", "b"]
    assert frame["a"].dtype == "int64"
    assert frame["b"][0] == "x"
    assert frame["b"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, 2.5], "float64"),
        ([1, None], "float64"),
        ([True, False], "bool"),
        ([None, None], "float64"),
        ([2**64, 1], "float64"),
        ([True, None], "object"),
    ],
)
def test_a_column_has_the_type_that_pandas_would_find(cells, dtype):
    assert decode({"a": cells, "b": [1] * len(cells)}, FRAME)["a"].dtype == dtype


def test_a_number_where_the_model_takes_text_becomes_text():
    columns = Columns(2, ("zip", "n"), frame=True, text=frozenset({0}))
    frame = decode([[53111, 1], ["02134", 2], [None, 3]], columns)
    assert frame["zip"][:2].tolist() == ["53111", "02134"]
    assert frame["zip"].isna().tolist() == [False, False, True]


def test_records_give_a_model_that_says_nothing_a_data_frame():
    frame = decode([{"x": 1, "y": "a"}], OPEN)
    assert frame.to_dict("records") == [{"x": 1, "y": "a"}]


def test_a_long_text_among_many_cells_takes_no_more_room_than_it_has():
    body = [["x" * 1_000_000]] + [[""]] * 10_000
    assert decode(json.dumps(body), OPEN).shape == (10_001, 1)


def test_more_columns_than_can_be_typed_are_too_large():
    body = [["a"] * 100_000]
    with pytest.raises(PayloadTooLarge, match="the JSON body has 100000 columns, not all of num"):
        decode(body, OPEN)
    with pytest.raises(BadRequest, match="the model takes 2 features, the request has 100000"):
        decode(body, FRAME)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            [np.array([1]), np.array([[0.25, 0.75]], dtype=np.float32)],
            {"predicted_label": 1, "probabilities": [0.25, 0.75]},
        ),
        ([np.array(["a"]), [["a", "b"]]], {"predicted_label": "a", "probabilities": ["a", "b"]}),
        ([np.array([0.1], dtype=np.float32), np.array([[np.nan]])],
         {"predicted_label": 0.1, "probabilities": [None]}),
    ],
)  # fmt: skip
def test_records_are_objects_under_predictions(columns, expected):
    text = encode_records(["predicted_label", "probabilities"], columns, JSON)
    assert json.loads(text) == {"predictions": [expected]}


KEYS = ["instances", "inputs", "data", "features", "values", "keys", "shape", "columns", "a", "b"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=20,
)
any_columns = st.sampled_from(
    [OPEN, NUMBERS, FRAME, AB, named("data", "a"), Columns(2, text=frozenset({1}))]
)


@given(st.binary() | st.text() | values | values.map(json.dumps), any_columns)
def test_any_body_is_rows_or_the_clients_fault(body, columns):
    with contextlib.suppress(BadRequest, PayloadTooLarge):
        rows = decode(body, columns)
        assert rows.ndim == 2
        assert rows.shape[0]
        assert rows.shape[1]
        assert not columns.numbers or rows.dtype == np.float64
        assert columns.count in (None, rows.shape[1])


@given(
    arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2),
        elements=st.floats(allow_infinity=False),
    )
)
def test_what_was_written_is_read(rows):
    np.testing.assert_array_equal(decode(content.encode(rows, JSON)), rows)


cells = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(cells, cells, st.text(st.characters(exclude_categories=["Cs"]))),
                min_size=1, max_size=5))  # fmt: skip
def test_records_rows_and_columns_say_the_same(rows):
    columns = Columns(3, ("a", "b", "c"), frame=True, text=frozenset({2}))
    names = ["c", "a", "b"]
    order = [2, 0, 1]
    shuffled = [[row[position] for position in order] for row in rows]
    forms = [
        rows,
        [dict(zip(names, row, strict=True)) for row in shuffled],
        dict(zip(names, map(list, zip(*shuffled, strict=True)), strict=True)),
        {"columns": names, "data": shuffled},
    ]
    first, *others = (decode(json.dumps(form), columns) for form in forms)
    assert first["c"].tolist() == [row[2] for row in rows]
    np.testing.assert_array_equal(first["a"].to_numpy(float), [float(row[0]) for row in rows])
    for other in others:
        assert other.equals(first)


@pytest.mark.parametrize("wrap", [lambda values: values, lambda values: {"instances": values}])
@pytest.mark.parametrize("numbers", [True, False])
def test_values_in_a_flat_list_are_rows_of_a_model_with_one_column(wrap, numbers):
    columns = Columns(count=1, numbers=numbers)
    rows = content.decode(json.dumps(wrap([1, 2.5, 3])).encode(), JSON, columns)
    assert rows.tolist() == [[1], [2.5], [3]]
    if not numbers:
        texts = content.decode(json.dumps(wrap(["a", "b"])).encode(), JSON, columns)
        assert texts.tolist() == [["a"], ["b"]]
        lines = content.decode(b'"a"\n"b"\n', "application/jsonlines", columns)
        assert lines.tolist() == [["a"], ["b"]]

import contextlib
import csv
import io
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from manymodels import content
from manymodels.content import Columns
from manymodels.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

CSV = content.CSV
NAN = float("nan")
NUMBERS = Columns(numbers=True)
OPEN = Columns()
NAMED = Columns(3, ("age", "city", "zip"), frame=True, text=frozenset({1, 2}))
NAMED_NUMBERS = Columns(2, ("age", "size"), numbers=True)
MIXED = Columns(2)
RAGGED = "CSV row 2 has 1 values, row 1 has 2"


def decode(body, columns=OPEN, parameters=""):
    return content.decode(body, f"{CSV};{parameters}", columns)


@pytest.mark.parametrize("columns", [NUMBERS, OPEN])
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
        (",,,\r\n1,2,3,4", [[NAN] * 4, [1, 2, 3, 4]]),
        ("1,2,\r\n,3,", [[1, 2, NAN], [NAN, 3, NAN]]),
        ("1, ,3", [[1, NAN, 3]]),
        ('""\n1', [[NAN], [1]]),
        ("nan,NaN,1", [[NAN, NAN, 1]]),
        ("nan,inf,-inf", [[NAN, np.inf, -np.inf]]),
        ("007,+1,.5,1.", [[7, 1, 0.5, 1]]),
        ("1e999,-1e999", [[np.inf, -np.inf]]),
        ("18446744073709551616,-9223372036854775809", [[2.0**64, -(2.0**63)]]),
        ("1" + "0" * 30, [[1e30]]),
    ],
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_rows_of_numbers(kind, text, rows, columns):
    decoded = decode(text if kind is str else text.encode(), columns)
    assert decoded.dtype == np.float64
    np.testing.assert_array_equal(decoded, rows)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the CSV body is empty"),
        (b"\n \r\n", "the CSV body is empty"),
        (b"1,2\n3,x4\n", "CSV row 2, column 2: 'x4' is not a number"),
        (b"1,2\n\n3,4\n5\n", "CSV row 3 has 1 values, row 1 has 2"),
        (b'1,"2"\n3', RAGGED),
        (b"1,2\n3", RAGGED),
        (b"1_000", "CSV row 1, column 1: '1_000' is not a number"),
        ("\u0661", "CSV row 1, column 1: '\u0661' is not a number"),
        (b"a" * 100, f"CSV row 1, column 1: '{'a' * 60}...' is not a number"),
        (b"1,\xff", "the CSV body is not UTF-8: invalid start byte at byte 2"),
        (b'1,"2"3', "the CSV body is malformed at line 1: ',' expected after '\"'"),
        (b'1,"2', "the CSV body is malformed at line 1: unexpected end of data"),
        (b"1,2],[3,4", "CSV row 1, column 2: '2]' is not a number"),
        (b"1,[2]", "CSV row 1, column 2: '[2]' is not a number"),
        (b"1,null", "CSV row 1, column 2: 'null' is not a number"),
        (b"1,true", "CSV row 1, column 2: 'true' is not a number"),
        (b"1 2", "CSV row 1, column 1: '1 2' is not a number"),
        (b"1nan", "CSV row 1, column 1: '1nan' is not a number"),
        (b'"1,2",3\n4', "CSV row 2 has 1 values, row 1 has 2"),
        (b'"1,2",""', "CSV row 1, column 1: '1,2' is not a number"),
        ("\ud800", "the CSV body has half of a surrogate pair, which is no character"),
        ([[1]], "the CSV body is not text but list"),
    ],
)
def test_what_is_wrong_is_named(body, message):
    with pytest.raises(BadRequest) as caught:
        decode(body, NUMBERS)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        # The model's names, whatever their order.
        ("age,size\n1,2", NAMED_NUMBERS, [[1, 2]]),
        ("size, age \r\n2,1\r\n", NAMED_NUMBERS, [[1, 2]]),
        ('"size","age"\n"2","1"\n', NAMED_NUMBERS, [[1, 2]]),
        ("age,size\n,inf", NAMED_NUMBERS, [[NAN, np.inf]]),
        # Text above numbers.
        ("a,b\n1,2\n3,4", NUMBERS, [[1, 2], [3, 4]]),
        ("größe,b\n1,2", NUMBERS, [[1, 2]]),
        ('"a,1","b\nc"\n1,2', NUMBERS, [[1, 2]]),
        ("%fat,_b (cm)\n1,2", NUMBERS, [[1, 2]]),
        ("a,b\n1,\n3,4", NUMBERS, [[1, NAN], [3, 4]]),
        # Neither.
        ("0,1\n2,3", Columns(2, ("0", "1"), numbers=True), [[0, 1], [2, 3]]),
        ("0,1", Columns(2, ("0", "1"), numbers=True), [[0, 1]]),
    ],
)
def test_a_header_is_detected_where_the_first_row_cannot_be_data(text, columns, rows):
    np.testing.assert_array_equal(decode(text, columns), rows)


def test_a_header_gives_a_model_that_says_nothing_a_data_frame():
    frame = decode("a,b\n1,2.5\n3,4")
    assert list(frame.columns) == ["a", "b"]
    assert [str(dtype) for dtype in frame.dtypes] == ["int64", "float64"]


@pytest.mark.parametrize(
    "slip", ["1 2", "1_000", "12a", "+-1", "1;2\t3", "NA", "n/a", "null", "None", "true", "?", "--"]
)
def test_a_slip_in_the_first_row_is_no_header(slip):
    with pytest.raises(BadRequest) as caught:
        decode(f"{slip}\n3", NUMBERS)
    assert caught.value.message == f"CSV row 1, column 1: {slip!r} is not a number"


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("red,small", MIXED, [["red", "small"]]),
        ("red,blue\nred,1", MIXED, [["red", "blue"], ["red", "1"]]),
        ("A12,x\n345,y\n678,z", MIXED, [["A12", "x"], ["345", "y"], ["678", "z"]]),
        ("a,a\n1,2", MIXED, [["a", "a"], ["1", "2"]]),
        ("age", Columns(1, ("age",)), [["age"]]),
        ("Paris,7500A\nBonn,53111", Columns(2, text=frozenset({1})), None),
    ],
)
def test_a_first_row_that_may_be_data_is_data(text, columns, rows):
    expected = rows or [line.split(",") for line in text.split("\n")]
    decoded = decode(text, columns)
    assert decoded.dtype == object
    assert decoded.tolist() == expected


@pytest.mark.parametrize(
    ("text", "parameters", "columns", "rows"),
    [
        ("1,2\n3,4", "header=present", NUMBERS, [[3, 4]]),
        ("1,2\n3,4", "Header=Absent", NUMBERS, [[1, 2], [3, 4]]),
        ("1,2\n3,4", "header=no", NUMBERS, [[1, 2], [3, 4]]),
        ("\ufeff1,2\n3,4", 'header="present"', NUMBERS, [[3, 4]]),
        ("x,y\n3,4", "header=present;charset=utf-8", NUMBERS, [[3, 4]]),
    ],
)
def test_a_declared_header_is_believed(text, parameters, columns, rows):
    np.testing.assert_array_equal(decode(text, columns, parameters), rows)


@pytest.mark.parametrize(
    ("text", "parameters", "columns", "message"),
    [
        (
            "age,weight\n1,x",
            "",
            NAMED_NUMBERS,
            "the request's columns are not the model's; missing: 'size'; unknown: 'weight'",
        ),
        (
            "age\n1",
            "",
            NAMED_NUMBERS,
            "the request's columns are not the model's; missing: 'size'",
        ),
        (
            ",age,size\n0,1,2",
            "",
            NAMED_NUMBERS,
            "the request's columns are not the model's; unknown: ''",
        ),
        (
            "age,age,size\n1,2,3",
            "",
            NAMED_NUMBERS,
            "the request's columns are not the model's; repeated: 'age'",
        ),
        ("age,size\n1", "", NAMED_NUMBERS, "CSV row 1 has 1 values, the header has 2"),
        (
            "size,age\n1,2\n3,x",
            "",
            NAMED_NUMBERS,
            "CSV row 2, column 2 ('age'): 'x' is not a number",
        ),
        ("age,size", "", NAMED_NUMBERS, "the CSV body has a header and no rows"),
        ("a,b", "header=absent", NUMBERS, "CSV row 1, column 1: 'a' is not a number"),
        ("a,b", "header=present", OPEN, "the CSV body has a header and no rows"),
        (
            "1",
            "header=maybe",
            OPEN,
            "the parameter header of text/csv is 'maybe'; it may be present or absent",
        ),
        ("1,2,3", "", NAMED_NUMBERS, "the model takes 2 features, the request has 3"),
        (
            "1,2",
            "",
            Columns(names=("a", "b", "c")),
            "the model takes 3 features, the request has 2",
        ),
    ],
)
def test_what_is_wrong_with_columns_is_named(text, parameters, columns, message):
    with pytest.raises(BadRequest) as caught:
        decode(text, columns, parameters)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "parameters", "rows"),
    [
        ("1\t2\n3\t4", "delimiter=tab", [[1, 2], [3, 4]]),
        ("1\t\n3\t4", r"delimiter=\t", [[1, NAN], [3, 4]]),
        ("1;2", "delimiter=semicolon", [[1, 2]]),
        ("1;2", 'delimiter=";"', [[1, 2]]),
        ("1|2", "delimiter=pipe", [[1, 2]]),
        ("1|2", "delimiter=|", [[1, 2]]),
        ("1 2", "delimiter=space", [[1, 2]]),
        ("1:2", "delimiter=:;header=absent", [[1, 2]]),
        ("1,2", "delimiter=COMMA", [[1, 2]]),
        ('"1";2', "delimiter=semicolon", [[1, 2]]),
    ],
)
def test_a_declared_delimiter_is_believed(text, parameters, rows):
    np.testing.assert_array_equal(decode(text, NUMBERS, parameters), rows)


@pytest.mark.parametrize(
    ("text", "columns", "rows"),
    [
        ("1;2\n3;4", NUMBERS, [[1, 2], [3, 4]]),
        ("1\t2\n3\t", NUMBERS, [[1, 2], [3, NAN]]),
        ("1;2", MIXED, [[1, 2]]),
        ("size;age\n2;1", NAMED_NUMBERS, [[1, 2]]),
        ("a\tb\n2\t1", NUMBERS, [[2, 1]]),
    ],
)
def test_tab_and_semicolon_are_found_where_nothing_else_can_be_meant(text, columns, rows):
    np.testing.assert_array_equal(decode(text, columns), rows)


def test_a_header_of_the_models_names_is_enough_to_find_a_delimiter():
    frame = decode("age;zip;city\n3;02134;Rome", NAMED)
    assert frame.to_dict("records") == [{"age": 3, "city": "Rome", "zip": "02134"}]


@pytest.mark.parametrize(
    ("text", "columns"),
    [("1;2", Columns(1)), ("a;b", OPEN), ("1;2\t3", OPEN), ("1;2\n3", OPEN), ("1;x\n3;y", OPEN)],
)
def test_a_delimiter_that_may_be_text_is_text(text, columns):
    assert decode(text, columns).astype(str).tolist() == [[line] for line in text.split("\n")]


@pytest.mark.parametrize("value", ["", "ab", '"\\""', "\u2028xy"])
def test_a_parameter_that_is_no_delimiter_says_what_may_be_one(value):
    with pytest.raises(BadRequest, match="one character or tab, semicolon, space, pipe, comma"):
        decode("1", NUMBERS, f"delimiter={value}")


@pytest.mark.parametrize(
    ("charset", "text"),
    [("latin-1", "é"), ("ISO-8859-15", "€"), ("utf-16", "é"), ("cp1252", "€"), ("UTF8", "é")],
)
def test_the_charset_is_honoured(charset, text):
    body = f"{text},1".encode(charset)
    assert decode(body, MIXED, f"charset={charset}").tolist() == [[text, 1]]


@pytest.mark.parametrize("charset", ["klingon", "hex", "zip", "rot13", "../os", "a\0b"])
def test_an_unknown_charset_is_not_supported(charset):
    with pytest.raises(UnsupportedMediaType, match=r"the charset '.*' is not known here; utf-8"):
        decode(b"1", NUMBERS, f"charset={charset}")


@pytest.mark.parametrize(
    ("charset", "body", "message"),
    [
        ("ascii", b"\xe9", "the CSV body is not ascii: ordinal not in range.* at byte 0"),
        ("utf-16", b"1", "the CSV body is not utf-16: truncated data at byte 0"),
        ("unicode_escape", b"\\ud800", "the CSV body has half of a surrogate pair"),
        ("undefined", b"1", "the CSV body is not undefined: "),
    ],
)
def test_bytes_that_are_not_of_the_charset_are_a_bad_request(charset, body, message):
    with pytest.raises(BadRequest, match=message):
        decode(body, NUMBERS, f"charset={charset}")


def test_cells_keep_their_types_column_by_column():
    decoded = decode("1,2.5,red,\n2,,blue,x")
    assert decoded.dtype == object
    assert decoded[:, [0, 2]].tolist() == [[1, "red"], [2, "blue"]]
    assert type(decoded[0, 0]) is int
    assert decoded[0, 1] == 2.5
    assert np.isnan(decoded[1, 1])
    assert np.isnan(decoded[0, 3])
    assert decoded[1, 3] == "x"


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (["1", "-2"], "int64"),
        (["007", "+1"], "int64"),
        (["1", "2.5"], "float64"),
        (["1", ""], "float64"),
        ([".5", "nan"], "float64"),
        (["True", "FALSE"], "bool"),
        (["99999999999999999999", "1"], "float64"),
        (["1_0", "2"], "text"),
        (["1", "x"], "text"),
        (["true", "yes"], "text"),
        (["\u0661", "1"], "text"),
        (["1,5", "2"], "text"),
    ],
)
def test_a_column_has_the_type_that_all_its_cells_have(column, dtype):
    body = io.StringIO()
    csv.writer(body).writerows([[cell, 1] for cell in column])
    frame = decode(body.getvalue(), Columns(2, ("c", "d"), frame=True))
    if dtype == "text":
        assert frame["c"].tolist() == column
    else:
        assert frame["c"].dtype == dtype
    assert frame["d"].dtype == "int64"


@pytest.mark.parametrize("text", ["3,Rome,02134\n4,,", "city,zip,age\nRome,02134,3\n,,4"])
def test_text_columns_stay_as_written_and_empty_ones_are_missing(text):
    frame = decode(text, NAMED)
    assert list(frame.columns) == ["age", "city", "zip"]
    assert frame["age"].tolist() == [3, 4]
    assert frame["age"].dtype == "int64"
    assert frame["zip"][0] == "02134"
    assert frame["city"][0] == "Rome"
    assert frame.isna().sum().tolist() == [0, 1, 1]


def test_one_missing_text_is_no_number():
    frame = decode("3,,02134", NAMED)
    assert frame["city"].dtype == object
    assert frame["city"].isna().all()


def test_numbers_of_one_type_are_one_block():
    frame = decode("1,2\n3,4", Columns(2, ("a", "b"), frame=True))
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1, 3], "b": [2, 4]}))


def test_more_columns_than_can_be_typed_are_too_large():
    with pytest.raises(PayloadTooLarge, match="the CSV body has 100000 columns, not all of numb"):
        decode("a," * 99_999 + "a")
    with pytest.raises(BadRequest, match="the model takes 3 features, the request has 100000"):
        decode("a," * 99_999 + "a", NAMED)
    assert decode("1," * 99_999 + "1").shape == (1, 100_000)


fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
numeric_text = st.text("01.,-+eEnaif\"'; \t\r\n\x00_\ufeff", max_size=40)
any_columns = st.sampled_from([OPEN, NUMBERS, NAMED, NAMED_NUMBERS, MIXED, Columns(1)])
any_parameters = st.sampled_from(
    ["", "header=present", "header=absent", "delimiter=tab", "charset=utf-16", "charset=utf-7"]
)


@given(st.binary() | st.text() | numeric_text | fields, any_columns, any_parameters)
def test_any_body_is_rows_or_the_clients_fault(body, columns, parameters):
    with contextlib.suppress(BadRequest, PayloadTooLarge, UnsupportedMediaType):
        rows = decode(body, columns, parameters)
        assert rows.ndim == 2
        assert rows.size
        assert not columns.numbers or rows.dtype == np.float64
        assert columns.count in (None, rows.shape[1])


@given(st.text("0123456789.eE+-", min_size=1, max_size=25))
def test_a_number_is_what_python_reads(text):
    try:
        expected = float(text)
    except ValueError:
        with pytest.raises(BadRequest):
            decode(text.encode(), NUMBERS)
    else:
        assert decode(text.encode(), NUMBERS).tolist() == [[expected]]


@given(st.lists(st.lists(fields, min_size=2, max_size=2), min_size=1, max_size=4))
def test_text_is_what_pythons_reader_reads(rows):
    body = io.StringIO()
    csv.writer(body).writerows(rows)
    columns = Columns(2, text=frozenset({0, 1}))
    decoded = decode(body.getvalue().encode(), columns, "header=absent")
    expected = [
        [cell or None for cell in row]
        for row in csv.reader(io.StringIO(body.getvalue().removeprefix("\ufeff"), newline=""))
    ]
    assert np.where(pd.isna(decoded), None, decoded).tolist() == expected


@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2)))
def test_what_was_written_is_read(rows):
    text = content.encode(rows, CSV)
    np.testing.assert_array_equal(decode(text, NUMBERS), rows)
    quoted = "\n".join(
        ",".join(f'"{cell}"' for cell in line.split(",")) for line in text.decode().splitlines()
    )
    np.testing.assert_array_equal(decode(quoted, NUMBERS), rows)


def digits(text):
    return len(Decimal(text).normalize().as_tuple().digits)


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2)))
def test_singles_are_written_with_the_digits_they_need(rows):
    text = content.encode(rows, CSV)
    np.testing.assert_array_equal(decode(text, NUMBERS).astype(np.float32), rows)
    cells = [cell for line in text.decode().split() for cell in line.split(",")]
    for cell, value in zip(cells, rows.ravel(), strict=True):
        if np.isfinite(value):
            assert digits(cell) <= digits(str(value))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            [np.array([1, 0]), np.array([[0.25, 0.75], [1, 0]])],
            b'1,"[0.25, 0.75]"\n0,"[1.0, 0.0]"\n',
        ),
        ([np.array([0.1, np.nan], dtype=np.float32)], b"0.1\nnan\n"),
        ([np.array(["a,b"]), [["x", 'y"']]], b'"a,b","[""x"", ""y\\""""]"\n'),
        ([np.array([[0.1]], dtype=np.float32), np.array([True])], b"[0.1],True\n"),
        ([np.array([[np.nan, 1]])], b'"[null, 1.0]"\n'),
        ([[None, 1]], b'""\n1\n'),
    ],
)
def test_records_are_a_line_each_with_lists_in_quotes(columns, expected):
    keys = [f"key{number}" for number in range(len(columns))]
    assert content.registry.encode_records(keys, columns, CSV) == expected

import csv
import io

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels import content
from manymodels.content.registry import encode_records
from manymodels.errors import NotAcceptable, UnsupportedMediaType

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
        (np.array([np.float32(0.1)], dtype=object), b"[0.1]", b"0.1\n"),
        (np.array([np.float64(0.1)], dtype=object), b"[0.1]", b"0.1\n"),
        (np.array(7.5), b"[7.5]", b"7.5\n"),
        (np.array([]), b"[]", b""),
        (
            np.array([[1, NAN, np.inf], [-np.inf, 2, 3]]),
            b"[[1.0,null,null],[null,2.0,3.0]]",
            b"1.0,nan,inf\n-inf,2.0,3.0\n",
        ),
        (np.array([0.1, 65504], dtype=np.float16), b"[0.1,65500.0]", b"0.1\n65500.0\n"),
        (np.array([0.5], dtype=np.longdouble), b"[0.5]", b"0.5\n"),
        (np.array([0.1], dtype=">f4"), b"[0.1]", b"0.1\n"),
        (
            np.array([2**64 - 1], dtype=np.uint64),
            b"[18446744073709551615]",
            b"18446744073709551615\n",
        ),
        (
            np.array(["2020-01-02", "NaT"], dtype="M8[D]"),
            b'["2020-01-02",null]',
            b'2020-01-02\n""\n',
        ),
        (np.array([90], dtype="m8[s]"), b'["90 seconds"]', b"90 seconds\n"),
        (np.array([b"a"]), b'["a"]', b"a\n"),
        (
            np.array([b"a", pd.NA, pd.Timestamp("2020-01-02")], dtype=object),
            b'["a",null,"2020-01-02T00:00:00"]',
            None,
        ),
        (np.array([[[1, 2], [3, 4]]]), b"[[[1,2],[3,4]]]", b'"[1, 2]","[3, 4]"\n'),
    ],
)
def test_encoded_predictions(predictions, as_json, as_csv):
    assert content.encode(predictions, JSON) == as_json
    assert as_csv is None or content.encode(predictions, CSV) == as_csv


def test_a_prediction_that_json_cannot_say_names_its_type():
    with pytest.raises(TypeError, match="not JSON serializable: set"):
        content.encode(np.array([{1}], dtype=object), JSON)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))))
def test_labels_survive_csv_and_json(labels):
    predictions = np.array(labels, dtype=object)
    read = csv.reader(io.StringIO(content.encode(predictions, CSV).decode(), newline=""))
    assert [row[0] for row in read] == labels
    assert orjson.loads(content.encode(predictions, JSON)) == labels


def test_outputs_by_name_need_a_format_that_has_names():
    with pytest.raises(NotAcceptable, match="application/x-npy does not hold outputs by name"):
        encode_records(["a"], [np.array([1])], "application/x-npy")


def test_the_toolkits_codecs_and_ours_agree():
    benchmark = pytest.importorskip("benchmarks.content_codecs")
    cases = benchmark.cases()  # compares each pair
    assert len({case.title for case in cases}) == 12
    outcome = benchmark.Outcome(theirs=10.0, ours=2.0, ratios=[4.0, 6.0, 5.0])
    assert outcome.ratio == 5.0
    assert benchmark.table([(case, outcome) for case in cases], 3).row_count == 12

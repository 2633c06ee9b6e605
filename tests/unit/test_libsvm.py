import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from manymodels import content
from manymodels.content import Columns
from manymodels.content.libsvm_codec import decode_libsvm
from manymodels.errors import BadRequest

LIBSVM = "text/libsvm"
FROM_ONE = "text/libsvm; indexing=1"
FOUR = Columns(4, numbers=True)


@pytest.mark.parametrize("media_type", [LIBSVM, "text/x-libsvm", "Text/LibSVM; charset=utf-8"])
def test_what_a_line_does_not_name_is_zero(media_type):
    assert content.decode(b"1 0:0.5 3:2\n", media_type, FOUR).tolist() == [[0.5, 0, 0, 2]]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1:0.5 3:2", [[0, 0.5, 0, 2]]),
        ("-1.5 1:0.5\n+1 0:1e3", [[0, 0.5, 0, 0], [1000, 0, 0, 0]]),
        ("0 0:1\r\n0 1:1\r0 2:1", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]),
        ("\n# a comment\n1 0:1 # 1:1\n \n", [[1, 0, 0, 0]]),
        ("2 qid:7 1:3\n", [[0, 3, 0, 0]]),
        ("qid:7 1:3\n", [[0, 3, 0, 0]]),
        ("1\n1 0:1\n1", [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]),
        ("1 3:4 0:1", [[1, 0, 0, 4]]),
        ("1 0:nan 1:-inf 02:3", [[np.nan, -np.inf, 3, 0]]),
        ("\ufeff1\t0:1\t 3:2 ", [[1, 0, 0, 2]]),
    ],
)
@pytest.mark.parametrize("kind", [str, str.encode, lambda text: memoryview(text.encode())])
def test_rows(text, rows, kind):
    np.testing.assert_array_equal(content.decode(kind(text), LIBSVM, FOUR), rows)


def test_indices_count_from_1_where_the_client_says_so():
    assert content.decode(b"1 1:0.5 4:2", FROM_ONE, FOUR).tolist() == [[0.5, 0, 0, 2]]
    assert content.decode(b"1 1:0.5 4:2", "text/libsvm;indexing=1").tolist() == [[0.5, 0, 0, 2]]


@pytest.mark.parametrize("lowest", [0, 1])
def test_nothing_is_guessed_from_the_lowest_index(lowest):
    read = content.decode(f"1 {lowest}:7".encode(), LIBSVM, FOUR)
    assert read[0, lowest] == 7


def test_without_a_model_s_count_the_greatest_index_says_the_width():
    assert content.decode(b"1 0:1\n1 5:1", LIBSVM).shape == (2, 6)
    assert content.decode(b"1\n", LIBSVM).tolist() == [[0]]


@pytest.mark.parametrize(
    ("text", "media_type", "message"),
    [
        (
            "1 0:1\n\n1 1:1 4:2",
            LIBSVM,
            "libsvm line 3: index 4 is none of the model's 4 features, which count from 0; "
            "if the indices count from 1, say 'text/libsvm; indexing=1'",
        ),
        (
            "1 4:1\n1 7:2",
            LIBSVM,
            "libsvm line 1: index 4 is none of the model's 4 features, which count from 0",
        ),
        (
            "1 5:1",
            FROM_ONE,
            "libsvm line 1: index 5 is none of the model's 4 features, which count from 1",
        ),
        (
            "1 1:1\n1 2:1 0:1",
            FROM_ONE,
            "libsvm line 2: index 0, but indexing=1 says they count from 1",
        ),
        ("1 2:1 2:1", LIBSVM, "libsvm line 1: index 2 comes twice"),
        ("1 2:1 02:1", LIBSVM, "libsvm line 1: index 2 comes twice"),
        ("", LIBSVM, "the libsvm body is empty"),
        ("\n# nothing\n", LIBSVM, "the libsvm body is empty"),
        ("1,2,3", LIBSVM, "libsvm line 1: '1,2,3', the label, is not a number"),
        ("1 2", LIBSVM, "libsvm line 1: '2' is not index:value"),
        ("1 a:2", LIBSVM, "libsvm line 1: 'a:2' is not index:value"),
        ("1 -1:2", LIBSVM, "libsvm line 1: '-1:2' is not index:value"),
        ("1 1_0:2", LIBSVM, "libsvm line 1: '1_0:2' is not index:value"),
        ("1 1:2_0", LIBSVM, "libsvm line 1: '2_0', the value of index 1, is not a number"),
        ("1 1:", LIBSVM, "libsvm line 1: '', the value of index 1, is not a number"),
        ("1 1:2:3", LIBSVM, "libsvm line 1: '2:3', the value of index 1, is not a number"),
        (f"1 {'9' * 20}:1", LIBSVM, f"libsvm line 1: '{'9' * 20}:1' is not index:value"),
        ("1 1.5:1", LIBSVM, "libsvm line 1: '1.5:1' is not index:value"),
        ("1 0:1 2", LIBSVM, "libsvm line 1: '2' is not index:value"),
        ("1:2:3 4", LIBSVM, "libsvm line 1: '2:3', the value of index 1, is not a number"),
        ("x" * 99 + " 1:1", LIBSVM, f"libsvm line 1: '{'x' * 40}...', the label, is not a number"),
        ("1 1:1", "text/libsvm; indexing=2", "indexing='2' is neither 0 nor 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, media_type, message):
    with pytest.raises(BadRequest) as caught:
        content.decode(text.encode(), media_type, FOUR)
    assert caught.value.message == message


def test_a_body_of_other_things_is_a_bad_request():
    with pytest.raises(BadRequest, match="the libsvm body is not bytes but list"):
        content.decode([[1]], LIBSVM)


def test_a_line_of_plain_numbers_reads_as_the_same_with_a_comment():
    pairs = " ".join(f"{index}:{index / 7}" for index in range(1000))
    read = content.decode(f"1 {pairs}\n1 {pairs} # us\n{pairs}\n".encode(), LIBSVM)
    np.testing.assert_array_equal(read, [np.arange(1000) / 7] * 3)


def test_the_quick_way_of_plain_lines_reads_what_float_reads():
    texts = ("1", "-0.0", "1e-320", "0.1", "123456789.123456789", "1e400", "9007199254740993")
    line = " ".join(f"{index}:{text}" for index, text in enumerate(texts))
    slow = " ".join(f"{index}:+{text}".replace("+-", "-") for index, text in enumerate(texts))
    expected = [[float(text) for text in texts]] * 2
    np.testing.assert_array_equal(content.decode(f"{line}\n{slow}".encode(), LIBSVM), expected)


@given(st.integers(1, 20), st.integers(1, 8), st.booleans(), st.integers(0, 99))
def test_what_scikit_learn_writes_and_reads_is_read_as_it_reads_it(rows, width, from_zero, seed):
    rng = np.random.default_rng(seed)
    dense = rng.integers(-1, 2, (rows, width)) * rng.normal(size=(rows, width))
    stream = io.BytesIO()
    dump_svmlight_file(dense, rng.normal(size=rows), stream, zero_based=from_zero, comment="us")
    body = stream.getvalue()
    read = decode_libsvm(body, {"indexing": "0" if from_zero else "1"}, Columns(width)).values
    stream.seek(0)
    theirs, _ = load_svmlight_file(stream, n_features=width, zero_based=from_zero)
    np.testing.assert_array_equal(read.toarray(), theirs.toarray())

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels import content
from manymodels.content import Columns
from manymodels.content.recordio import frame, read_records, record_class
from manymodels.content.recordio_encoder import encode_records
from manymodels.errors import BadRequest, NotAcceptable, PayloadTooLarge

RECORDIO = "application/x-recordio-protobuf"
MAGIC = b"\x0a\x23\xd7\xce"
HUGE = 1 << 40


def record(kind="float32", name="values", values=(), keys=(), shape=()):
    made = record_class()()
    add(made, kind, name, values, keys, shape)
    return made


def add(made, kind, name, values=(), keys=(), shape=()):
    tensor = getattr(made.features[name], f"{kind}_tensor")
    tensor.values.extend(values)
    tensor.keys.extend(keys)
    tensor.shape.extend(shape)
    return made


def named(**cells):
    made = record_class()()
    for name, cell in cells.items():
        if isinstance(cell, (bytes, str)):
            text = cell.encode() if isinstance(cell, str) else cell
            made.features[name].bytes.value.append(text)
        else:
            add(made, "int32" if isinstance(cell, int) else "float64", name, [cell])
    return made


def framed(*records):
    return b"".join(frame(each.SerializeToString()) for each in records)


def decode(*records, columns=Columns()):  # noqa: B008
    return content.decode(framed(*records), RECORDIO, columns)


def test_the_bytes_are_those_of_sagemaker_s_format():
    # Record{features: {"values": Value{float32_tensor: {values: [1, 2]}}}}, by hand.
    tensor = b"\x0a\x08" + struct.pack("<2f", 1, 2)
    value = b"\x12" + bytes([len(tensor)]) + tensor
    entry = b"\x0a\x06values" + b"\x12" + bytes([len(value)]) + value
    payload = b"\x0a" + bytes([len(entry)]) + entry
    body = MAGIC + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)
    assert content.decode(body, RECORDIO).tolist() == [[1, 2]]
    assert framed(record(values=[1, 2])) == body


@pytest.mark.parametrize(
    ("kind", "number", "values"),
    [
        ("float32", 2, struct.pack("<f", 5)),
        ("float64", 3, struct.pack("<d", 5)),
        ("int32", 7, b"\5"),
    ],
)
def test_the_numbers_of_the_tensors_are_those_of_sagemaker_s_schema(kind, number, values):
    written = record(kind, values=[5], keys=[1], shape=[9]).features["values"].SerializeToString()
    tensor = b"\x0a" + bytes([len(values)]) + values + b"\x12\x01\x01" + b"\x1a\x01\x09"
    assert written == bytes([number << 3 | 2, len(tensor)]) + tensor


@pytest.mark.parametrize("kind", ["float32", "float64", "int32"])
def test_dense_rows_become_float64(kind):
    read = decode(record(kind, values=[1, 2]), record(kind, values=[3, 4], shape=[2]))
    assert read.dtype == np.float64
    assert read.tolist() == [[1, 2], [3, 4]]


def test_labels_and_what_else_a_record_says_are_passed_over():
    made = record(values=[1, 2])
    made.label["values"].float32_tensor.values.append(7)
    made.uid, made.metadata, made.configuration = "a", "b", "c"
    assert decode(made).tolist() == [[1, 2]]


def test_a_shape_of_more_dimensions_is_one_row():
    assert decode(record(values=range(6), shape=[2, 3])).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_sparse_rows_have_their_values_where_the_keys_say():
    rows = [
        record(values=[1, 2], keys=[0, 3], shape=[4]),
        record(shape=[4]),
        record(values=[5], keys=[2], shape=[4]),
    ]
    assert decode(*rows).tolist() == [[1, 0, 0, 2], [0, 0, 0, 0], [0, 0, 5, 0]]
    assert decode(rows[1]).tolist() == [[0, 0, 0, 0]]


def test_sparse_rows_without_a_shape_are_as_wide_as_the_model_takes():
    rows = record(values=[1], keys=[1])
    assert decode(rows, columns=Columns(3)).tolist() == [[0, 1, 0]]
    assert decode(rows).tolist() == [[0, 1]]


def test_a_wide_sparse_row_stays_sparse():
    read = decode(record(values=[1], keys=[1 << 30], shape=[(1 << 31) - 1]))
    assert read.format == "csr"
    assert read[0, 1 << 30] == 1


def test_features_are_columns_by_their_names():
    rows = [named(age=30, height=1.5), named(height=1.75, age=40)]
    read = decode(*rows, columns=Columns(2, ("height", "age"), numbers=True))
    assert read.tolist() == [[1.5, 30], [1.75, 40]]


def test_text_is_in_bytes():
    frame = decode(named(city="Köln", n=1), columns=Columns(2, ("n", "city"), frame=True))
    assert frame.to_dict("list") == {"n": [1], "city": ["Köln"]}


def test_one_feature_of_another_name_is_a_column():
    assert decode(named(x=1), columns=Columns(1, ("x",), numbers=True)).tolist() == [[1]]


def refused(body, error=BadRequest, columns=Columns()):  # noqa: B008
    with pytest.raises(error) as caught:
        content.decode(body, RECORDIO, columns)
    assert "\n" not in caught.value.message
    return caught.value.message


DENSE = record(values=[1, 2])
SPARSE = record(values=[1], keys=[0], shape=[4])


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([DENSE, record(values=[1])], "record 2 has 1 values, record 1 has 2"),
        ([DENSE, SPARSE], "record 2 is sparse, record 1 is dense"),
        ([SPARSE, DENSE], "record 2 has 2 values and 0 keys"),
        ([SPARSE, record(values=[1], keys=[0], shape=[5])], "record 2 has 5 columns, record 1 has"),
        ([record(values=[1], keys=[4], shape=[4])], "record 1 has the key 4, its shape is [4]"),
        ([record(values=[1, 2], keys=[1, 1], shape=[4])], "record 1 has a key twice"),
        ([record(values=[1, 2], keys=[1], shape=[4])], "record 1 has 2 values and 1 keys"),
        ([record(values=[1, 2], shape=[3])], "record 1 has 2 values, its shape is [3]"),
        ([record(values=[1], shape=[1] * 40)], "a tensor's shape has 40 dimensions"),
        ([record()], "the RecordIO body has no values: its shape is (1, 0)"),
        ([record_class()()], "record 1 has 0 features"),
        ([named(values="text")], 'record 1: the feature "values" is no tensor of numbers'),
        ([DENSE, named(a=1)], 'record 2 has other features than "values"'),
        ([named(a=1, b=2), named(a=1)], "record 2 has 1 features, record 1 has 2"),
        ([named(a=1, b=2), named(a=1, c=2)], "record 2 has no feature 'b', record 1 has"),
        ([named(a=b"\xff", b=1)], "record 1: the feature 'a' is not text in UTF-8"),
        ([add(named(b=1), "int32", "a", [1, 2])], "record 1: the feature 'a' has 2 values"),
        ([add(named(b=1), "int32", "a", [1], [0])], "record 1: the feature 'a' has 1 values"),
    ],
)
def test_the_record_that_is_wrong_is_named(records, message):
    assert message in refused(framed(*records))


def test_both_widths_are_named():
    for body in (framed(DENSE), framed(record(values=[1], keys=[0], shape=[2]))):
        message = refused(body, columns=Columns(3))
        assert message == "the model takes 3 features, the request has 2"


@pytest.mark.parametrize("shape", [[HUGE], [1 << 20, 1 << 20], [(1 << 64) - 1] * 9])
def test_a_shape_that_nothing_can_hold_is_refused(shape):
    message = refused(framed(record(values=[1], keys=[0], shape=shape)), PayloadTooLarge)
    assert "at most 2147483647 are accepted" in message


def test_a_record_in_parts_is_put_together_with_the_magic_number_between():
    payload = record("float64", values=[struct.unpack("<d", MAGIC * 2)[0], 2]).SerializeToString()
    first, second, third = payload.split(MAGIC)

    def part(kind, data):
        return MAGIC + struct.pack("<I", kind << 29 | len(data)) + data + bytes(-len(data) % 4)

    body = part(1, first) + part(2, second) + part(3, third)
    assert [each.SerializeToString() for each in read_records(body)] == [payload]
    for wrong in (part(1, first), part(2, first), part(1, first) * 2, part(5, payload)):
        assert "part" in refused(wrong)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the RecordIO body is empty"),
        (b"1,2,3,4,5", "the RecordIO frame at byte 0 begins with"),
        (framed(DENSE)[:-1], "the RecordIO frame at byte 0 claims"),
        (framed(DENSE) + MAGIC, "ends within the frame at byte"),
        (framed(DENSE) + b"\0\0\0\0\0\0\0\0", "begins with 0x00000000, not 0xced7230a"),
        (MAGIC + b"\xff\xff\xff\x1f", "claims 536870911 bytes, and 0 are left"),
        (frame(b"\xff" * 8), "record 1 is not a protobuf Record"),
        (framed(DENSE) + frame(b"\x0a\x05"), "record 2 is not a protobuf Record"),
        (
            framed(DENSE) + framed(DENSE).replace(b"values", b"value\xff"),
            "record 2 is not a protobuf Record",
        ),
        (framed(named(a=1, b=2)).replace(b"a", b"\xff"), "record 1 is not a protobuf Record"),
        ("text", "the RecordIO body is not bytes but str"),
    ],
)
def test_what_is_wrong_with_the_frames_is_named(body, message):
    assert message in refused(body)


# -- out -----------------------------------------------------------------------------------------


def labels(body):
    """Each record's label map, as plain values."""
    found = []
    for each in read_records(body):
        values = {}
        for key, value in each.label.items():
            kind = value.WhichOneof("value")
            inner = getattr(value, kind)
            cells = [text.decode() for text in inner.value] if kind == "bytes" else inner.values
            values[key] = (kind.removesuffix("_tensor"), list(cells))
        found.append(values)
    return found


@pytest.mark.parametrize(
    ("predictions", "rows"),
    [
        (np.array([0.5, 1], np.float32), [("float32", [0.5]), ("float32", [1])]),
        (np.array([0.1]), [("float64", [0.1])]),
        (np.array([[0.25, 0.75]]), [("float64", [0.25, 0.75])]),
        (np.array([3, -1]), [("int32", [3]), ("int32", [-1])]),
        (np.array([2**40]), [("float64", [2.0**40])]),
        (np.array([True, False]), [("int32", [1]), ("int32", [0])]),
        (np.array(["no", "ja"]), [("bytes", ["no"]), ("bytes", ["ja"])]),
        (np.array([["a", "ü"]], dtype=object), [("bytes", ["a", "ü"])]),
        (np.array([1, 2.5], dtype=object), [("float64", [1]), ("float64", [2.5])]),
        (np.zeros(0), []),
    ],
)
def test_predictions_are_a_record_each_with_a_score(predictions, rows):
    body = content.encode(predictions, RECORDIO)
    assert len(body) % 4 == 0
    assert labels(body) == [{"score": row} for row in rows]


@pytest.mark.parametrize("predictions", [np.array([1j]), np.array(["a", 1], dtype=object)])
def test_predictions_that_are_no_tensors_are_not_acceptable(predictions):
    with pytest.raises(NotAcceptable, match="no RecordIO tensors"):
        content.encode(predictions, RECORDIO)


def test_selected_outputs_are_a_record_each_with_a_label_a_key():
    body = encode_records(
        ["predicted_label", "probabilities", "raw_score", "labels"],
        [
            np.array([1, 0]),
            np.array([[0.25, 0.75], [0.9, 0.1]]),
            np.array([np.nan, np.nan]),
            np.array([["no", "yes"], ["no", "yes"]]),
        ],
    )
    first, second = labels(body)
    assert first["predicted_label"] == ("float32", [1])  # as AWS's container writes integers
    assert second["probabilities"] == ("float64", [0.9, 0.1])
    assert first["labels"] == ("bytes", ["no", "yes"])
    kind, (value,) = first["raw_score"]
    assert kind == "float32"
    assert np.isnan(value)


def test_integers_that_float32_cannot_hold_are_not_rounded():
    assert labels(encode_records(["a"], [np.array([2**24 + 1])])) == [
        {"a": ("float64", [2**24 + 1])}
    ]


@given(st.lists(st.lists(st.floats(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_rows_survive(rows):
    read = decode(*[record("float64", values=row) for row in rows])
    np.testing.assert_array_equal(read, rows)

import io
import struct
import warnings
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from manymodels import content
from manymodels.content import Columns, limits
from manymodels.errors import BadRequest, NotAcceptable, PayloadTooLarge

NPY, NPZ = "application/x-npy", "application/x-npz"
NAMED = np.array([(1, 0.5, "x"), (2, 1.5, "yy")], [("n", "<i4"), ("f", ">f8"), ("s", "<U3")])


def npy(array, version=None, **options):
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        np.lib.format.write_array(stream, np.asanyarray(array), version, **options)
    return stream.getvalue()


def npz(**named):
    stream = io.BytesIO()
    np.savez(stream, **named)
    return stream.getvalue()


def with_header(text, data=b"", version=(1, 0)):
    header = text.encode("latin-1")
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header + data


def saved(matrix, compressed=True):
    stream = io.BytesIO()
    scipy.sparse.save_npz(stream, matrix, compressed=compressed)
    return stream.getvalue()


def refused(body, media_type=NPY, error=BadRequest, columns=Columns()):  # noqa: B008
    with pytest.raises(error) as caught:
        content.decode(body, media_type, columns)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4", ">i2", "u8", "?", "<f2"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_numbers_survive_whatever_their_order_and_the_bytes_of_theirs(order, kind, version):
    rows = np.array([[1, 0, 3], [4, 5, 6]], dtype=kind, order=order)
    read = content.decode(npy(rows, version), NPY)
    np.testing.assert_array_equal(read, rows)
    assert read.dtype == (np.float64 if kind == "<f2" else np.dtype(kind).newbyteorder("="))
    assert read.flags.c_contiguous
    assert read.flags.writeable
    assert read.flags.aligned


def test_a_model_of_numbers_is_given_float64():
    read = content.decode(npy(np.array([[1, 2]], np.int8)), NPY, Columns(2, numbers=True))
    assert read.dtype == np.float64
    assert read.tolist() == [[1, 2]]


def test_one_dimension_is_one_row():
    assert content.decode(npy(np.array([1.0, 2.0])), NPY).tolist() == [[1, 2]]


@pytest.mark.parametrize("body", [bytearray, memoryview, bytes])
def test_a_body_may_be_any_kind_of_bytes(body):
    assert content.decode(body(npy(np.ones((1, 2)))), NPY).shape == (1, 2)


@pytest.mark.parametrize("kind", ["<U3", ">U3", "S4", object])
def test_text_becomes_objects(kind):
    rows = np.array([["a", "äö"]], dtype="<U3")
    body = (
        npy(np.char.encode(rows, "utf-8") if kind == "S4" else rows.astype(kind), None)
        if kind is not object
        else npy(rows)
    )
    read = content.decode(body, NPY)
    assert read.dtype == object
    assert read.tolist() == [["a", "äö"]]


def test_structures_are_columns_with_names_and_types():
    frame = content.decode(npy(NAMED), NPY, Columns(3, ("s", "n", "f"), frame=True))
    assert list(frame.columns) == ["s", "n", "f"]
    assert frame["n"].tolist() == [1, 2]
    assert frame["n"].dtype == np.int32
    assert frame["f"].tolist() == [0.5, 1.5]
    assert frame["s"].tolist() == ["x", "yy"]


def test_structures_of_numbers_are_put_in_the_order_of_a_model_of_numbers():
    read = content.decode(npy(NAMED[["n", "f"]]), NPY, Columns(2, ("f", "n"), numbers=True))
    assert read.tolist() == [[0.5, 1], [1.5, 2]]


def test_names_in_utf_8_are_read():
    array = np.array([(1.0, 2.0)], [("größe", "f8"), ("重さ", "f8")])
    frame = content.decode(npy(array, (3, 0)), NPY, Columns(2, ("größe", "重さ"), frame=True))
    assert frame.values.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float64(1), "the array has shape (); (n_rows, n_features) or (n_features,)"),
        (np.ones((2, 3, 4)), "the array has shape (2, 3, 4); (n_rows, n_features) or"),
        (np.ones((0, 3)), "the array has no values: its shape is (0, 3)"),
        (np.ones((3, 0)), "the array has no values: its shape is (3, 0)"),
        (np.array([1j]), "is of type complex128; numbers and text are accepted"),
        (np.array(["2020-01-01"], "M8[D]"), "is of type datetime64[D]; numbers and text"),
        (np.array([1], "m8[s]"), "is of type timedelta64[s]"),
        (np.array(b"ab", "V2"), "is of type |V2"),
        (np.array([b"\xff"]), "the array's text is malformed: 'utf-8' codec"),
        (np.array(["\ud800"]), "the array's text is malformed: 'utf-8' codec"),
        (np.array([1 << 31], np.uint32).view("U1"), "malformed: a character is beyond U+10FFFF"),
        (np.zeros((2, 2), [("a", "f8")]), "an array of structures has shape (2, 2); (n_rows,)"),
        (np.zeros(2, [("a", "f8", (3,))]), "the NPY body's field 'a' is nested"),
        (np.zeros(2, [("a", [("b", "f8")])]), "the NPY body's field 'a' is nested"),
        (np.zeros(2, [("a", "M8[s]")]), "the NPY body's field 'a' is of type datetime64[s]"),
    ],
)
def test_what_is_no_rows_is_named(array, message):
    assert message in refused(npy(array))


def test_both_shapes_are_named():
    message = refused(npy(np.ones((2, 3))), columns=Columns(4))
    assert message == "the model takes 4 features, the request has 3"


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was loaded')",)


@pytest.mark.parametrize("kind", [object, [("a", "f8"), ("b", object)]])
def test_a_pickle_is_never_loaded(kind):
    array = np.empty(1, dtype=kind)
    array[0] = Bomb() if kind is object else (1.0, Bomb())
    assert "which only a pickle can carry" in refused(npy(array, allow_pickle=True))


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ("{'descr':'<f8','fortran_order':False,'shape':(10000000000,1000)}", b"1" * 64, "holds 64"),
        ("{'descr':'<f8','fortran_order':False,'shape':(1,2)}", b"1" * 24, "16 bytes, and holds"),
        ("{'descr':'<f8','fortran_order':False,'shape':(-1,-2)}", b"1" * 16, "'-' in the header"),
        ("{'descr':'<U0','fortran_order':False,'shape':(99999,99999)}", b"", "without a size"),
        ("{'descr':'|V0','fortran_order':False,'shape':(99999,99999)}", b"", "of type |V0"),
        ("{'descr':[],'fortran_order':False,'shape':(9999999,)}", b"", "has no values"),
        ("{'descr':'<f8','fortran_order':False,'shape':(0,99999999999)}", b"", "has no values"),
        ("{'descr':'<f8','fortran_order':False,'shape':(1,2)", b"", "is not an array in NPY's"),
        ("{'descr':'<f8','fortran_order':False}", b"", "is not an array in NPY's format"),
        ("{'descr':'nonsense','fortran_order':False,'shape':(1,)}", b"", "is not an array in"),
        ("{'descr':(),'fortran_order':False,'shape':(1,)}", b"", "is not an array in NPY's"),
        ("{'descr':'<f8','fortran_order':False,'shape':(1L,2L)}", b"1" * 16, None),
        ("[" * 200, b"", "nested too deep"),
        ("-" * 9000 + "1", b"", "'-' in the header"),
        ("1" * 9000, b"", "is not an array in NPY's format"),
        (" " * 20_000, b"", "header of 20000 bytes is longer than 10000"),
        ("__import__('os').abort()", b"", "'.' in the header"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_header_is_believed_only_as_far_as_the_body_goes(header, data, message):
    body = with_header(header, data)
    if message is None:  # as Python 2 wrote it
        assert content.decode(body, NPY).shape == (1, 2)
    else:
        assert message in refused(body)


@pytest.mark.parametrize("body", [b"", b"\x93NUMPY", b"1,2,3", b"\x93NUMPY\x09\x00\x01\x00a", "1"])
def test_what_is_no_npy_file_is_a_bad_request(body):
    assert "NPY" in refused(body)


def test_a_body_that_takes_too_much_memory_as_objects_is_refused(monkeypatch):
    monkeypatch.setattr(limits, "DECODED_BYTES", 10_000)
    message = refused(npy(np.full((1000, 1), "a")), error=PayloadTooLarge)
    assert "at most 10000 are accepted" in message


# -- NPZ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_one_array_of_a_zip_is_the_rows(write):
    stream = io.BytesIO()
    write(stream, np.array([[1, 2], [3, 4]]))
    assert content.decode(stream.getvalue(), NPZ).tolist() == [[1, 2], [3, 4]]


def test_several_arrays_are_columns_by_name():
    body = npz(height=np.array([1, 2]), name=np.array(["a", "b"]), age=np.array([0.5, 1.5]))
    frame = content.decode(body, NPZ, Columns(3, ("age", "height", "name"), frame=True))
    assert frame["height"].dtype == np.int64
    assert frame.to_dict("list") == {"age": [0.5, 1.5], "height": [1, 2], "name": ["a", "b"]}


def test_columns_of_numbers_make_no_data_frame_for_a_model_of_numbers():
    backwards = Columns(2, ("b", "a"), numbers=True)
    read = content.decode(npz(a=np.array([1]), b=np.array([0.5])), NPZ, backwards)
    assert isinstance(read, np.ndarray)
    assert read.tolist() == [[0.5, 1]]


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(4, 6), (1, 8), (7, 1), (12, 12)])
def test_a_sparse_matrix_of_any_format_survives(kind, compressed, shape):
    dense = np.random.default_rng(0).integers(-2, 3, shape) * 0.5
    matrix = scipy.sparse.csr_matrix(dense).asformat(kind)
    read = content.decode(saved(matrix, compressed), NPZ)
    np.testing.assert_array_equal(read, dense)


@pytest.mark.parametrize("kind", [np.int8, np.bool_, np.float32, np.uint64])
def test_a_sparse_array_of_other_numbers_survives(kind):
    dense = np.eye(3, dtype=kind)
    read = content.decode(saved(scipy.sparse.csr_array(dense)), NPZ)
    np.testing.assert_array_equal(read, dense)


def test_a_large_sparse_matrix_stays_sparse():
    places = np.arange(1000)
    values = np.linspace(0.5, 1, 1000)
    matrix = scipy.sparse.csc_matrix((values, (places, 99 * places)), shape=(1000, 100_000))
    read = content.decode(saved(matrix), NPZ, Columns(100_000, numbers=True))
    assert read.format == "csr"
    assert read.has_canonical_format
    assert (read != matrix).nnz == 0


def sparse_file(**changes):
    arrays = {
        "format": np.array(b"csr"),
        "shape": np.array([2, 3]),
        "data": np.array([1.0, 2.0]),
        "indices": np.array([0, 2]),
        "indptr": np.array([0, 1, 2]),
    }
    arrays.update(changes)
    return npz(**{name: array for name, array in arrays.items() if array is not None})


HUGE = 1 << 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"indices": np.array([0, 3])}, "have column 3, their shape is (2, 3)"),
        ({"indices": np.array([0, -1])}, "have column -1"),
        ({"indices": np.array([0, HUGE])}, f"have column {HUGE}"),
        ({"indices": np.array([0, 2**64 - 1], np.uint64)}, f"have column {2**64 - 1}"),
        ({"indices": np.array([0.0, 1.0])}, "indices is float64 of shape (2,); integers"),
        ({"indices": np.array([0])}, "differ in length"),
        ({"indices": None}, "indices is absent"),
        ({"indptr": np.array([0, HUGE, 2])}, "pointers do not rise from 0 to 2"),
        ({"indptr": np.array([0, -1, 2])}, "pointers do not rise from 0 to 2"),
        ({"indptr": np.array([1, 1, 2])}, "pointers do not rise from 0 to 2"),
        ({"indptr": np.array([0, 1, 3])}, "pointers do not rise from 0 to 2"),
        ({"indptr": np.array([0, 2])}, "differ in length: pointers 2, due 3"),
        ({"shape": np.array([2])}, "shape is not two integers"),
        ({"shape": np.array([0, 3])}, "have no values: their shape is (0, 3)"),
        ({"shape": np.array([-2, 3])}, "have no values: their shape is (-2, 3)"),
        ({"format": np.array("lil")}, "the sparse format 'lil' is none of csr, csc, bsr"),
        ({"format": np.array(7)}, "the sparse format '7' is none of"),
        ({"data": np.array(["a", "b"])}, "data is <U1 of shape (2,); numbers"),
        ({"format": np.array("bsr"), "data": np.ones((2, 4, 5))}, "do not tile a matrix"),
        ({"format": np.array("bsr"), "data": np.ones((2, 0, 1))}, "do not tile a matrix"),
        ({"format": np.array("bsr"), "data": np.ones((2, 1, 1))}, None),
        (
            {"format": np.array("bsr"), "data": np.ones((2, 1, 3)), "indices": np.array([0, HUGE])},
            f"have block {HUGE}",
        ),
        ({"format": np.array("coo")}, "row is absent"),
        (
            {"format": np.array("coo"), "row": np.array([0, 9]), "col": np.array([0, 0])},
            "have row 9, their shape is (2, 3)",
        ),
        (
            {"format": np.array("dia"), "data": np.ones((2, 3)), "offsets": np.array([0, 0])},
            "offsets are twice the same",
        ),
        (
            {"format": np.array("dia"), "data": np.ones((1, 3)), "offsets": np.array([-(2**63)])},
            "or outside (2, 3)",
        ),
    ],
)
def test_indices_are_checked_before_anything_uses_them(changes, message):
    body = sparse_file(**changes)
    if message is None:
        assert content.decode(body, NPZ).shape == (2, 3)
    else:
        assert message in refused(body, NPZ)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("shape", [(HUGE, 3), (3, HUGE)])
def test_a_shape_that_nothing_can_hold_is_refused(kind, shape):
    arrays = {"format": np.array(kind), "shape": np.array(shape), "data": np.ones(1)}
    message = refused(npz(**arrays), NPZ, PayloadTooLarge)
    assert str(HUGE) in message


def test_values_of_one_place_are_added_up_as_scipy_does():
    row = np.zeros(2, int)
    body = sparse_file(format=np.array("coo"), row=row, col=row, indices=None, indptr=None)
    assert content.decode(body, NPZ).tolist() == [[3, 0, 0], [0, 0, 0]]


def zipped(members, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture
def a_megabyte(monkeypatch):
    monkeypatch.setattr(limits, "DECODED_BYTES", 1 << 20)


@pytest.mark.usefixtures("a_megabyte")
def test_a_zip_bomb_is_not_unpacked():
    body = zipped([("a.npy", npy(np.zeros((1, 200_000))))])
    assert len(body) < 5_000
    assert "the NPZ body takes 1600128 bytes decoded" in refused(body, NPZ, PayloadTooLarge)


def test_a_bomb_that_understates_its_size_is_not_unpacked_either():
    body = zipped([("a.npy", npy(np.zeros((1, 200_000))))])
    size, lie = struct.pack("<I", 1_600_128), struct.pack("<I", 1000)
    assert body.count(size) == 2
    assert "the NPZ body" in refused(body.replace(size, lie), NPZ)


@pytest.mark.usefixtures("a_megabyte")
def test_text_is_counted_as_the_objects_that_it_becomes():
    body = npz(**{name: np.zeros(4_000, "<U1") for name in "abcd"})
    assert "at most" in refused(body, NPZ, PayloadTooLarge)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the NPZ body is not a ZIP of arrays"),
        (b"PK\x03\x04", "the NPZ body is not a ZIP of arrays"),
        (zipped([]), "the NPZ body holds no array"),
        (zipped([("README.md", b"x")]), "holds 'README.md', which is no .npy file"),
        (zipped([("a.npy", npy([1]))] * 2), "holds 'a.npy' twice"),
        (zipped([("a.npy", b"x")]), "the NPZ body's a.npy is not an array in NPY's format"),
        (zipped([("a.npy", npy([1]))], zipfile.ZIP_BZIP2), "neither stored nor deflated"),
        (npz(a=np.ones(2), b=np.ones(3)), "it holds a (2,), b (3,)"),
        (npz(a=np.ones((2, 2)), b=np.ones((2, 2))), "it holds a (2, 2), b (2, 2)"),
        (npz(a=np.ones(0), b=np.ones(0)), "has no values"),
        (zipped([("a.npy", npy([None], allow_pickle=True))]), "only a pickle can carry"),
        (b"PK\x01\x02" * 10_001, "has more than 10000 members"),
    ],
)
def test_what_is_wrong_with_a_zip_is_named(body, message):
    assert message in refused(body, NPZ)


# -- out -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "dtype"),
    [
        (np.array([0.5, np.nan]), "<f8"),
        (np.array([[1, 2], [3, 4]], np.int32), "<i4"),
        (np.array(["a", "bcd"]), "<U3"),
        (np.array(["a", "bcd"], dtype=object), "<U3"),
        (np.array([[1, 2.5]], dtype=object), "<f8"),
        (np.array([np.int64(3)], dtype=object), "<i8"),
        (np.array([True, False], dtype=object), "|b1"),
        (np.array([True]), "|b1"),
    ],
)
def test_predictions_are_an_array_without_a_pickle(predictions, dtype):
    read = np.load(io.BytesIO(content.encode(predictions, NPY)), allow_pickle=False)
    np.testing.assert_array_equal(read, predictions.astype(read.dtype))
    assert read.dtype.str == dtype


@pytest.mark.parametrize("values", [["a", 1], [None, "a"], [[1]], [2**70], [{}]])
def test_predictions_that_need_a_pickle_are_not_acceptable(values):
    predictions = np.empty(len(values), dtype=object)
    predictions[:] = values
    with pytest.raises(NotAcceptable, match="they would need a pickle"):
        content.encode(predictions, NPY)


@given(
    arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint8, np.bool_]),
        array_shapes(min_dims=2, max_dims=2),
    )
)
def test_npy_reads_what_it_wrote(rows):
    read = content.decode(content.encode(rows, NPY), NPY)
    assert read.dtype == rows.dtype
    np.testing.assert_array_equal(read, rows)


def test_a_frame_without_names_of_the_model_has_those_of_the_body():
    frame = content.decode(npz(a=np.array([1, 2]), b=np.array([3, 4])), NPZ)
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"a": [1, 2], "b": [3, 4]}))

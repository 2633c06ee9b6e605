import importlib.util
import io
import os
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manymodels import content
from manymodels.content import Columns, arrow_codec, limits, registry
from manymodels.content.ipc_claims import claim_of
from manymodels.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

PARQUET = "application/x-parquet"
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
FRAME = pd.DataFrame(
    {
        "n": np.array([1, 2, 3], np.int32),
        "f": [0.5, None, -1],
        "s": ["a", None, "ü"],
        "c": pd.Categorical(["x", "y", "x"]),
        "b": [True, False, True],
        "t": pd.to_datetime(["2020-01-01", "2021-06-01", None]),
    }
)
ORDER = ("t", "c", "s", "f", "b", "n")


def parquet(table, **options):
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def ipc(table, new=pa.ipc.new_stream, compression=None):
    stream = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with new(stream, table.schema, options=options) as writer:
        writer.write(table)
    return stream.getvalue()


def ipc_file(table, **options):
    return ipc(table, pa.ipc.new_file, **options)


WRITERS = [
    *[(PARQUET, parquet, {"compression": name}) for name in ("none", "snappy", "zstd", "gzip")],
    (PARQUET, parquet, {"use_dictionary": False, "data_page_version": "2.0"}),
    (PARQUET, parquet, {"row_group_size": 2, "data_page_size": 1}),
    ("application/vnd.apache.parquet", parquet, {}),
    *[(STREAM, ipc, {"compression": name}) for name in (None, "lz4", "zstd")],
    *[(FILE, ipc_file, {"compression": name}) for name in (None, "lz4", "zstd")],
]
BOTH = pytest.mark.parametrize(("media_type", "write"), [(PARQUET, parquet), (STREAM, ipc)])

VIEWS = pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no views")


def refused(body, media_type, error=BadRequest):
    with pytest.raises(error) as caught:
        content.decode(body, media_type)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def a_megabyte(monkeypatch):
    monkeypatch.setattr(limits, "DECODED_BYTES", 1 << 20)


@pytest.mark.parametrize(("media_type", "write", "options"), WRITERS)
def test_columns_keep_their_types_and_come_in_the_model_s_order(media_type, write, options):
    body = write(pa.Table.from_pandas(FRAME), **options)
    read = content.decode(body, media_type, Columns(6, ORDER, frame=True))
    assert tuple(read.columns) == ORDER
    assert read["n"].dtype == np.int32
    assert read["f"].dtype == np.float64
    assert read["b"].dtype == np.bool_
    assert list(read["c"].cat.categories) == ["x", "y"]
    assert read["t"].dt.year.tolist()[:2] == [2020, 2021]
    assert read["s"].tolist()[::2] == ["a", "ü"]
    assert read["s"].isna().tolist() == [False, True, False]
    np.testing.assert_array_equal(read["f"], FRAME["f"])


@BOTH
def test_a_model_of_numbers_is_given_an_array(media_type, write):
    body = write(pa.table({"b": [1, 2], "a": [0.5, None]}))
    read = content.decode(body, media_type, Columns(2, ("a", "b"), numbers=True))
    np.testing.assert_array_equal(read, [[0.5, 1], [np.nan, 2]])


@BOTH
def test_text_in_a_column_of_numbers_is_named(media_type, write):
    body = write(pa.table({"a": [1.0, 2.0], "b": [None, "x"]}))
    with pytest.raises(BadRequest, match="'x' is not a number"):
        content.decode(body, media_type, Columns(2, ("a", "b"), numbers=True))


def test_what_pandas_writes_is_read_without_the_index_it_stored():
    part = FRAME.iloc[[2, 0]]
    for media_type, body in ((PARQUET, part.to_parquet()), (FILE, ipc_file(pa.table(part)))):
        read = content.decode(body, media_type, Columns(6, ORDER, frame=True))
        assert read["n"].tolist() == [3, 1]


def test_an_index_level_that_the_model_was_trained_on_stays():
    body = pa.table({"__index_level_0__": [1.0]})
    columns = Columns(1, ("__index_level_0__",), numbers=True)
    assert content.decode(parquet(body), PARQUET, columns).tolist() == [[1]]


@BOTH
def test_decimals_and_columns_without_a_value_become_float64(media_type, write):
    decimals = pa.array([1, 2]).cast(pa.decimal128(30, 2))
    read = content.decode(write(pa.table({"d": decimals, "n": pa.nulls(2)})), media_type)
    assert read.dtypes.tolist() == [np.float64] * 2
    np.testing.assert_array_equal(read, [[1, np.nan], [2, np.nan]])


def test_half_precision_becomes_float64():
    read = content.decode(ipc(pa.table({"h": pa.array(np.array([0.5, 1], np.float16))})), STREAM)
    assert read["h"].dtype == np.float64
    assert read["h"].tolist() == [0.5, 1]


@pytest.mark.parametrize("name", ["large_string", pytest.param("string_view", marks=VIEWS)])
def test_other_texts_are_text(name):
    table = pa.table({"s": pa.array(["a", "x" * 40, None]).cast(getattr(pa, name)())})
    assert content.decode(ipc(table), STREAM)["s"].tolist()[:2] == ["a", "x" * 40]


def test_batches_with_dictionaries_of_their_own_become_one_column():
    batches = [pa.record_batch([pa.array([t]).dictionary_encode()], ["c"]) for t in "az"]
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, batches[0].schema) as writer:
        for batch in batches:
            writer.write(batch)
    assert content.decode(stream.getvalue(), STREAM)["c"].tolist() == ["a", "z"]


@BOTH
@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ([[1], [2, 3]], "list<"),
        ([{"a": 1}, {"a": 2}], "struct<a: int64>"),
        ([b"a", b"b"], "binary"),
        (pa.array([1, 2], pa.time32("s")), "time32"),
    ],
)
def test_a_column_of_another_type_is_named(media_type, write, column, kind):
    message = refused(write(pa.table({"fine": [1, 2], "odd": column})), media_type)
    assert message.startswith(f"the column 'odd' is of type {kind}")


@BOTH
def test_bodies_without_rows_or_columns_are_refused(media_type, write):
    assert "has no rows" in refused(write(pa.table({"a": pa.array([], pa.int64())})), media_type)
    assert "has 0 columns" in refused(write(pa.table({})), media_type)


def test_a_name_that_comes_twice_is_refused():
    table = pa.table([[1], [2]], names=["a", "a"])
    assert refused(ipc(table), STREAM) == "the body has the column 'a' twice"


@pytest.mark.parametrize("media_type", [PARQUET, STREAM, FILE])
@pytest.mark.parametrize("body", [b"", b"PAR1", b"ARROW1\0\0", b"1,2,3\n" * 10, b"\xff" * 64])
def test_what_is_none_of_them_is_a_bad_request(media_type, body):
    assert "body" in refused(body, media_type)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [(PARQUET, parquet(pa.table(FRAME))), (STREAM, ipc(pa.table(FRAME)))],
)
def test_a_body_cut_short_is_a_bad_request(media_type, body):
    for length in range(0, len(body) - 8, 97):
        refused(body[:length], media_type)


# -- small bodies that claim much ----------------------------------------------------------------


@pytest.mark.usefixtures("a_megabyte")
@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (PARQUET, parquet(pa.table({"a": np.zeros(200_000)}), compression="zstd")),
        (PARQUET, parquet(pa.table({"a": np.zeros(200_000, np.int8)}))),
        (PARQUET, parquet(pa.table({"a": ["x" * 2_000_000]}), compression="zstd")),
        (STREAM, ipc(pa.table({"a": np.zeros(200_000)}), compression="zstd")),
        (FILE, ipc_file(pa.table({"a": np.zeros(200_000)}), compression="lz4")),
        (STREAM, ipc(pa.table({"a": pa.nulls(200_000)}))),
        (STREAM, ipc(pa.table({"a": ["x" * 2_000_000]}), compression="zstd")),
    ],
)
def test_a_body_that_unpacks_to_too_much_is_refused(media_type, body):
    assert len(body) < 40_000
    assert "at most 1048576 are accepted" in refused(body, media_type, PayloadTooLarge)


@pytest.mark.usefixtures("a_megabyte")
def test_a_text_said_ten_thousand_times_by_reference_is_measured_written_out():
    indices = pa.array(np.zeros(10_000, np.int32))
    often = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10_000]))
    body = parquet(pa.table({"s": often}), store_schema=False)
    assert "the text of the Parquet body" in refused(body, PARQUET, PayloadTooLarge)


@VIEWS
@pytest.mark.usefixtures("a_megabyte")
def test_a_text_viewed_ten_thousand_times_is_measured_written_out():
    text = b"x" * 10_000
    view = np.array([len(text), int.from_bytes(text[:4], "little"), 0, 0], np.int32)
    buffers = [None, pa.py_buffer(np.tile(view, 10_000)), pa.py_buffer(text)]
    views = pa.Array.from_buffers(pa.string_view(), 10_000, buffers)
    assert "at most" in refused(ipc(pa.table({"s": views})), STREAM, PayloadTooLarge)


def test_a_prefix_said_by_reference_is_refused():
    body = parquet(
        pa.table({"s": ["x" * 1000] * 50}),
        use_dictionary=False,
        column_encoding={"s": "DELTA_BYTE_ARRAY"},
    )
    assert "is encoded as DELTA_BYTE_ARRAY" in refused(body, PARQUET)


def test_a_page_is_measured_by_its_header_and_not_by_the_file_s_footer():
    table = pa.table({"a": np.zeros(1000)})
    body = parquet(table, compression="zstd", use_dictionary=False, column_encoding={"a": "PLAIN"})
    # PageHeader's first fields in Thrift's compact protocol: a data page of 8,007 bytes.
    honest, lie = b"PAR1\x15\x00\x15\x8e\x7d", b"PAR1\x15\x00\x15\xfe\xff\xff\xff\x0f"
    assert body.startswith(honest)
    message = refused(body.replace(honest, lie), PARQUET, PayloadTooLarge)
    assert "2147483647 bytes decoded" in message


def test_a_footer_that_contradicts_itself_does_not_end_the_process():
    # A column that may be null says that it may not: pyarrow's metadata calls std::terminate.
    optional, required = b"\x25\x02\x18\x01a", b"\x25\x00\x18\x01a"
    body = parquet(pa.table({"a": [1.0, None]}), store_schema=False)
    assert body.count(optional) == 1
    assert "malformed" in refused(body.replace(optional, required), PARQUET)


def test_a_footer_of_megabytes_is_refused():
    table = pa.table({"a": [1]}).replace_schema_metadata({"note": "x" * 2_000_000})
    assert "the Parquet body's footer" in refused(parquet(table), PARQUET, PayloadTooLarge)


def test_what_arrow_cannot_allocate_is_too_large_only_if_it_is(monkeypatch):
    def failing(message):
        def batches(body):
            raise pa.ArrowMemoryError(message)

        return batches

    monkeypatch.setattr(
        arrow_codec, "_stream_batches", failing("malloc of size 99999999999 failed")
    )
    assert "claims a buffer of 99999999999" in refused(b"", STREAM, PayloadTooLarge)
    monkeypatch.setattr(arrow_codec, "_stream_batches", failing("malloc of size 4096 failed"))
    with pytest.raises(MemoryError):
        content.decode(b"", STREAM)


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_a_message_s_claim_is_its_rows_and_its_bytes_decompressed(compression):
    table = pa.table({"a": np.arange(1000.0), "s": ["x" * 10] * 1000})
    body = ipc(table, compression=compression)
    claims = [claim_of(message) for message in pa.ipc.MessageReader.open_stream(body)]
    assert sum(claim.rows for claim in claims) == 1000
    assert 22_000 <= sum(claim.size for claim in claims) <= 22_200


def test_a_dictionary_s_claim_counts_its_bytes_and_no_rows():
    body = ipc(pa.table({"c": pa.array(["x" * 5000] * 9).dictionary_encode()}))
    claims = [claim_of(message) for message in pa.ipc.MessageReader.open_stream(body)]
    assert [claim.rows for claim in claims] == [0, 0, 9]
    assert claims[1].size >= 5000


# -- without pyarrow, and without threads --------------------------------------------------------


@pytest.fixture
def without_pyarrow(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    caches = (registry.decoders, registry._decoder_of)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("without_pyarrow")
@pytest.mark.parametrize("media_type", [PARQUET, STREAM, FILE])
def test_without_pyarrow_its_formats_are_not_read_and_not_listed(media_type):
    with pytest.raises(UnsupportedMediaType) as caught:
        content.decode(b"", media_type)
    assert "text/libsvm" in caught.value.message.partition("accepted are")[2]
    assert media_type not in caught.value.message.partition("accepted are")[2]


def test_with_pyarrow_its_formats_are_listed():
    assert importlib.util.find_spec("pyarrow")
    with pytest.raises(UnsupportedMediaType, match="application/x-parquet"):
        content.decode(b"", "application/octet-stream")


def test_nothing_of_a_rare_format_is_imported_before_its_first_body():
    run(
        """
        import sys
        from manymodels import content
        rare = {"pyarrow", "google.protobuf", "scipy.sparse", "zipfile", "pandas"}
        assert content.decode(b"1,2", "text/csv").tolist() == [[1, 2]]
        try:
            content.decode(b"", "application/octet-stream")
        except Exception as error:
            assert "parquet" in str(error)
        codecs = [name for name in sys.modules if name.startswith("manymodels.content.")]
        late = ("npy", "npz", "arrow", "libsvm", "recordio", "sparse", "claims")
        assert not [name for name in codecs if any(word in name for word in late)], codecs
        assert not rare & set(sys.modules)
        """
    )


def test_bodies_are_read_in_the_one_thread_that_a_model_process_has(tmp_path):
    (tmp_path / "parquet").write_bytes(parquet(pa.table(FRAME)))
    (tmp_path / "stream").write_bytes(ipc(pa.table(FRAME), compression="zstd"))
    run(
        f"""
        import os
        from manymodels import content
        for name, media_type in (("parquet", "{PARQUET}"), ("stream", "{STREAM}")):
            with open("{tmp_path}/" + name, "rb") as file:
                assert content.decode(file.read(), media_type).shape == (3, 6)
        assert len(os.listdir("/proc/self/task")) == 1
        """
    )


def run(code):
    """Run code in a process as model processes are: held to one thread by the host."""
    environment = {
        **os.environ,
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
    }
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, env=environment, timeout=60)

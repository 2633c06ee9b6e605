"""Every decoder that is registered, given bytes of all sorts: rows come out, or a 4xx.

FUZZ_EXAMPLES says how many bodies a decoder is given (500). The bodies follow from a number, so
that a failure comes again; FUZZ_SEED says another one.
"""

from __future__ import annotations

import base64
import io
import json
import os
import random
import resource
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from manymodels import content
from manymodels.content import Columns, limits, registry
from manymodels.content.recordio import frame, record_class
from manymodels.errors import ManyModelsError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "500"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
PEAK_GROWTH = 600 << 20
"""Bytes: a body's decoded cells at most, what they are made from, and an allocator's share."""
LARGEST_BODY = 1 << 16
NAMES = ("a", "b", "c")
COLUMNS = (
    Columns(),
    Columns(count=3),
    Columns(3, NAMES, frame=True),
    Columns(3, numbers=True),
    Columns(3, NAMES, numbers=True),
    Columns(3, NAMES, frame=True, text=frozenset({2})),
)
NUMBERS = np.array([[1, 2.5, -3], [0, 1e300, 7]])
FRAME = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": ["x", "ü"]})
MIXED = pd.DataFrame({"a": [1.5, 2], "b": [True, False], "c": pd.Categorical(["p", "q"])})
WORDS = (
    *"{}[](),:;\"'#\\ \t\n\r\0",
    *("0", "1", "-1", "2.5", "1e999", "nan", "inf", "1_0", "99999999999999999999", "0x1", "٣"),
    *("null", "true", "NaN", "a", "b", "c", "ü", "\ufeff", "\ud800", "\u2028"),
    *('"a"', '"values"', '"instances"', '"inputs"', '"data"', '"features"', '"columns"'),
    *("0:1", "1:2", "2:", "3:1", "9:9", "qid:1", "1,2,3", "a,b,c", "[1,2,3]", "[[1,2,3]]", "[{"),
)
TEXTS = ("csv", "json", "libsvm", "lines")


def test_the_formats_of_the_handler_are_here():
    assert len(registry.decoders()) >= 11
    assert set(SEEDS) <= set(registry.decoders())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("media_type", list(registry.decoders()))
def test_any_body_is_rows_or_a_4xx(media_type):
    if EXAMPLES < 1:
        pytest.skip("FUZZ_EXAMPLES is 0")
    rng = random.Random(f"{SEED} {media_type}")
    valid = SEEDS.get(media_type, text_seeds)()
    # Each columns' first body imports and caches, which does not count as its memory.
    valid = [body for body in valid if [True for each in COLUMNS if check(body, media_type, each)]]
    assert valid, "the valid bodies are not read"
    before = peak()
    for index, body in enumerate(bodies(rng, media_type, valid)):
        check(body, with_parameters(rng, media_type), COLUMNS[index % len(COLUMNS)])
    assert peak() - before < PEAK_GROWTH


def check(body: bytes | str, media_type: str, columns: Columns) -> bool:
    """Tell whether the body was read; fail for what is neither rows nor a 4xx."""
    what = f"content type {media_type!r}, {columns}, body {encoded(body)}"
    rows = outcome(body, media_type, columns, what)
    if isinstance(rows, ManyModelsError):
        assert 400 <= rows.status < 500, what
        assert rows.message, what
        return False
    assert len(rows.shape) == 2, what
    assert rows.shape[0] >= 1, what
    assert rows.shape[1] == (columns.count or max(rows.shape[1], 1)), what
    assert not columns.numbers or rows.dtype == np.float64, what
    assert size_of(rows) <= limits.DECODED_BYTES, what
    return True


def outcome(body: bytes | str, media_type: str, columns: Columns, what: str) -> Any:
    try:
        return content.decode(body, media_type, columns)
    except ManyModelsError as error:
        return error
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {what}") from error


def bodies(rng: random.Random, media_type: str, valid: list[bytes]) -> Iterator[bytes | str]:
    """Yield as many as are asked for, of three kinds."""
    text = any(word in media_type for word in TEXTS)
    for _ in range(EXAMPLES):
        kind = rng.random()
        if text and kind < 0.3:
            written = "".join(rng.choices(WORDS, k=rng.randint(0, 25)))
            yield written if rng.random() < 0.1 else written.encode(errors="surrogatepass")
        elif kind < 0.4 if text else kind < 0.1:
            yield rng.randbytes(rng.randint(0, 200))
        else:
            yield mutated(rng, valid) if kind < 0.7 else inside(rng, media_type, valid)


def with_parameters(rng: random.Random, media_type: str) -> str:
    if rng.random() < 0.8:
        return media_type
    names = ("indexing", "header", "delimiter", "charset", "q")
    values = ("0", "1", "present", "absent", "true", "utf-8", "latin-1", ";", '"\t"', "", "\0")
    return f"{media_type}; {rng.choice(names)}={rng.choice(values)}"


def inside(rng: random.Random, media_type: str, valid: list[bytes]) -> bytes:
    """A valid wrapping around a mutated body: what a checksum or a frame would not let through."""
    if media_type == "application/x-npz":
        with zipfile.ZipFile(io.BytesIO(rng.choice(valid))) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        for name in rng.sample(sorted(members), k=rng.randint(1, min(2, len(members)))):
            members[name] = mutated(rng, [members[name], *members.values()])
        return zipped(members, rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    if media_type == "application/x-recordio-protobuf":
        payloads = [one[8 : 8 + int.from_bytes(one[4:8], "little")] for one in valid]
        return b"".join(frame(mutated(rng, payloads)) for _ in range(rng.randint(1, 3)))
    return mutated(rng, valid)


# -- mutations -----------------------------------------------------------------------------------


def mutated(rng: random.Random, valid: list[bytes]) -> bytes:
    body = bytearray(rng.choice(valid))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if body:
            rng.choice(MUTATIONS)(rng, body, valid)
    return bytes(body[:LARGEST_BODY])


def flip(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)


def set_byte(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    body[rng.randrange(len(body))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def cut(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    del body[rng.randrange(len(body)) :]


def remove(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    start = rng.randrange(len(body))
    del body[start : start + rng.randint(1, 16)]


def repeat(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    start = rng.randrange(len(body))
    chunk = body[start : start + rng.randint(1, 64)]
    body[start:start] = chunk * rng.choice((1, 2, 100))


def splice(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    other = rng.choice(valid)
    start = rng.randrange(len(other) + 1)
    body[rng.randrange(len(body)) :] = other[start:]


def edit_length(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    """Write an integer where one may be: lengths, counts, offsets, in any width."""
    width = rng.choice((1, 2, 4, 4, 8, 8))
    edges = (0, 1, 2, 1 << 15, 1 << 28, 1 << 31, (1 << 31) - 1, 1 << 40, 1 << 62, 1 << 63, -1)
    value = rng.choice((*edges, len(body), rng.randrange(1 << 20))) % (1 << 8 * width)
    place = rng.randrange(len(body))
    if rng.random() < 0.5:
        place -= place % width
    body[place : place + width] = value.to_bytes(width, rng.choice(("little", "little", "big")))


def insert_digits(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    """Lengths that are written as text: NPY's shape, and what text formats hold."""
    digits = [index for index, byte in enumerate(body[:2000]) if 48 <= byte <= 57]
    if digits:
        place = rng.choice(digits)
        body[place:place] = b"9" * rng.choice((1, 5, 12, 30))


def end_in_noise(rng: random.Random, body: bytearray, valid: list[bytes]) -> None:
    body[rng.randrange(len(body)) :] = rng.randbytes(rng.randint(0, 64))


MUTATIONS = (
    *(flip, set_byte, cut, remove, repeat, splice, end_in_noise, insert_digits),
    *(edit_length, edit_length),
)


# -- valid bodies --------------------------------------------------------------------------------


def text_seeds() -> list[bytes]:
    """For a text format, and for one that is not known here."""
    rows = [[1, 2.5, -3], [0, 1e300, 7]]
    records = [{"a": 1, "b": None, "c": "x"}, {"a": 2, "b": 0.5, "c": "ü"}]
    return [
        b"1,2.5,-3\n0,,7\n",
        'a,b,c\r\n1,2,"x ""y"", z"\r\n3,,ü\r\n'.encode(),
        b"1;2;3\n4;5;6\n",
        json.dumps(rows).encode(),
        json.dumps({"instances": rows}).encode(),
        json.dumps({"instances": records}).encode(),
        json.dumps({"instances": [{"features": row} for row in rows]}).encode(),
        json.dumps({"data": rows, "columns": list(NAMES)}).encode(),
        "\n".join(json.dumps(row) for row in rows).encode(),
        "\n".join(json.dumps(record) for record in records).encode(),
        b"1 0:0.5 2:-3 # a comment\n-1 qid:3 1:2\n0:1\n",
    ]


def npy_seeds() -> list[bytes]:
    structures = np.array([(1, 0.5, "x"), (2, 1.5, "y")], [("a", "<i4"), ("b", ">f8"), ("c", "U3")])
    arrays = (NUMBERS, np.asfortranarray(NUMBERS), NUMBERS[0].astype(">f4"), structures,
              NUMBERS.astype("S8"), np.array([["x", "ü", "z"]]), np.ones((2, 3), np.float16),
              np.ones((5, 3), bool), np.array(1.0))  # fmt: skip
    return [written(np.save, array) for array in arrays]


def npz_seeds() -> list[bytes]:
    sparse = scipy.sparse.csr_matrix(np.round(NUMBERS))
    kinds = ("csr", "csc", "coo", "bsr", "dia")
    return [
        written(np.savez, NUMBERS),
        written(np.savez_compressed, NUMBERS),
        written(np.savez, a=[1, 2], b=[0.5, 1], c=["x", "y"]),
        *[written(scipy.sparse.save_npz, sparse.asformat(kind), False) for kind in kinds],
        written(scipy.sparse.save_npz, sparse),
    ]


def recordio_seeds() -> list[bytes]:
    dense, sparse, named = record_class()(), record_class()(), record_class()()
    dense.features["values"].float32_tensor.values.extend([1, 2, 3])
    dense.label["values"].float32_tensor.values.append(1)
    sparse.features["values"].float64_tensor.values.extend([1, 2])
    sparse.features["values"].float64_tensor.keys.extend([0, 2])
    sparse.features["values"].float64_tensor.shape.append(3)
    for name in NAMES:
        named.features[name].int32_tensor.values.append(1)
    named.features["c"].bytes.value.append(b"x")
    whole = [frame(each.SerializeToString()) * 2 for each in (dense, sparse, named)]
    payload = dense.SerializeToString()
    split = frame(payload[:8]), frame(payload[8:])
    parts = [bytearray(part) for part in split]
    parts[0][7], parts[1][7] = 1 << 5, 3 << 5
    return [*whole, bytes(parts[0] + parts[1]), whole[0][:28] + whole[1]]


def parquet_seeds() -> list[bytes]:
    def parquet(frame: pd.DataFrame, **options: object) -> bytes:
        return written(lambda stream: pq.write_table(pa.table(frame), stream, **options))

    return [
        parquet(FRAME),
        parquet(FRAME, use_dictionary=False, compression="zstd", data_page_version="2.0"),
        parquet(MIXED, compression="none"),
        parquet(FRAME, row_group_size=1, store_schema=False, compression="gzip"),
        parquet(pd.DataFrame(NUMBERS, columns=list(NAMES)), use_byte_stream_split=True,
                use_dictionary=False),
    ]  # fmt: skip


def arrow_seeds(new: Callable[..., object]) -> list[bytes]:
    types = [pa.int8(), pa.null(), getattr(pa, "string_view", pa.large_string)()]
    others = pa.table({"a": [1, 2], "b": pa.nulls(2), "c": pa.array(["x", "y" * 20])})
    others = others.cast(pa.schema(list(zip(NAMES, types, strict=True))))
    tables = [pa.table(FRAME), pa.table(MIXED), others]
    return [
        ipc(table, new, compression) for table in tables for compression in (None, "lz4", "zstd")
    ]


def zipped(members: dict[str, bytes], method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def ipc(table: pa.Table, new: Callable[..., object], compression: str | None) -> bytes:
    stream = io.BytesIO()
    with new(stream, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as to:
        to.write(table)
        to.write(table)
    return stream.getvalue()


def written(write: Callable[..., object], *arguments: object, **named: object) -> bytes:
    stream = io.BytesIO()
    write(stream, *arguments, **named)
    return stream.getvalue()


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "application/x-npy": npy_seeds,
    "application/x-npz": npz_seeds,
    "application/x-recordio-protobuf": recordio_seeds,
    "application/x-parquet": parquet_seeds,
    "application/vnd.apache.parquet": parquet_seeds,
    "application/vnd.apache.arrow.stream": lambda: arrow_seeds(pa.ipc.new_stream),
    "application/vnd.apache.arrow.file": lambda: arrow_seeds(pa.ipc.new_file),
}


# -- measures ------------------------------------------------------------------------------------


def peak() -> int:
    """Return the most bytes that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def size_of(rows: object) -> int:
    if isinstance(rows, pd.DataFrame):
        return int(rows.memory_usage(deep=False).sum())
    if scipy.sparse.issparse(rows):
        return int(rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes)
    return int(np.asarray(rows).nbytes)


def encoded(body: bytes | str) -> str:
    """Return what gives the same body again."""
    return repr(body) if isinstance(body, str) else base64.b64encode(body).decode()

"""application/x-parquet, and Arrow's IPC streams and files: columns with names and types.

pyarrow reads them, in this thread. It trusts the sizes that a body claims, so they are added up
before anything is allocated, and again as batches come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from manymodels.content.ipc_claims import claim_of
from manymodels.content.limits import DECODED_BYTES, check_decoded
from manymodels.content.npy_codec import as_bytes
from manymodels.content.parquet_claims import check_claims, read_footer
from manymodels.content.table import Columns, Table
from manymodels.errors import BadRequest, PayloadTooLarge

_FILE_MAGIC = b"ARROW1\0\0"
_BATCH_ROWS = 8192
_MOST_COLUMNS = 10_000
_TEXT_CELL_BYTES = 64
_THRIFT_LIMITS = {"thrift_string_size_limit": 1 << 20, "thrift_container_size_limit": 1 << 17}
_INDEX_LEVEL = re.compile(r"__index_level_\d+__")
_CLAIMED = re.compile(r"\d{9,}")


def decode_parquet(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of a Parquet file as a DataFrame; see `_table` for what is refused."""
    return _table(_parquet_batches, as_bytes(body, "Parquet"), "Parquet", columns)


def decode_arrow_stream(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of an Arrow IPC stream as a DataFrame; see `_table` for what is refused."""
    return _table(_stream_batches, as_bytes(body, "Arrow"), "Arrow", columns)


def decode_arrow_file(body: object, parameters: Mapping[str, str], columns: Columns) -> Table:
    """Return the rows of an Arrow IPC file, Feather's version 2; see `_table`."""
    data = as_bytes(body, "Arrow")
    if not data.startswith(_FILE_MAGIC):
        raise BadRequest("the Arrow body is no IPC file: it does not begin with ARROW1")
    # Between its magic number and its footer a file is a stream.
    return _table(_stream_batches, data[len(_FILE_MAGIC) :], "Arrow", columns)


def _table(
    batches: Callable[[bytes], Iterator[Any]], body: bytes, what: str, columns: Columns
) -> Table:
    """Return all batches as one DataFrame, with its columns' names.

    Numbers, text, categories (from dictionaries), dates and timestamps are read; the index that
    pandas may have stored is left out. Raises BadRequest for columns of other types, by their
    names, and for a body that is malformed; PayloadTooLarge for one that takes too much memory.
    """
    import pyarrow as pa

    with _faults_of(what):
        pa.set_cpu_count(1)
        found, rows = [], 0
        for batch in batches(body):
            rows += batch.num_rows
            check_decoded(rows * _row_bytes(batch.schema), f"the {what} body of {rows} rows")
            found.append(batch)
        if not rows:
            raise BadRequest(f"the {what} body has no rows")
        frame = _frame(_without_index(pa.Table.from_batches(found), columns))
        return Table(frame, tuple(frame.columns))


@contextmanager
def _faults_of(what: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except MemoryError as error:
        claimed = max((int(number) for number in _CLAIMED.findall(str(error))), default=0)
        if claimed <= DECODED_BYTES:
            raise
        raise PayloadTooLarge(f"the {what} body claims a buffer of {claimed} bytes") from error
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise BadRequest(f"the {what} body is malformed: {reason}") from error


def _stream_batches(body: bytes) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.ipc

    rows = size = 0
    for message in pa.ipc.MessageReader.open_stream(body):
        claim = claim_of(message)
        rows, size = rows + claim.rows, size + claim.size
        check_decoded(size, "the Arrow body")
    options = pa.ipc.IpcReadOptions(use_threads=False)
    with pa.ipc.open_stream(body, options=options) as reader:
        _check_schema(reader.schema)
        check_decoded(rows * _row_bytes(reader.schema), f"the Arrow body of {rows} rows")
        for batch in reader:
            batch.validate(full=True)  # offsets and indices are the client's until now
            size += sum(_viewed_bytes(column) for column in batch.columns if _is_view(column.type))
            check_decoded(size, "the Arrow body")
            yield batch


def _parquet_batches(body: bytes) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    footer = read_footer(body)
    pa.set_io_thread_count(1)
    options = {"pre_buffer": False, **_THRIFT_LIMITS}
    schema = parquet.ParquetFile(pa.BufferReader(body), **options).schema_arrow
    _check_schema(schema)
    check_claims(body, footer, _row_bytes(schema))
    # Read as dictionaries, a text that comes a million times is held once until it is measured.
    text = [field.name for field in schema if _is_text(field.type)]
    reader = parquet.ParquetFile(pa.BufferReader(body), read_dictionary=text, **options)
    size = 0
    for batch in reader.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
        size += sum(_referred_bytes(batch.column(name)) for name in text)
        check_decoded(size, "the text of the Parquet body")
        written = [_written_out(batch.column(field.name), field) for field in schema]
        whole = pa.record_batch(written, schema=schema)
        whole.validate(full=True)  # text in UTF-8
        yield whole


def _check_schema(schema: Any) -> None:
    names = schema.names
    if not 0 < len(names) <= _MOST_COLUMNS:
        raise BadRequest(
            f"the body has {len(names)} columns; from 1 to {_MOST_COLUMNS} are accepted"
        )
    if len(set(names)) < len(names):
        again = next(name for index, name in enumerate(names) if name in names[:index])
        raise BadRequest(f"the body has the column {again!r} twice")
    for field in schema:
        if not _is_read(field.type):
            raise BadRequest(
                f"the column {field.name!r} is of type {str(field.type)[:60]}; numbers, text, "
                "categories, dates and timestamps are read"
            )


def _is_read(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return not types.is_dictionary(kind.value_type) and _is_read(kind.value_type)
    plain = (
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_timestamp,
        types.is_date,
        types.is_null,
    )
    return _is_text(kind) or any(test(kind) for test in plain)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or _is_view(kind)


def _is_view(kind: Any) -> bool:
    return str(kind) == "string_view"


def _row_bytes(schema: Any) -> int:
    return sum(_TEXT_CELL_BYTES if _is_text(kind) else 8 for kind in schema.types)


def _viewed_bytes(column: Any) -> int:
    """Return the bytes of text in views, which may all show the same megabytes."""
    import numpy as np

    lengths = np.frombuffer(column.buffers()[1], np.int32)[::4]
    return int(lengths[column.offset : column.offset + len(column)].sum(dtype=np.int64))


def _referred_bytes(column: Any) -> int:
    """Return the bytes of text in a dictionary's column once it is written out."""
    import pyarrow.compute as pc

    if not hasattr(column, "dictionary"):
        return 0  # Arrow reads it plain, with as many bytes as its pages have
    lengths = pc.binary_length(column.dictionary)
    return pc.sum(lengths.take(column.indices)).as_py() or 0


def _written_out(column: Any, field: Any) -> Any:
    return column.cast(field.type) if column.type != field.type else column


def _frame(table: Any) -> Any:
    """Return a DataFrame; decimals, half-precision numbers and empty columns become float64."""
    import pyarrow as pa
    from pyarrow import types

    for index, field in enumerate(table.schema):
        if types.is_decimal(field.type) or types.is_null(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(pa.float64()))
    frame = table.to_pandas(use_threads=False, ignore_metadata=True, date_as_object=False)
    halves = [field.name for field in table.schema if types.is_float16(field.type)]
    return frame.astype(dict.fromkeys(halves, "float64")) if halves else frame


def _without_index(table: Any, columns: Columns) -> Any:
    wanted = columns.names or ()
    stored = [
        name for name in table.column_names if _INDEX_LEVEL.fullmatch(name) and name not in wanted
    ]
    return table.drop_columns(stored) if len(stored) < table.num_columns else table

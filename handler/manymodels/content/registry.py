"""Which media types are read and written, and by what.

Modules of formats that are rare are imported when the first body of that format comes. pyarrow's
formats are read where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from numpy.typing import NDArray

from manymodels.content import media_type
from manymodels.content.csv_codec import decode_csv
from manymodels.content.csv_writer import encode_csv, encode_csv_records
from manymodels.content.json_codec import decode_json, encode_json, encode_json_records
from manymodels.content.table import Columns, Table, arrange
from manymodels.errors import NotAcceptable, UnsupportedMediaType

CSV = "text/csv"
JSON = "application/json"
JSON_LINES = "application/jsonlines"
_JSON_LINES_NAMES = (
    JSON_LINES,
    "application/jsonl",
    "application/x-jsonlines",
    "application/x-ndjson",
)
NPY = "application/x-npy"
RECORDIO = "application/x-recordio-protobuf"
ANY_COLUMNS = Columns()

Decoder = Callable[[object, Mapping[str, str], Columns], Table]
Encoder = Callable[[NDArray[Any]], bytes]
RecordEncoder = Callable[[Sequence[str], Sequence[Any]], bytes]


@lru_cache(maxsize=1)
def decoders() -> Mapping[str, Decoder]:
    """Return what reads each media type that can be read here."""
    # Asked for once and without importing it, which takes longer than most requests.
    return _DECODERS if find_spec("pyarrow") is None else {**_DECODERS, **_ARROW_DECODERS}


def encoders() -> Mapping[str, Encoder]:
    """Return what writes each media type that can be written here."""
    return _ENCODERS


def decode(body: object, content_type: str, columns: Columns = ANY_COLUMNS) -> Any:
    """Return the body's rows as the model takes them: an array, a CSR matrix or a DataFrame.

    ``body`` is bytes, text, or the object that a JSON parser made of it before we were asked.
    Raises UnsupportedMediaType for a type that is not read, BadRequest for a body that is
    malformed, ragged, empty, or not of the model's columns.
    """
    decoder, parameters = _decoder_of(content_type)
    return arrange(decoder(body, parameters, columns), columns)


@lru_cache(maxsize=256)
def _decoder_of(content_type: str) -> tuple[Decoder, Mapping[str, str]]:
    name, parameters = media_type.parse(content_type)
    decoder = decoders().get(name)
    if decoder is None:
        raise UnsupportedMediaType(
            f"Content-Type {content_type!r} is not read here; accepted are {', '.join(decoders())}"
        )
    return decoder, parameters


def encode(predictions: NDArray[Any], name: str) -> bytes:
    """Return predictions, shape (n_rows,) or (n_rows, n_outputs), as the media type ``name``.

    ``name`` is what `negotiate` returned.
    """
    return _ENCODERS[name](predictions)


def encode_records(keys: Sequence[str], columns: Sequence[Any], name: str) -> bytes:
    """Return outputs as the media type ``name``, a record a row with a value for each key.

    An output, an array or a list, has shape (n_rows,) or (n_rows, k), whose k values are a list.
    Raises NotAcceptable for a media type that has no records.
    """
    encoder = _RECORD_ENCODERS.get(name)
    if encoder is None:
        raise NotAcceptable(
            f"{name} does not hold outputs by name; available are {', '.join(_RECORD_ENCODERS)}"
        )
    return encoder(keys, columns)


def negotiate(accept: str | None, default: str = JSON) -> str:
    """Return the media type to answer with; NotAcceptable when there is none."""
    return media_type.negotiate(accept, default, tuple(_ENCODERS))


def _late(module: str, function: str) -> Callable[..., Any]:
    """Return a function of a module of this package that is imported at the first call."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(f"manymodels.content.{module}"), function)(*arguments)

    return call


_DECODERS: Mapping[str, Decoder] = {
    CSV: decode_csv,
    JSON: decode_json,
    **dict.fromkeys(_JSON_LINES_NAMES, _late("jsonlines_codec", "decode_jsonlines")),
    NPY: _late("npy_codec", "decode_npy"),
    "application/x-npz": _late("npz_codec", "decode_npz"),
    "text/libsvm": _late("libsvm_codec", "decode_libsvm"),
    "text/x-libsvm": _late("libsvm_codec", "decode_libsvm"),
    RECORDIO: _late("recordio_codec", "decode_recordio"),
}
_ARROW_DECODERS: Mapping[str, Decoder] = {
    "application/x-parquet": _late("arrow_codec", "decode_parquet"),
    "application/vnd.apache.parquet": _late("arrow_codec", "decode_parquet"),
    "application/vnd.apache.arrow.stream": _late("arrow_codec", "decode_arrow_stream"),
    "application/vnd.apache.arrow.file": _late("arrow_codec", "decode_arrow_file"),
}
_ENCODERS: Mapping[str, Encoder] = {
    JSON: encode_json,
    CSV: encode_csv,
    **dict.fromkeys(_JSON_LINES_NAMES, _late("jsonlines_codec", "encode_jsonlines")),
    NPY: _late("npy_codec", "encode_npy"),
    RECORDIO: _late("recordio_encoder", "encode_recordio"),
}
_RECORD_ENCODERS: Mapping[str, RecordEncoder] = {
    JSON: encode_json_records,
    CSV: encode_csv_records,
    **dict.fromkeys(_JSON_LINES_NAMES, _late("jsonlines_codec", "encode_jsonlines_records")),
    RECORDIO: _late("recordio_encoder", "encode_records"),
}

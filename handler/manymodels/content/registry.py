"""Which media types are read and written, and by what.

Modules of formats that are rare are imported when the first body of that format comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from manymodels.content import media_type
from manymodels.content.csv_codec import decode_csv, encode_csv
from manymodels.content.json_codec import decode_json, encode_json
from manymodels.content.table import Columns, Table, arrange
from manymodels.errors import UnsupportedMediaType

CSV = "text/csv"
JSON = "application/json"
ANY_COLUMNS = Columns()

Decoder = Callable[[object, Mapping[str, str], Columns], Table]
Encoder = Callable[[NDArray[Any]], bytes]


def decoders() -> Mapping[str, Decoder]:
    """Return what reads each media type that can be read here."""
    return _DECODERS


def encoders() -> Mapping[str, Encoder]:
    """Return what writes each media type that can be written here."""
    return _ENCODERS


def decode(body: object, content_type: str, columns: Columns = ANY_COLUMNS) -> Any:
    """Return the body's rows as the model takes them: an array, a CSR matrix or a DataFrame.

    ``body`` is bytes, text, or the object that a JSON parser made of it before we were asked.
    Raises UnsupportedMediaType for a type that is not read, BadRequest for a body that is
    malformed, ragged, empty, or not of the model's columns.
    """
    name, parameters = media_type.parse(content_type)
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise UnsupportedMediaType(
            f"Content-Type {content_type!r} is not read here; accepted are {', '.join(_DECODERS)}"
        )
    return arrange(decoder(body, parameters, columns), columns)


def encode(predictions: NDArray[Any], name: str) -> bytes:
    """Return predictions, shape (n_rows,) or (n_rows, n_outputs), as the media type ``name``.

    ``name`` is what `negotiate` returned.
    """
    return _ENCODERS[name](predictions)


def negotiate(accept: str | None, default: str = JSON) -> str:
    """Return the media type to answer with; NotAcceptable when there is none."""
    return media_type.negotiate(accept, default, tuple(_ENCODERS))


_DECODERS: Mapping[str, Decoder] = {
    CSV: decode_csv,
    JSON: decode_json,
}
_ENCODERS: Mapping[str, Encoder] = {
    JSON: encode_json,
    CSV: encode_csv,
}

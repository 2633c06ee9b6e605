"""Which media types are read and written, and by what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.content.csv_codec import decode_csv, encode_csv
from manymodels.content.json_codec import decode_json, encode_json
from manymodels.errors import NotAcceptable, UnsupportedMediaType

CSV = "text/csv"
JSON = "application/json"

DECODERS: Mapping[str, Callable[[object], NDArray[np.float64]]] = {
    CSV: decode_csv,
    JSON: decode_json,
}
ENCODERS: Mapping[str, Callable[[NDArray[Any]], bytes]] = {
    JSON: encode_json,
    CSV: encode_csv,
}


def decode(body: object, content_type: str) -> NDArray[np.float64]:
    """Return the body's rows, shape (n_rows, n_features), at least one of each.

    ``body`` is bytes, text, or the object that a JSON parser made of it before we were asked.
    Raises UnsupportedMediaType for a type that is not read, BadRequest for a body that is
    malformed, ragged or empty.
    """
    decoder = DECODERS.get(content_type) or DECODERS.get(_without_parameters(content_type))
    if decoder is None:
        raise UnsupportedMediaType(
            f"Content-Type {content_type!r} is not read here; accepted are {', '.join(DECODERS)}"
        )
    return decoder(body)


def encode(predictions: NDArray[Any], media_type: str) -> bytes:
    """Return predictions, shape (n_rows,) or (n_rows, n_outputs), as ``media_type``.

    ``media_type`` is what `negotiate` returned.
    """
    return ENCODERS[media_type](predictions)


@lru_cache(maxsize=128)
def negotiate(accept: str | None, default: str = JSON) -> str:
    """Return the first media type in ``accept`` that can be produced.

    A missing Accept means ``default``, and so does a wildcard that covers it. Raises
    NotAcceptable when nothing in the list can be produced.
    """
    for item in (accept or default).split(","):
        wanted = _without_parameters(item)
        for produced in (_without_parameters(default), *ENCODERS):
            if produced in ENCODERS and _covers(wanted, produced):
                return produced
    raise NotAcceptable(
        f"Accept {accept or default!r} cannot be produced; available are {', '.join(ENCODERS)}"
    )


def _covers(wanted: str, produced: str) -> bool:
    if wanted.endswith("/*"):
        return wanted == "*/*" or produced.startswith(wanted[:-1])
    return wanted == produced


def _without_parameters(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()

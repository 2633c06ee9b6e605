"""A body as text, whatever its charset, and what a message shows of a value."""

from __future__ import annotations

import codecs
from collections.abc import Mapping

import orjson

from manymodels.errors import BadRequest, UnsupportedMediaType

SHOWN = 60
"""Characters of a client's value that a message repeats."""
_BYTE_ORDER_MARK = "\ufeff"


def as_text(body: object, parameters: Mapping[str, str], form: str) -> str:
    """Return a body of bytes or text as text, without a byte order mark.

    The parameter ``charset`` says what the bytes are, UTF-8 if it is left out. ``form`` is the
    format's name for messages. Raises UnsupportedMediaType for a charset that Python does not
    know, BadRequest for bytes that are not of it and for a body that is not text at all.
    """
    if isinstance(body, str):
        return _storable(body, form).removeprefix(_BYTE_ORDER_MARK)
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise BadRequest(f"the {form} body is not text but {type(body).__name__}")
    name = parameters.get("charset") or "utf-8"
    try:
        if name.lower() == "utf-8":
            return str(body, "utf-8").removeprefix(_BYTE_ORDER_MARK)
        text = str(body, _codec(name))
    except UnicodeDecodeError as error:
        shown = "UTF-8" if name.lower() == "utf-8" else name
        raise BadRequest(
            f"the {form} body is not {shown}: {error.reason} at byte {error.start}"
        ) from error
    except UnicodeError as error:  # some codecs say no more than that
        raise BadRequest(f"the {form} body is not {name}: {_one_line(error)}") from error
    return _storable(text, form).removeprefix(_BYTE_ORDER_MARK)


def shown(value: object) -> str:
    """Return a parsed JSON value as a message shows it."""
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = type(value).__name__
    return shortened(text)


def shortened(text: str) -> str:
    """Return the beginning of a client's text."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def is_storable(text: str) -> bool:
    """Whether a text could be written again: half of a surrogate pair could not."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _codec(name: str) -> str:
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):  # ValueError for a name with a null character
        found = None
    # Python's registry also has transformations that are no charsets, such as zip and hex.
    if found is None or not getattr(found, "_is_text_encoding", True):
        raise UnsupportedMediaType(
            f"the charset {shortened(name)!r} is not known here; utf-8, latin-1 and others are"
        )
    return found.name


def _storable(text: str, form: str) -> str:
    if not is_storable(text):
        raise BadRequest(f"the {form} body has half of a surrogate pair, which is no character")
    return text


def _one_line(error: Exception) -> str:
    return shortened(str(error).partition("\n")[0])

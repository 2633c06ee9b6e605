"""What users' functions are given, and what they return: as under the SageMaker toolkit."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import orjson

from manymodels.content import CSV, JSON
from manymodels.content.media_type import parse
from manymodels.errors import BadRequest, UnsupportedMediaType

_AS_TEXT = (CSV, JSON)
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Answer(NamedTuple):
    """What a user's function answers; ``content_type`` and ``status`` where it says them."""

    body: bytes
    content_type: str | None = None
    status: int | None = None


def body_for_user(body: Any, content_type: str | None) -> str | bytes | bytearray:
    """Return a request's body as input_fn and transform_fn know it.

    That is str for text/csv and application/json, in the charset that the Content-Type names
    (UTF-8 otherwise), and the bytes as they came for anything else. What Multi Model Server has
    parsed already is JSON text again. Raises BadRequest for bytes that are not of their charset,
    UnsupportedMediaType for a charset that does not exist.
    """
    name, parameters = parse(content_type or "")
    if isinstance(body, bytes | bytearray | memoryview):
        if name in _AS_TEXT:
            return _decoded(body, name, parameters.get("charset") or "utf-8")
        return bytes(body) if isinstance(body, memoryview) else body
    if not isinstance(body, str):
        # By json, not orjson: it gives back NaN and numbers of any size as they were read.
        return json.dumps(body)
    if content_type == JSON:
        # The server parses bodies of exactly this Content-Type, so the text is a JSON string's.
        return json.dumps(body)
    return body if name in _AS_TEXT else bytearray(body.encode())


def accept_for_user(accept: str | None, default: str) -> str:
    """Return the Accept that output_fn is given: as it came, or the default for none or any."""
    return default if accept is None or accept.strip() in ("", "*/*") else accept


def answer_of(returned: Any) -> Answer:
    """Return what output_fn or transform_fn returned, as a body with its content type.

    The value is a body, a tuple of a body and its content type, or a response object such as
    werkzeug's, of which AWS's older containers have one. Text and bytes are sent as they are.
    Anything else is sent as JSON, as Multi Model Server does, and NumPy's and pandas's objects
    too, where it fails; the content type then says so. Raises TypeError for what JSON cannot say.
    """
    if isinstance(returned, tuple) and len(returned) > 1 and _names_type(returned[1]):
        body, is_json = _encoded(returned[0])
        return Answer(body, returned[1] or (JSON if is_json else None))
    if hasattr(returned, "response") and hasattr(returned, "mimetype"):
        return _response(returned)
    body, is_json = _encoded(returned)
    return Answer(body, JSON if is_json else None)


def _decoded(body: bytes | bytearray | memoryview, name: str, charset: str) -> str:
    # A byte order mark is no part of the text, and json.loads would refuse it.
    codec = "utf-8-sig" if charset.lower().replace("_", "-") in ("utf-8", "utf8") else charset
    try:
        return bytes(body).decode(codec)
    except LookupError as error:
        raise UnsupportedMediaType(f"the charset {charset!r} of {name} is not known") from error
    except ValueError as error:
        raise BadRequest(f"the {name} body is not {charset}: {error}") from error


def _names_type(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _response(response: Any) -> Answer:
    """Return what an object with ``response`` and ``mimetype`` says; see werkzeug's Response."""
    get_data = getattr(response, "get_data", None)
    body = get_data() if callable(get_data) else response.response
    if isinstance(body, list | tuple):
        body = b"".join(_encoded(part)[0] for part in body)
    status = getattr(response, "status_code", None)
    content_type = getattr(response, "content_type", None) or response.mimetype
    return Answer(_encoded(body)[0], content_type, status if isinstance(status, int) else None)


def _encoded(value: Any) -> tuple[bytes, bool]:
    """Return a value's bytes, and whether they are JSON that was made of it here."""
    if hasattr(value, "getvalue"):  # io.BytesIO, io.StringIO
        value = value.getvalue()
    if isinstance(value, str):
        return value.encode(), False
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), False
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS), True
    except TypeError:  # integers of more than 64 bits; json says better what else is wrong
        return json.dumps(value, default=_plain).encode(), True


def _plain(value: Any) -> Any:
    """Return an object as lists and numbers."""
    for method in ("tolist", "toarray", "to_numpy"):
        if hasattr(value, method):
            return getattr(value, method)()
    raise TypeError(
        f"a {type(value).__name__} cannot be sent: return bytes, str, what JSON can say, or a "
        "tuple of such a body and its content type"
    )

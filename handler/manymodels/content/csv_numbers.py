"""Numbers in CSV text: many at once where they are plain, one by one where they are not.

A row of plain numbers is, between brackets, a list of JSON's, and JSON's parser reads such text
several times faster than NumPy's readers. What JSON does not take for a number (+1, .5, inf) goes
the other way, but for nan.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

_PLAIN = b"0123456789+-.eE, \t\r\n"
_ENDS_OF_FIELDS = (b",", b"]", b"\r")
_NOT_A_NUMBER = b"naN"
_WHOLE = re.compile(r"[+-]?[0-9]+")
_BOOLEANS = {
    "True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False,
}  # fmt: skip


def plain_rows(body: bytes) -> list[list[int | float | None]] | None:
    """Return the rows of a CSV body of plain numbers and empty fields; None if it is not that.

    An empty field, and nan, is None. The rows may differ in length, and a blank line between them
    is a row of nothing.
    """
    further = body.translate(None, _PLAIN)
    if further:
        if further.translate(None, _NOT_A_NUMBER):
            return None
        body = body.replace(b"nan", b"null").replace(b"NaN", b"null")
    text = b"[[" + body.strip().replace(b"\n", b"],[") + b"]]"
    try:
        rows: list[list[int | float | None]] = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # Only a comma or a bracket that comes too early tells of an empty field.
        if text[error.pos : error.pos + 1] not in _ENDS_OF_FIELDS:
            return None
        try:
            rows = orjson.loads(_filled(text))
        except orjson.JSONDecodeError:
            return None
    return rows


def _filled(text: bytes) -> bytes:
    """Write null in each empty field of a row with more than one."""
    text = text.replace(b",,", b",null,").replace(b",,", b",null,")
    return text.replace(b"[,", b"[null,").replace(b",]", b",null]").replace(b",\r]", b",null]")


def number(field: str) -> float | None:
    """Return a field as a number, an empty one as NaN; None if it is no number."""
    text = field.strip()
    if not text:
        return float("nan")
    # float() also takes 1_000 and the digits of other scripts, which are no numbers of CSV.
    if "_" in text or not text.isascii():
        return None
    try:
        return float(text)
    except ValueError:
        return None


def numbers(fields: Sequence[str]) -> list[int | float | None] | None:
    """Return plain numbers as such, an empty field as None; None if not all are that."""
    try:
        rows = plain_rows(",".join(fields).encode("ascii"))
    except UnicodeEncodeError:
        return None
    # A quoted field may hold a comma or a line of its own: then there are more than there were.
    if rows is None or len(rows) != 1 or len(rows[0]) != len(fields):
        return None
    return rows[0]


def floats(fields: Sequence[str]) -> list[float] | None:
    """Return any numbers, with an empty field as NaN; None if one needs a closer look."""
    text = ",".join(fields)
    if "_" in text or not text.isascii():
        return None
    try:
        return [float(field or "nan") for field in fields]
    except ValueError:
        return None


def typed(fields: Sequence[str]) -> Sequence[object]:
    """Return a column's fields as int, float, bool or text, whichever all are; empty as None."""
    plain = numbers(fields)
    if plain is not None:
        return plain
    present = [field for field in fields if field.strip()]
    if all(field in _BOOLEANS for field in present):
        return [_BOOLEANS.get(field) for field in fields]
    if any(number(field) is None for field in present):
        return as_written(fields)
    return [_value(field) for field in fields]


def as_written(fields: Sequence[str]) -> Sequence[object]:
    """Return a column of text exactly as it is written; empty as None."""
    return [field or None for field in fields] if "" in fields else fields


def _value(field: str) -> int | float | None:
    text = field.strip()
    if not text:
        return None
    return int(text) if _WHOLE.fullmatch(text) and len(text) < 19 else float(text)

"""Content-Type and Accept: media types with parameters, and what a client prefers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from manymodels.errors import NotAcceptable

_SEPARATORS = {mark: re.compile(rf'"(?:\\.|[^"\\])*"?|{mark}', re.DOTALL) for mark in ",;"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_EXACT, _SUBTYPES, _ANY, _NONE = range(4)


class MediaType(NamedTuple):
    """``text/csv; header=present``: a lower-case name and its parameters."""

    name: str
    parameters: Mapping[str, str]


class _Range(NamedTuple):
    name: str
    quality: float
    position: int


@lru_cache(maxsize=256)
def parse(text: str) -> MediaType:
    """Return a media type: lower-case name, parameters by lower-case name (RFC 9110, 8.3.1).

    A quoted value loses its quotes. Of a parameter that comes twice the first one counts, and
    what is no parameter is passed over: any text is a media type, though few are known ones.
    """
    name, *pieces = _split(text, ";")
    parameters: dict[str, str] = {}
    for piece in pieces:
        key, equals, value = piece.partition("=")
        if equals:
            parameters.setdefault(key.strip().lower(), _unquoted(value.strip()))
    return MediaType(name.strip().lower(), MappingProxyType(parameters))


@lru_cache(maxsize=256)
def negotiate(accept: str | None, default: str, available: tuple[str, ...]) -> str:
    """Return the media type of ``available`` that ``accept`` likes best (RFC 9110, 12.5.1).

    The most specific range that covers a type says its q-value; the highest wins, among equals
    the first named, and q=0 refuses. Of parameters only q counts. A missing Accept means
    ``default``, and a wildcard prefers it. Raises NotAcceptable when nothing can be produced.
    """
    ranges = _ranges(accept or default)
    preferred = parse(default).name
    best: tuple[float, int, bool, int] | None = None
    chosen = ""
    for order, produced in enumerate(available):
        wanted = min(ranges, key=lambda each: _specificity(each.name, produced), default=None)
        if wanted is None or not wanted.quality or _specificity(wanted.name, produced) == _NONE:
            continue
        rank = (-wanted.quality, wanted.position, produced != preferred, order)
        if best is None or rank < best:
            best, chosen = rank, produced
    if best is None:
        raise NotAcceptable(
            f"Accept {accept or default!r} cannot be produced; available are {', '.join(available)}"
        )
    return chosen


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator is not within quotes."""
    if '"' not in text:
        return text.split(separator)
    pieces, start = [], 0
    for match in _SEPARATORS[separator].finditer(text):
        if match[0] == separator:
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return _ESCAPED.sub(r"\1", value[1:-1])
    return value


def _ranges(accept: str) -> list[_Range]:
    ranges = []
    for position, item in enumerate(_split(accept, ",")):
        if item.strip():
            name, parameters = parse(item)
            ranges.append(_Range(name, _quality(parameters.get("q", "1")), position))
    return ranges


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return min(max(quality, 0.0), 1.0) if quality == quality else 1.0


def _specificity(wanted: str, produced: str) -> int:
    if wanted == produced:
        return _EXACT
    if wanted == "*/*":
        return _ANY
    if wanted.endswith("/*") and produced.startswith(wanted[:-1]):
        return _SUBTYPES
    return _NONE

"""Content-Type and Accept: media types with parameters, and what a client prefers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from email.message import Message
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from manymodels.errors import NotAcceptable


class MediaType(NamedTuple):
    """``text/csv; header=present``: a lower-case name and its parameters."""

    name: str
    parameters: Mapping[str, str]


class _Range(NamedTuple):
    name: str
    quality: float


@lru_cache(maxsize=256)
def parse(text: str) -> MediaType:
    """Return a media type: lower-case name, parameters by lower-case name (RFC 9110, 8.3.1)."""
    if ";" not in text:
        return MediaType(text.strip().lower(), MappingProxyType({}))
    message = Message()
    message["content-type"] = text.replace("\r", " ").replace("\n", " ")
    parameters = message.get_params(failobj=[], unquote=True)[1:]
    name = text.partition(";")[0].strip().lower()
    values = {key.lower(): _plain(value) for key, value in parameters}
    return MediaType(name, MappingProxyType(values))


@lru_cache(maxsize=256)
def negotiate(accept: str | None, default: str, available: tuple[str, ...]) -> str:
    """Return the media type of ``available`` that ``accept`` likes best (RFC 9110, 12.5.1).

    The highest q-value wins, among equals the first named; q=0 refuses. A missing Accept means
    ``default``, and a wildcard prefers it. Raises NotAcceptable when nothing can be produced.
    """
    ranges = list(_ranges(accept or default))
    refused = {each.name for each in ranges if each.quality == 0}
    preferred = parse(default).name
    candidates = [preferred, *available] if preferred in available else list(available)
    for wanted in sorted(ranges, key=lambda each: -each.quality):
        if wanted.quality == 0:
            continue
        for produced in candidates:
            if _covers(wanted.name, produced) and produced not in refused:
                return produced
    raise NotAcceptable(
        f"Accept {accept or default!r} cannot be produced; available are {', '.join(available)}"
    )


def _plain(value: str | tuple[str | None, str | None, str]) -> str:
    return value if isinstance(value, str) else value[2]  # RFC 2231: charset, language, text


def _ranges(accept: str) -> Iterable[_Range]:
    for item in accept.split(","):
        if item.strip():
            name, parameters = parse(item)
            yield _Range(name, _quality(parameters.get("q", "1")))


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return min(max(quality, 0.0), 1.0) if quality == quality else 1.0


def _covers(wanted: str, produced: str) -> bool:
    if wanted.endswith("/*"):
        return wanted == "*/*" or produced.startswith(wanted[:-1])
    return wanted == produced

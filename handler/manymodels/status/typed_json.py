"""JSON objects become dataclasses, every value checked against its field's type."""

from __future__ import annotations

import functools
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def parse(kind: type[T], value: Any) -> T:
    """Build a dataclass from what ``json.loads`` returned.

    Fields may be str, bool, int, float, ``X | None``, ``tuple[X, ...]``, ``dict[int, X]`` and
    dataclasses. Keys that are no field are passed over, so that an older reader understands a
    newer writer.

    Raises:
        ValueError: a field is missing or its value is of another type; says which.
    """
    return _parse(kind, value, kind.__name__)  # type: ignore[no-any-return]


def _parse(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin is types.UnionType:
        (kind,) = (one for one in get_args(kind) if one is not type(None))
        return None if value is None else _parse(kind, value, where)
    if origin is tuple:
        item = get_args(kind)[0]
        return tuple(_parse(item, one, where) for one in _checked(list, value, where))
    if origin is dict:
        item = get_args(kind)[1]
        entries = _checked(dict, value, where).items()
        return {_number(key, where): _parse(item, one, where) for key, one in entries}
    if is_dataclass(kind):
        return _object(kind, _checked(dict, value, where), where)
    if kind is float:
        return _finite(value, where)
    return _checked(kind, value, where)


def _object(kind: Any, value: dict[str, Any], where: str) -> Any:
    arguments = {}
    for name, hint, required in _fields(kind):
        if name in value:
            arguments[name] = _parse(hint, value[name], f"{where}.{name}")
        elif required:
            raise ValueError(f"{where} has no {name}")
    return kind(**arguments)


@functools.cache
def _fields(kind: Any) -> list[tuple[str, Any, bool]]:
    """The name and type of each field, and whether it must be there."""
    hints = get_type_hints(kind)
    return [
        (f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING)
        for f in fields(kind)
    ]


def _checked(kind: type[T], value: Any, where: str) -> T:
    # Not isinstance: true is no number.
    if type(value) is not kind:
        raise ValueError(f"{where} is a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _finite(value: Any, where: str) -> float:
    number = float(value) if type(value) is int else _checked(float, value, where)
    if not math.isfinite(number):
        raise ValueError(f"{where} is {number}")
    return number


def _number(key: str, where: str) -> int:
    try:
        return int(key)
    except ValueError:
        raise ValueError(f"{where} has the key {key!r} in place of a number") from None

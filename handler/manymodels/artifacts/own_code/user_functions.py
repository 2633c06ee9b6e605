"""The functions of a user's module, called as the SageMaker inference toolkit calls them."""

from __future__ import annotations

import enum
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from manymodels.errors import ModelLoadError

PARAMETERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "model_fn": ("model_dir",),
        "input_fn": ("data", "content_type"),
        "predict_fn": ("data", "model"),
        "output_fn": ("prediction", "accept"),
        "transform_fn": ("model", "data", "content_type", "accept"),
        "pre_model_fn": ("model_dir",),
        "model_warmup_fn": ("model_dir", "model"),
    }
)
"""What each function is given, in this order; the context may follow."""
_REPLACED_BY_TRANSFORM = ("input_fn", "predict_fn", "output_fn")
logger = logging.getLogger(__name__)


class _Context(enum.Enum):
    """How a function is given the context."""

    NOT = enum.auto()
    LAST = enum.auto()
    BY_NAME = enum.auto()


class _Bound(NamedTuple):
    function: Callable[..., Any]
    context: _Context


class UserFunctions:
    """What a module defines of the toolkit's functions.

    Args:
        module: the user's module. A name that is None is as good as absent.
        path: its file, for messages.

    Raises:
        ModelLoadError: a function takes other parameters than it is given, is asynchronous or
            none at all, or transform_fn stands beside functions that it replaces.
    """

    def __init__(self, module: ModuleType, path: Path) -> None:
        self.path = path
        found = {name: getattr(module, name, None) for name in PARAMETERS}
        self._functions = {
            name: _bind(name, function, path)
            for name, function in found.items()
            if function is not None
        }
        beside = [name for name in _REPLACED_BY_TRANSFORM if name in self]
        if "transform_fn" in self and beside:
            raise ModelLoadError(
                f"{path.name} defines transform_fn and {', '.join(beside)}: transform_fn does all "
                "of what input_fn, predict_fn and output_fn do, so leave out the one or the others"
            )
        if not self._functions:
            logger.warning("%s defines none of %s", path, ", ".join(PARAMETERS))

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    @property
    def names(self) -> tuple[str, ...]:
        """The functions that the module defines."""
        return tuple(self._functions)

    def call(self, name: str, *arguments: Any, context: Any) -> Any:
        """Call a function that the module defines; whatever it raises passes through.

        ``arguments`` are those of `PARAMETERS`; the context is added where the function takes it.
        """
        function, how = self._functions[name]
        if how is _Context.NOT:
            return function(*arguments)
        if how is _Context.LAST:
            return function(*arguments, context)
        return function(*arguments, context=context)


def _bind(name: str, function: Any, path: Path) -> _Bound:
    where = f"{path.name}{_line_of(function)}: {name}"
    if not callable(function):
        raise ModelLoadError(f"{where} is a {type(function).__name__}, not a function")
    if _is_asynchronous(function):
        raise ModelLoadError(
            f"{where} is asynchronous, and would be called without an event loop: "
            "define it with def, not async def"
        )
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell
        return _Bound(function, _Context.NOT)
    how = _way_of(signature, len(PARAMETERS[name]))
    if how is None:
        expected = ", ".join(PARAMETERS[name])
        raise ModelLoadError(
            f"{where} takes {signature}, but is called with ({expected}), or with "
            f"({expected}, context)"
        )
    return _Bound(function, how)


def _way_of(signature: inspect.Signature, count: int) -> _Context | None:
    """Return how to hand over ``count`` arguments, or None if the function cannot take them.

    The toolkit goes by the number of parameters, whatever their kind or default: as many as
    arguments, or one more for the context. So it is here where that works. Where the toolkit
    would raise TypeError, what is named context is the context, and else it is left out if it
    can be.
    """
    parameters = list(signature.parameters.values())
    plain, longer = _takes(signature, count), _takes(signature, count + 1)
    if len(parameters) == count and plain:
        return _Context.NOT
    if len(parameters) == count + 1 and longer:
        return _Context.LAST
    named = signature.parameters.get("context")
    if named is not None and named.kind is named.KEYWORD_ONLY and _takes(signature, count, True):
        return _Context.BY_NAME
    if longer and (not plain or (named is not None and parameters.index(named) == count)):
        return _Context.LAST
    return _Context.NOT if plain else None


def _takes(signature: inspect.Signature, count: int, by_name: bool = False) -> bool:
    try:
        signature.bind(*[None] * count, **({"context": None} if by_name else {}))
    except TypeError:
        return False
    return True


def _is_asynchronous(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    call = inspect.getattr_static(type(function), "__call__", None)
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (function, call)
    )


def _line_of(function: Any) -> str:
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return "" if code is None else f", line {code.co_firstlineno}"

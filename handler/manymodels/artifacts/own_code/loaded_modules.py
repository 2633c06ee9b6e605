"""What a process has imported already, and what of it can still be imported anew.

A forked model process starts with what its zygote imported. A module in pure Python can be
forgotten, so that the next import finds the model's own. Native code cannot: an extension module
is never unloaded, and two versions of one library that is loaded by ctypes, such as XGBoost,
share symbols and crash. Nor can what native code was built on, or old and new classes would mix.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from types import FunctionType, ModuleType

_MAPPED_FILES = "/proc/self/maps"
_NATIVE_SUFFIXES = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_SERVER = ("manymodels", "mms")
_LEFT_ALONE = frozenset({*sys.stdlib_module_names, *_SERVER, "__main__", "__mp_main__"})
_remembered: dict[str, frozenset[str]] = {}


def remember() -> None:
    """Find out once, before forking, what every module holds on to.

    To look at all globals is to write to nearly every page of what is imported, by their reference
    counts. A zygote that has done it once after its imports spares its forks a copy of them.
    """
    for name, module in list(sys.modules.items()):
        if name not in sys.stdlib_module_names:
            _remembered[name] = _references(name, module)


def left_alone(name: str) -> bool:
    """Tell whether a module is Python's own or the server's, which no model replaces."""
    return name.partition(".")[0] in _LEFT_ALONE


def server_uses(name: str) -> bool:
    """Tell whether the server's own modules hold on to a module or something of it."""
    top = name.partition(".")[0]
    return any(
        top in _references(owner, module)
        for owner, module in list(sys.modules.items())
        if owner.partition(".")[0] in _SERVER
    )


class Loaded:
    """Imported modules that a model brings itself, and what was built on them.

    Args:
        units: their names: of top-level modules and packages, or of those in a namespace package.
    """

    def __init__(self, units: Collection[str]) -> None:
        self._units = units

    @cached_property
    def _users(self) -> Mapping[str, set[str]]:
        return _users(self._units)

    def irreplaceable(self, siblings: Mapping[str, Collection[str]]) -> set[str]:
        """Return which of the units a new import must not replace.

        ``siblings`` has, for a unit, the units of the same distribution, itself among them: they
        are replaced together or not at all.
        """
        units = set(self._units)
        # Most that is kept is native itself, which is found without a look at everything else.
        kept = {sibling for unit in _native(units, units) for sibling in siblings[unit]}
        native = _native(units) if units - kept else set()
        while more := {
            sibling
            for unit in units - kept
            if self._closure(unit) & (native | kept)
            for sibling in siblings[unit]
        }:
            kept |= more
        return kept

    def forget(self, units: Collection[str]) -> None:
        """Drop units, their submodules and what was built on them, to be imported anew."""
        dropped = {owner for unit in units for owner in self._closure(unit)}
        for name in list(sys.modules):
            if not left_alone(name) and _owner(name, self._units) in dropped:
                drop(name)

    def _closure(self, unit: str) -> set[str]:
        """Return a unit, what was built on it, what was built on that, and so on."""
        reached, waiting = {unit}, [unit]
        while waiting:
            for user in self._users.get(waiting.pop(), set()) - reached:
                reached.add(user)
                waiting.append(user)
        return reached


def drop(name: str) -> None:
    """Take one module out of sys.modules and out of its package."""
    module = sys.modules.pop(name, None)
    _remembered.pop(name, None)
    parent, _, last = name.rpartition(".")
    package = sys.modules.get(parent)
    if package is not None and vars(package).get(last) is module:
        delattr(package, last)


def _owner(name: str, units: Collection[str]) -> str:
    """Return the unit that a module belongs to, or else its top-level package."""
    head = name
    while head:
        if head in units:
            return head
        head = head.rpartition(".")[0]
    return name.partition(".")[0]


def _users(units: Collection[str]) -> dict[str, set[str]]:
    """Return, for whatever is imported, what else holds on to something of it."""
    users: dict[str, set[str]] = {}
    for name, module in list(sys.modules.items()):
        if left_alone(name):
            continue
        user = _owner(name, units)
        for reference in _references(name, module):
            owner = _owner(reference, units)
            if not f"{owner}.".startswith(f"{user}."):  # a package has its modules for attributes
                users.setdefault(owner, set()).add(user)
    return users


def _references(module_name: str, module: ModuleType) -> frozenset[str]:
    """Return the modules that a module's globals are, or come from."""
    if module_name in _remembered:
        return _remembered[module_name]
    found = set()
    for value in list(getattr(module, "__dict__", {}).values()):
        # No attribute of a value is asked for that the value could compute: some import on demand.
        if isinstance(value, ModuleType):
            name = vars(value).get("__name__")
        elif isinstance(value, (type, FunctionType)):
            name = value.__module__
        else:
            name = type(value).__module__
        if isinstance(name, str):
            found.add(name)
            found.add(name.partition(".")[0])
    return frozenset(found)


def _native(units: Collection[str], among: Collection[str] | None = None) -> set[str]:
    """Return what has loaded native code, as extension modules or by ctypes."""
    mapped = set(_mapped_directories())
    found = set()
    for name, module in list(sys.modules.items()):
        owner = _owner(name, units)
        if owner in found or left_alone(name) or (among is not None and owner not in among):
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and (file.endswith(_NATIVE_SUFFIXES) or _has_mapped(file, mapped)):
            found.add(owner)
    return found


def _has_mapped(file: str, mapped: Collection[str]) -> bool:
    """Tell whether a library in or below a package's directory is in memory."""
    if os.path.basename(file) != "__init__.py":
        return False
    package = os.path.realpath(os.path.dirname(file))
    return any(each == package or each.startswith(f"{package}/") for each in mapped)


def _mapped_directories() -> Iterator[str]:
    """Yield the directories of the libraries in this process's memory; none off Linux."""
    try:
        with open(_MAPPED_FILES, encoding=sys.getfilesystemencoding(), errors="replace") as file:
            for line in file:
                fields = line.split(maxsplit=5)
                if len(fields) == 6 and ".so" in fields[5]:
                    yield os.path.dirname(fields[5].rstrip("\n"))
    except OSError:
        return

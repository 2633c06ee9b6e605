"""A model's own code comes first: on sys.path, and before what is imported already."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import logging
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from manymodels.artifacts.own_code import loaded_modules

_MODULE_SUFFIXES = tuple(importlib.machinery.all_suffixes())
logger = logging.getLogger(__name__)


class Conflict(NamedTuple):
    """A package that the model brings and this process cannot import.

    Args:
        name: what is imported, such as ``sklearn``.
        distribution: what is installed, such as ``scikit-learn``; ``name`` if that is not known.
        loaded: the version that this process has imported, if that is known.
        vendored: the version that the model brings, if its metadata says.
        by_server: the server's own code imports it, whatever is preloaded.
    """

    name: str
    distribution: str
    loaded: str | None
    vendored: str | None
    by_server: bool = False

    @property
    def differs(self) -> bool:
        return self.vendored is None or self.loaded != self.vendored

    @property
    def advice(self) -> str:
        if self.by_server:
            return "the server itself runs on it: an image with that version would have to serve it"
        return f"leave {self.name}, and what imports it, out of MANYMODELS_PRELOAD"


def code_directories(model_dir: Path) -> list[Path]:
    """Return ``code`` and ``code/lib`` of a model's directory, as far as they exist."""
    code = model_dir / "code"
    return [each for each in (code, code / "lib") if each.is_dir()]


def extend(model_dir: Path) -> tuple[Conflict, ...]:
    """Put the model's ``code`` and ``code/lib`` first on sys.path, as far as they exist.

    What these bring and this process has imported from elsewhere is forgotten, for the model's
    own to be imported. What cannot be is returned, and warned of, unless it is of the version
    that the model brings. To be called before anything of the model is imported.
    """
    directories = code_directories(model_dir)
    return put_first(directories) if directories else ()


def put_first(directories: Sequence[Path], behind: Sequence[Path] = ()) -> tuple[Conflict, ...]:
    """Put directories first on sys.path, but for those of ``behind``; otherwise as `extend`."""
    before = [entry for entry in map(os.path.abspath, behind) if entry in sys.path]
    new = [os.path.abspath(directory) for directory in directories]
    entries = [*before, *new]
    if sys.path[: len(entries)] != entries:
        sys.path[:] = [*entries, *(entry for entry in sys.path if entry not in entries)]
    for entry in entries:  # found out anew; to invalidate all caches would write to a megabyte
        sys.path_importer_cache.pop(entry, None)
    conflicts = tuple(_make_way(new, entries))
    for conflict in conflicts:
        logger.warning(
            "the model brings %s %s, but %s is imported already and cannot be replaced: %s",
            conflict.name,
            conflict.vendored or "of an unknown version",
            conflict.loaded or "another one",
            conflict.advice,
        )
    return conflicts


def field_of(distribution: importlib.metadata.Distribution, field: str) -> str | None:
    """Return a field of a distribution's metadata, None where that has been cut short."""
    values = distribution.metadata.get_all(field)
    return str(values[0]) if values else None


def _make_way(new: Sequence[str], entries: Sequence[str]) -> list[Conflict]:
    """Forget what ``new`` directories bring and is imported from none of ``entries``."""
    units = {
        unit
        for directory in new
        for unit in _loaded_units(directory, "")
        if not loaded_modules.left_alone(unit) and _is_elsewhere(unit, entries)
    }
    if not units:
        return []
    sources = _distributions(units, new)
    siblings = {
        unit: [each for each in units if each == unit or _same(sources, each, unit)]
        for unit in units
    }
    loaded = loaded_modules.Loaded(units)
    kept = loaded.irreplaceable(siblings)
    conflicts = {
        conflict.distribution: conflict
        for conflict in (_conflict(unit, sources.get(unit)) for unit in sorted(kept, reverse=True))
    }
    loaded.forget(units - kept)
    return [each for each in conflicts.values() if each.differs]


def _loaded_units(directory: str, prefix: str) -> Iterator[str]:
    """Yield the modules and packages in a directory that are imported, from wherever.

    Of a namespace package, such as ``google``, these are the packages within it.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name.partition(".")[0]
            if name not in sys.modules:
                continue
            if not entry.is_dir():
                if entry.name.endswith(_MODULE_SUFFIXES):
                    yield name
            elif entry.name == name.rpartition(".")[2]:
                if _is_regular_package(entry.path):
                    yield name
                elif _is_namespace(name):
                    yield from _loaded_units(entry.path, f"{name}.")


def _is_regular_package(directory: str) -> bool:
    return any(
        os.path.exists(os.path.join(directory, f"__init__{suffix}")) for suffix in _MODULE_SUFFIXES
    )


def _is_namespace(name: str) -> bool:
    module = sys.modules[name]
    return getattr(module, "__file__", None) is None and hasattr(module, "__path__")


def _is_elsewhere(unit: str, entries: Collection[str]) -> bool:
    """Tell whether an imported module has a file, and that in none of these directories."""
    file = getattr(sys.modules[unit], "__file__", None)
    if not isinstance(file, str):
        return False
    path = os.path.abspath(file)
    return not any(path.startswith(f"{entry}{os.sep}") for entry in entries)


def _distributions(
    units: Collection[str], entries: Sequence[str]
) -> dict[str, importlib.metadata.Distribution]:
    """Return, for a unit, the distribution in the model's directories that brings it."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions(path=list(entries)):
        record = "\n" + (distribution.read_text("RECORD") or "")
        names = (distribution.read_text("top_level.txt") or "").split()
        for unit in units:
            path = unit.replace(".", "/")
            if unit in names or f"\n{path}/" in record or f"\n{path}." in record:
                found.setdefault(unit, distribution)
    return found


def _same(distributions: dict[str, importlib.metadata.Distribution], one: str, other: str) -> bool:
    return one in distributions and distributions[one] is distributions.get(other)


def _conflict(unit: str, vendored: importlib.metadata.Distribution | None) -> Conflict:
    name = None if vendored is None else field_of(vendored, "Name")
    return Conflict(
        unit,
        name or unit,
        _loaded_version(unit, name or unit),
        None if vendored is None else field_of(vendored, "Version"),
        loaded_modules.server_uses(unit),
    )


def _loaded_version(unit: str, distribution: str) -> str | None:
    """Return the version in the metadata beside an imported module, or what it says itself."""
    module = sys.modules[unit]
    directory = os.path.dirname(os.path.abspath(str(module.__file__)))
    levels = unit.count(".") + hasattr(module, "__path__")
    for _ in range(levels):
        directory = os.path.dirname(directory)
    for found in importlib.metadata.distributions(name=distribution, path=[directory]):
        return field_of(found, "Version")
    version = vars(module).get("__version__")
    return version if isinstance(version, str) else None

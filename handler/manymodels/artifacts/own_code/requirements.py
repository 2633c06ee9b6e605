"""Whether what a model's ``requirements.txt`` asks for is there, before its code is imported."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from manymodels.artifacts.own_code import search_path
from manymodels.artifacts.own_code.search_path import Conflict
from manymodels.errors import ModelLoadError

if TYPE_CHECKING:  # parsing is imported only where there is a file
    from packaging.specifiers import SpecifierSet

    from manymodels.artifacts.own_code.requirements_file import Needed

INSTALL_SECONDS = 600.0
_ADVICE = (
    "put them into code/lib (pip install --target code/lib -r requirements.txt), or let the "
    "server install them (MANYMODELS_INSTALL_REQUIREMENTS=true)"
)
logger = logging.getLogger(__name__)


class _Fault(NamedTuple):
    """What is wrong with a requirement, and whether installing could put it right."""

    text: str
    curable: bool = True


def find(model_dir: Path) -> Path | None:
    """Return the model's requirements file: in ``code/``, at the top level if there is none."""
    code = model_dir / "code"
    path = (code if code.is_dir() else model_dir) / "requirements.txt"
    return path if path.is_file() else None


def check(
    model_dir: Path,
    conflicts: Sequence[Conflict] = (),
    install_into: Path | None = None,
    timeout: float = INSTALL_SECONDS,
) -> Path | None:
    """Make sure that the model's requirements are satisfied by what its code would import.

    That is what the model brings in ``code/`` and ``code/lib``, else what the server has. To be
    called after `search_path.extend`, whose ``conflicts`` say what the model brings in vain.

    Args:
        install_into: the cache to install into what is not there; without it nothing is installed.
        timeout: seconds that installing may take.

    Returns:
        The directory that was installed, on sys.path behind ``code/lib`` by now; None if nothing
        had to be.

    Raises:
        ModelLoadError: names everything that is missing or of another version.
    """
    path = find(model_dir)
    if path is None:
        return None
    from manymodels.artifacts.own_code.requirements_file import read

    content, directories = read(path), search_path.code_directories(model_dir)
    faults = _Installed(directories, conflicts).faults(content.needed)
    if not faults:
        return None
    if install_into is None or not any(fault.curable for fault in faults):
        raise _unsatisfied(path, model_dir, faults)
    from manymodels.artifacts.own_code.installation import install

    installed = install(path, content.files, install_into, timeout)
    further = search_path.put_first([installed], behind=directories)
    faults = _Installed([*directories, installed], [*conflicts, *further]).faults(content.needed)
    if faults:
        raise _unsatisfied(path, model_dir, [fault._replace(curable=False) for fault in faults])
    return installed


class _Installed:
    """What can be imported: of the model's own directories, and of the server.

    Args:
        directories: the model's, first on sys.path.
        conflicts: what of them cannot be imported.
    """

    def __init__(self, directories: Sequence[Path], conflicts: Sequence[Conflict]) -> None:
        self._own = [os.path.abspath(directory) for directory in directories]
        self._others = [entry for entry in sys.path if entry not in self._own]
        self._conflicts = {
            _canonical(name): conflict
            for conflict in conflicts
            for name in (conflict.name, conflict.distribution)
        }
        self._checked: set[tuple[str, frozenset[str], SpecifierSet]] = set()

    def faults(self, needed: Sequence[Needed]) -> list[_Fault]:
        """Return, for each requirement that is not satisfied, what is there instead."""
        return [fault for each in needed for fault in self._faults_of(each)]

    def _faults_of(self, needed: Needed) -> Iterator[_Fault]:
        if needed.name is None:
            yield _Fault(
                f"needs {needed.text!r}, of which the name is not known: name it by #egg=name"
            )
            return
        name = _canonical(needed.name)
        key = name, needed.extras, needed.versions
        if key in self._checked:  # extras may ask for each other
            return
        self._checked.add(key)
        conflict, own = self._conflicts.get(name), _distributions(name, self._own)
        satisfying = next((each for each in own if _satisfies(each, needed.versions)), None)
        if own and conflict is None:
            if satisfying is None:
                yield _Fault(f"needs {needed.text}, the model brings {_version(own[0])}")
            else:
                yield from self._faults_of_extras(satisfying, needed)
        elif conflict is None and self._brings_unlabelled(name):
            logger.debug("%s is taken from the model, of an unknown version", needed.text)
        else:
            yield from self._faults_of_server(name, needed, conflict if satisfying else None)

    def _faults_of_server(
        self, name: str, needed: Needed, conflict: Conflict | None
    ) -> Iterator[_Fault]:
        found = next(iter(_distributions(name, self._others)), None)
        if found is not None and _satisfies(found, needed.versions):
            yield from self._faults_of_extras(found, needed)
        elif conflict is not None:
            yield _Fault(
                f"needs {needed.text}, which the model brings, but {conflict.loaded} is imported "
                f"already and cannot be replaced ({conflict.advice})",
                curable=False,
            )
        elif found is not None:
            yield _Fault(f"needs {needed.text}, the server has {_version(found)}")
        else:
            yield _Fault(f"needs {needed.text}, which is not installed")

    def _faults_of_extras(
        self, found: importlib.metadata.Distribution, needed: Needed
    ) -> Iterator[_Fault]:
        """Yield what is wrong with what the extras of a distribution ask for."""
        from packaging.requirements import Requirement

        from manymodels.artifacts.own_code.requirements_file import needed_of

        for text in found.requires or () if needed.extras else ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is None or marker.evaluate({"extra": ""}):
                continue
            if any(marker.evaluate({"extra": extra}) for extra in needed.extras):
                yield from self._faults_of(needed_of(requirement))

    def _brings_unlabelled(self, name: str) -> bool:
        """Tell whether the model has a module or package of that name, without metadata."""
        return any(
            _canonical(entry.partition(".")[0]) == name
            for directory in self._own
            for entry in os.listdir(directory)
            if entry.endswith((".py", ".so")) or os.path.isdir(os.path.join(directory, entry))
        )


def _distributions(name: str, path: Sequence[str]) -> list[importlib.metadata.Distribution]:
    return list(importlib.metadata.distributions(name=name, path=list(path))) if path else []


def _satisfies(found: importlib.metadata.Distribution, versions: SpecifierSet) -> bool:
    from packaging.version import InvalidVersion

    version = _version(found)
    if version is None or not versions:
        return True
    try:
        return versions.contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _version(found: importlib.metadata.Distribution) -> str | None:
    return search_path.field_of(found, "Version")


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _unsatisfied(path: Path, model_dir: Path, faults: Sequence[_Fault]) -> ModelLoadError:
    shown = path.relative_to(model_dir).as_posix()
    text = f"{shown} {'; '.join(fault.text for fault in faults)}"
    return ModelLoadError(f"{text}: {_ADVICE}" if any(each.curable for each in faults) else text)

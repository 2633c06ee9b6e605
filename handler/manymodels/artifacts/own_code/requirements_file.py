"""``requirements.txt``, as far as it says what must be there."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from manymodels.errors import ModelLoadError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_OPTIONS_AFTER = re.compile(r"\s+--[a-z].*$")
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s*=\s*|\s*)(.+)")
_CONSTRAINT = re.compile(r"(?:-c|--constraint)(?:\s*=\s*|\s*)(.+)")
_EDITABLE = re.compile(r"(?:-e|--editable)(?:\s*=\s*|\s+)(.+)")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_ARCHIVES = (".whl", ".tar.gz", ".tar.bz2", ".tgz", ".zip")
logger = logging.getLogger(__name__)


class Needed(NamedTuple):
    """One requirement; ``name`` is None where a path or an address does not tell it."""

    text: str
    name: str | None
    versions: SpecifierSet
    extras: frozenset[str] = frozenset()


class RequirementsFile(NamedTuple):
    """What a requirements file asks for, and the files it consists of, itself first."""

    needed: list[Needed]
    files: list[Path]


def read(path: Path) -> RequirementsFile:
    """Read a requirements file and those it includes by ``-r``.

    Requirements whose markers do not hold here are left out; constraints, hashes, and options
    that say where to install from, are of no matter to what is there. Raises ModelLoadError that
    names the file and the line for what cannot be read.
    """
    content = RequirementsFile([], [])
    _read_into(content, path)
    return content


def needed_of(requirement: Requirement) -> Needed:
    """Return a requirement as `Needed`."""
    text = str(requirement).partition(";")[0].strip()
    extras = frozenset(requirement.extras)
    return Needed(text, requirement.name, requirement.specifier, extras)


def _read_into(content: RequirementsFile, path: Path) -> None:
    if path in content.files:
        return
    content.files.append(path)
    for number, line in _lines(path):
        if match := _INCLUDE.fullmatch(line):
            _read_into(content, (path.parent / match[1]).resolve())
        elif match := _CONSTRAINT.fullmatch(line):
            constraints = (path.parent / match[1]).resolve()
            if constraints.is_file() and constraints not in content.files:
                content.files.append(constraints)
        elif match := _EDITABLE.fullmatch(line):
            content.needed.append(_direct(_OPTIONS_AFTER.sub("", match[1])))
        elif line.startswith("-"):
            logger.debug("%s, line %d: %s is left aside", path, number, line)
        elif found := _needed(_OPTIONS_AFTER.sub("", line), f"{path.name}, line {number}"):
            content.needed.append(found)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers, from 1, without comments, the continued ones joined."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelLoadError(f"{path} is not UTF-8: {error}") from error
    parts: list[str] = []
    for number, physical in enumerate([*text.splitlines(), ""], 1):
        parts.append(physical.removesuffix("\\"))
        if physical.endswith("\\") and not physical.lstrip().startswith("#"):
            continue
        line = _COMMENT.sub("", "".join(parts)).strip()
        if line:
            yield number - len(parts) + 1, line
        parts.clear()


def _needed(text: str, where: str) -> Needed | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        if _is_direct(text):
            return _direct(text)
        reason = str(error).partition("\n")[0]
        raise ModelLoadError(f"{where}: {text!r} is not a requirement: {reason}") from error
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    return needed_of(requirement)


def _is_direct(text: str) -> bool:
    return "://" in text or "/" in text or text == "." or text.lower().endswith(_ARCHIVES)


def _direct(text: str) -> Needed:
    """Return what is needed by its address or path, by the name that this tells."""
    address = text.partition(" ")[0]
    egg = _EGG.search(address)
    if egg is not None:
        return Needed(text, egg[1], SpecifierSet())
    last = PurePosixPath(urlsplit(address).path.partition("@")[0]).name
    stem = last.removesuffix(".git")
    if last.lower().endswith(_ARCHIVES):
        # The name ends before the version, in a wheel's file name at the first hyphen.
        stem = last.partition("-")[0] if last.endswith(".whl") else last.rpartition("-")[0]
    return Needed(text, stem if _NAME.fullmatch(stem) else None, SpecifierSet())

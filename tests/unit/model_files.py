"""Writes what models bring: modules, packages with their metadata, wheels."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write(directory: Path, files: dict[str, str]) -> Path:
    """Write files, by their paths below ``directory``."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def package(name: str, version: str, *, label: bool = True, requires: str = "") -> dict[str, str]:
    """The files of a package that says its version, and of the metadata that pip writes."""
    files = {f"{name}/__init__.py": f"__version__ = {version!r}\n", f"{name}/part.py": ""}
    if not label:
        return files
    metadata = f"{name}-{version}.dist-info"
    return {
        **files,
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + requires,
        f"{metadata}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{metadata}/RECORD": "".join(f"{path},,\n" for path in files),
    }


def wheel(directory: Path, name: str, version: str) -> Path:
    """A wheel that pip installs."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in package(name, version).items():
            archive.writestr(member, text)
    return path


@contextmanager
def imports_restored() -> Iterator[None]:
    """Leave sys.path and sys.modules as they were."""
    path, modules = sys.path[:], sys.modules.copy()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in sys.modules.keys() - modules.keys():
            del sys.modules[name]
        sys.modules.update(modules)

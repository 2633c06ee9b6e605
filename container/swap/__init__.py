"""Builds the images of this directory: as a user has it, and with the two lines that swap it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from container.engine import Engine, EngineError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STOCK, SWAPPED = "localhost/swap:stock", "localhost/swap:swapped"
_SOURCES = ("setup.py", "pyproject.toml", "README.md", "handler")


def build(engine: Engine, base: str) -> None:
    """Build STOCK and SWAPPED on the image ``base``; EngineError if that fails."""
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory, "context")
        shutil.copytree(HERE, context, ignore=shutil.ignore_patterns("*.whl", "__*__*"))
        write_wheel(context)
        # podman does not look at what a build mounts: with this image there, it would take its
        # layers for those of a wheel that has changed.
        engine.command("rmi", SWAPPED)
        for tag, target in ((STOCK, "stock"), (SWAPPED, "swapped")):
            dockerfile = context / "Dockerfile"
            engine.build(dockerfile, context, tag, target=target, arguments={"BASE": base})


def write_wheel(directory: Path) -> None:
    """Write this checkout's wheel into a directory, which is made if need be."""
    with tempfile.TemporaryDirectory() as source:
        # A copy, as a build in the checkout would put in what older builds have left there.
        for name in _SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, Path(source, name))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--wheel-dir", str(directory), source]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if made.returncode:
        raise EngineError(f"pip could not make a wheel of this checkout: {made.stderr.strip()}")

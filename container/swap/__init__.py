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
STOCK, SWAPPED, SMALL = (f"localhost/swap:{stage}" for stage in ("stock", "swapped", "small"))
_SOURCES = ("setup.py", "pyproject.toml", "README.md", "handler")


def build(engine: Engine, base: str) -> None:
    """Build STOCK, SWAPPED and SMALL on the image ``base``; EngineError if that fails."""
    with tempfile.TemporaryDirectory() as directory:
        context = Path(directory, "context")
        shutil.copytree(HERE, context, ignore=shutil.ignore_patterns("*.whl", "__*__*"))
        write_wheel(context)
        # podman does not look at what a build mounts: with these images there, it would take their
        # layers for those of a wheel that has changed.
        engine.command("rmi", SWAPPED, SMALL)
        for tag in (STOCK, SWAPPED, SMALL):
            dockerfile, stage = context / "Dockerfile", tag.rpartition(":")[2]
            engine.build(dockerfile, context, tag, target=stage, arguments={"BASE": base})


def train(engine: Engine, directory: Path) -> None:
    """Train MXNet's sample models into a new directory, in SWAPPED: STOCK has no scikit-learn."""
    place = directory.absolute()
    place.parent.mkdir(parents=True, exist_ok=True)
    command = ["run", "--rm", "--network=none", "--env=PYTHONDONTWRITEBYTECODE=1"]
    command += [f"--volume={ROOT}:/source:ro", f"--volume={place.parent}:/out"]
    command += ["--workdir=/source", SWAPPED, "python", "-m", "sample_models.mxnet"]
    engine.output(*command, "--out", f"/out/{place.name}")


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

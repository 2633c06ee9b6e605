"""The engine that has the images, and models that were trained in one."""

from __future__ import annotations

from pathlib import Path

import pytest

import sample_models
from container.__main__ import IMAGE, test_engine
from container.engine import Engine

IN_IMAGE = """
import sys
from pathlib import Path
from sample_models.build import build
print(*build(Path(sys.argv[1]), lambda name: None))
"""


@pytest.fixture(scope="session")
def engine() -> Engine:
    """What `make image-test` built the images with."""
    return test_engine()


@pytest.fixture(scope="session")
def samples(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of sample models, trained in the image by its own libraries."""
    directory = tmp_path_factory.mktemp("samples")
    directory.chmod(0o777)
    repository = Path(sample_models.__file__).parents[1]
    engine.output(
        "run",
        "--rm",
        "--network=none",
        f"--volume={repository}:/repository:ro",
        f"--volume={directory}:/samples",
        "--workdir=/repository",
        IMAGE,
        "python",
        "-c",
        IN_IMAGE,
        "/samples",
    )
    return directory

"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

# Machines that run the tests are shared: a slow example is no failure, and none is random.
settings.register_profile("manymodels", deadline=None, derandomize=True)
settings.load_profile("manymodels")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--images", action="store_true", help="test the images that were built")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the images' tests to `make image-test`, which builds the images first."""
    if collection_path.name == "image" and not config.getoption("--images"):
        return True
    return None

"""Servers and models for the functional tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sample_models
from sample_models.build import build
from tests.functional.harness import Server, serving


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """One server for the tests that leave it as it was, which is checked."""
    yield shared_server
    shared_server.unload_all()
    shared_server.assert_nothing_left()


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sample_models.Sample]:
    """The sample models by name, freshly built."""
    directory = tmp_path_factory.mktemp("samples")
    build(directory, lambda name: None)
    return {sample.name: sample for sample in sample_models.samples(directory)}

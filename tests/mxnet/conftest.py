"""MXNet's sample models, and networks made for a test.

These tests need an environment of their own: Python 3.10 or 3.11 and ``pip install -e '.[mxnet]'``
with pytest, pytest-timeout, hypothesis and psutil. Elsewhere they are skipped.
"""

from __future__ import annotations

import pytest

import sample_models
from sample_models.build import Workspace


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sample_models.Sample]:
    """The sample models by name, freshly trained."""
    from sample_models.mxnet.digits import train

    directory = tmp_path_factory.mktemp("samples")
    train(Workspace(directory))
    return {sample.name: sample for sample in sample_models.samples(directory)}

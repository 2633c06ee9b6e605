"""Pickles and skops files: scikit-learn's estimators, and any object with their ``predict``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from manymodels.artifacts.adoption import native_model
from manymodels.artifacts.description import ModelDescription
from manymodels.artifacts.libraries.jobs import limit_jobs
from manymodels.artifacts.model import Model
from manymodels.artifacts.provenance import load_noting, running


def load_pickle(path: Path, description: ModelDescription) -> Model:
    """Return the model pickled in ``path`` by joblib or pickle.

    Raises ModelLoadError when the object in it does not predict, and whatever unpickling raises.
    """
    import joblib

    return _loaded(path, joblib.load, description)


def load_skops(path: Path, description: ModelDescription, *, safe: bool) -> Model:
    """Return the model in a skops file; ModelLoadError for types that are not trusted."""
    from manymodels.artifacts.libraries.skops_file import read_skops

    trusted = () if safe else description.trusted_types

    def read(path: Path) -> Any:
        return read_skops(path, trusted, safe=safe)

    return _loaded(path, read, description)


def _loaded(path: Path, read: Callable[[Path], Any], description: ModelDescription) -> Model:
    native, versions = load_noting(path, read)
    limit_jobs(native, description.threads)
    model = native_model(native, f"{path.name} holds", description)
    if not versions and model.framework == "scikit-learn":
        # It warns of every other version.
        here = running("scikit-learn")
        versions = {"written_by": here, "running": here}
    return replace(model, origin={**versions, **model.origin})

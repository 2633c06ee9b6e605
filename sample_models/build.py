"""Trains every sample model into one directory, the same bytes each time."""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from threadpoolctl import threadpool_limits

from sample_models.sample import Sample

TRAININGS = tuple(sorted(path.parent.name for path in Path(__file__).parent.glob("*/train.py")))


class Workspace:
    """Where a train.py leaves its models: ``root/<name>/model`` and ``root/<name>/sample.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []

    def new_model(self, name: str) -> Path:
        """Return an empty model directory; what an earlier build left there is gone."""
        model_dir = self.root / name / "model"
        shutil.rmtree(model_dir, ignore_errors=True)
        model_dir.mkdir(parents=True)
        self.names.append(name)
        return model_dir

    def write(self, sample: Sample) -> None:
        """Write ``sample`` beside its model directory."""
        content = {
            field.name: getattr(sample, field.name)
            for field in dataclasses.fields(sample)
            if field.name != "model_dir"
        }
        path = sample.model_dir.parent / "sample.json"
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def build(root: Path, on_trained: Callable[[str], None]) -> list[str]:
    """Train all into ``root`` and return the models' names; calls ``on_trained`` after each folder.

    One thread: sums in another order are other models.
    """
    workspace = Workspace(root)
    for training in TRAININGS:
        module = importlib.import_module(f"sample_models.{training}.train")
        with threadpool_limits(1):
            module.train(workspace)
        on_trained(training)
    return workspace.names

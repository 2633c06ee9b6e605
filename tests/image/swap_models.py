"""Models for the swap's tests: trained ones, broken ones, and one that looks around."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from container.engine import Engine
from container.swap import train
from sample_models import Sample
from tests.functional.harness import Answer
from tests.image.containers import Container

TRAINED = "digits-mxnet-module"
MODELS = "/opt/ml/models"
GOOD = f"{MODELS}/{TRAINED}/model"
MISSING = ("digits-0008.params", "digits-shapes.json", "digits-symbol.json", "synset.txt")
OUT_OF_MEMORY = """
import resource
import sys

sys.path.append("/home/model-server")
import model_handler

in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (1 << 30), resource.RLIM_INFINITY))
handle = model_handler.handle
"""
"""The image's own handler, in a process that may take one gigabyte more than it has."""
SURROUNDINGS = """
import json
import os
import sys

import neighbour


def handle(data, context):
    if data is None:
        print(f"{context.model_name} looks around")
        return None
    return [json.dumps(surroundings(request, context)) for request in data]


def surroundings(request, context):
    return {
        "neighbour": neighbour.NAME,
        "cwd": os.getcwd(),
        "path": [entry for entry in sys.path if os.path.isdir(entry)],
        "environment": dict(os.environ),
        "user": [os.getuid(), os.getgid(), os.umask(0o22)],
        "name": __name__,
        "model_name": context.model_name,
        "manifest": context.manifest,
        "properties": context.system_properties,
        "headers": sorted(context.get_all_request_header(0)),
        "content_type": context.get_request_header(0, "Content-Type"),
        "request_id": len(context.get_request_id(0)),
        "request": repr(request),
    }
"""
"""A model's handler of its own, which answers what it finds; each has another neighbour."""


def make(engine: Engine, directory: Path) -> None:
    """Make all models in a new directory. The trained ones are ``NAME/model``."""
    train(engine, directory)
    for name in MISSING:
        (_copy(directory, f"without-{name}") / name).unlink()
    (_copy(directory, "two-labels") / "synset.txt").write_text("0\n1\n")
    _write_shape(_copy(directory, "lying"), [1, 63])
    huge = _copy(directory, "huge")
    _write_shape(huge, [8_000_000, 64])
    (huge / "tight.py").write_text(OUT_OF_MEMORY)
    for name in ("left", "right"):
        own = directory / name
        own.mkdir()
        (own / "surroundings.py").write_text(SURROUNDINGS)
        (own / "neighbour.py").write_text(f"NAME = {name!r}\n")


def ask(container: Container, sample: Sample, name: str = "digits") -> Answer:
    return container.invoke(name, sample.body, sample.content_type)


def assert_right(answer: Answer, sample: Sample, labels: int = 5) -> None:
    """Each row's likeliest labels, with the probabilities that MXNet gave at training."""
    assert answer.status == 200, answer.body
    assert len(answer.json()) == len(sample.expected)
    for row, expected in zip(answer.json(), sample.expected, strict=True):
        likeliest = sorted(range(10), key=lambda digit: -expected[digit])[:labels]
        assert [each["label"] for each in row] == [str(digit) for digit in likeliest]
        probabilities = [expected[digit] for digit in likeliest]
        assert [each["probability"] for each in row] == pytest.approx(probabilities, abs=1e-6)


def _copy(models: Path, name: str) -> Path:
    return Path(shutil.copytree(models / TRAINED / "model", models / name))


def _write_shape(model: Path, shape: list[int]) -> None:
    (model / "digits-shapes.json").write_text(json.dumps([{"name": "data", "shape": shape}]))

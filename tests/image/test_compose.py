"""container/compose.yaml: the image and a directory of models, by one command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.__main__ import IMAGE
from container.engine import Engine
from sample_models import samples as read_samples
from tests.functional.harness import Client, eventually, free_port

FILE = Path(__file__).parents[2] / "container" / "compose.yaml"


class Composed(Client):
    """What the compose file runs."""

    def __init__(self, engine: Engine, models: Path) -> None:
        beside = Path(sys.executable).with_name("podman-compose")
        podman = str(beside) if beside.exists() else shutil.which("podman-compose")
        self.command = ["docker", "compose"] if engine.name == "docker" else [str(podman)]
        self.port = free_port()
        self.environment = {
            **os.environ,
            **engine.environment,
            "IMAGE": IMAGE,
            "MODELS": str(models),
            "PORT": str(self.port),
        }

    def run(self, *arguments: str) -> str:
        command = [*self.command, "--file", str(FILE), "--project-name", "mm-test", *arguments]
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def composed(engine: Engine, samples: Path) -> Iterator[Composed]:
    project = Composed(engine, samples)
    try:
        yield project
    finally:
        project.run("down")


def test_one_command_serves_a_directory_of_models_and_another_ends_it(
    engine: Engine, composed: Composed, samples: Path
) -> None:
    composed.run("up", "--detach")
    eventually(composed.pings, 60, "the service pings")
    sample = next(one for one in read_samples(samples) if one.name == "wine-forest")
    assert composed.load("wine", Path("/opt/ml/models/wine-forest/model")).status == 200
    answer = composed.invoke("wine", sample.body, headers={"Accept": sample.accept})
    assert sample.answered_by(answer.body)
    (container,) = engine.output("ps", "--quiet", "--filter", "name=mm-test").split()
    assert engine.output("exec", container, "sh", "-c", "touch /x || echo refused") == "refused"
    composed.run("down")
    assert not composed.pings()
    assert engine.output("ps", "--all", "--quiet", "--filter", "name=mm-test") == ""

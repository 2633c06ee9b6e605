"""The image with too little memory for all its models: 507s, and nothing is killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from container.__main__ import IMAGE
from container.engine import Engine
from sample_models import Sample
from sample_models import samples as read_samples
from tests.image.containers import Container, running

MODELS = "/opt/ml/models"
KILLS = """
import pathlib
for name in "memory.events", "memory/memory.oom_control":
    path = pathlib.Path("/sys/fs/cgroup") / name
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                print(line.split()[1])
"""
"""Prints how many of the container's processes the kernel has killed."""


def load(container: Container, name: str, sample: Sample) -> int:
    return container.load(name, Path(MODELS) / sample.name / "model").status


def invoke(container: Container, name: str, sample: Sample) -> int:
    return container.invoke(name, sample.body, sample.content_type).status


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("size", "at_once"), [("700m", True), ("700m", False), ("1500m", True)])
def test_loads_stop_with_507_before_anything_is_killed_and_go_on_after_an_unload(
    engine: Engine, samples: Path, size: str, at_once: bool
):
    """Each model is asked at once when it is loaded, or all of them when no more can be."""
    kinds = list(read_samples(samples))
    options = (f"--memory={size}", f"--memory-swap={size}")
    with running(engine, IMAGE, volumes={samples: f"{MODELS}:ro"}, options=options) as container:
        loaded: list[tuple[str, Sample]] = []
        statuses = [200]
        while statuses[-1] == 200:
            sample = kinds[len(loaded) % len(kinds)]
            name = f"m{len(loaded)}"
            statuses.append(load(container, name, sample))
            if statuses[-1] == 200:
                assert not at_once or invoke(container, name, sample) == 200
                loaded.append((name, sample))
            assert len(loaded) < 500
        refused = kinds[len(loaded) % len(kinds)]
        statuses += [load(container, f"refused{number}", refused) for number in range(10)]
        assert set(statuses) == {200, 507}
        for name, sample in loaded:
            assert invoke(container, name, sample) == 200
        status = json.loads(container.execute("manymodels", "status", "--json"))
        print(size, at_once, len(loaded), "models,", figures(status))
        assert status["counters"]["replaced_processes"] == 0
        same = next(name for name, sample in loaded if sample.name == refused.name)
        assert container.unload(same).status == 200
        again = load(container, "again", refused)
        assert again == 200, "\n".join(container.log().splitlines()[-3:])
        assert invoke(container, "again", refused) == 200
        assert container.execute("python", "-c", KILLS).strip() == "0"
        assert container.state("OOMKilled") == "false"
        assert container.stop() == 0


def figures(status: dict[str, Any]) -> str:
    memory = status["memory"]
    mib = {name: memory[name] >> 20 for name in ("limit", "used", "floor")}
    return f"{mib} MiB, {memory['source']}, {memory['refused_loads']} refused"

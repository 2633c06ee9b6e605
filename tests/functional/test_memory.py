"""The memory guard under a real ``serve``: by a limit of its own, and in real control groups."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.functional.cgroups import cgroup, serving_in
from tests.functional.harness import (
    Server,
    assert_gone,
    eventually,
    load_when_gone,
    serving,
    write_handler,
)

MIB = 1 << 20
LIMIT = "640m"
HANDLER = """
    import numpy

    kept = []

    def handle(data, context):
        if data is None:
            mib = float(open("mib").read())
            kept.append(numpy.ones(int(mib * 131072)))
            return None
        return [act(bytes(item.get("body", b"")).decode()) for item in data]

    def act(order):
        if order.startswith("take "):
            kept.append(numpy.ones(int(order.split()[1]) * 131072))
        return str(int(kept[0].sum()))
"""


def weighing(directory: Path, mib: float) -> Path:
    """A model that takes so much memory, of which its directory says nothing."""
    write_handler(directory, HANDLER)
    (directory / "mib").write_text(str(mib))
    return directory


def load(server: Server, name: str, directory: Path) -> int:
    return server.load(name, directory, handler="custom:handle").status


def load_until_refused(server: Server, directory: Path, most: int = 200) -> list[str]:
    names = []
    for number in range(most):
        name = f"m{number}"
        status = load(server, name, directory)
        if status != 200:
            assert status == 507, status
            return names
        names.append(name)
        assert server.invoke(name).status == 200
    raise AssertionError(f"{most} models were loaded")


def status(server: Server) -> dict[str, Any]:
    command = [sys.executable, "-m", "manymodels.cli", "status", "--json"]
    shown = subprocess.run(
        [*command, "--directory", str(server.directory)], capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(shown.stdout)
    return found


def assert_full_and_well(
    server: Server, names: list[str], directory: Path, unloads: int = 1
) -> None:
    """Everything loaded answers, what is refused is refused at once, and room is used again."""
    began = time.monotonic()
    for number in range(5):
        assert load(server, f"refused{number}", directory) == 507
        assert_gone(server, f"refused{number}")
    assert time.monotonic() - began < 10, "a refusal waits for something"
    eventually(lambda: "does not fit" in server.log(), 5)
    for name in names:
        assert server.invoke(name).status == 200
    count = len(server.model_processes())
    assert count == len(names), "a refused load left a process"
    for name in names[:unloads]:
        assert server.unload(name).status == 200
    again = load_when_gone(server, "refused0", directory, handler="custom:handle")
    assert again.status == 200
    assert server.invoke("refused0").status == 200


def test_loads_stop_at_the_servers_own_limit_and_go_on_when_one_is_unloaded(tmp_path):
    model = weighing(tmp_path / "model", 20)
    with serving(MANYMODELS_MEMORY_LIMIT=LIMIT) as server:
        names = load_until_refused(server, model)
        assert len(names) >= 2
        assert_full_and_well(server, names, model)
        shown = status(server)
        assert shown["memory"]["limit"] == 640 * MIB
        assert shown["memory"]["refused_loads"] >= 6
        assert shown["counters"]["failed_loads"] == {"507": shown["memory"]["refused_loads"]}
        assert shown["counters"]["replaced_processes"] == 0


def test_without_the_guard_the_limit_refuses_nothing(tmp_path):
    model = weighing(tmp_path / "model", 20)
    with serving(MANYMODELS_MEMORY_LIMIT=LIMIT, MANYMODELS_MEMORY_GUARD="off") as server:
        for number in range(16):
            assert load(server, f"m{number}", model) == 200


def test_in_a_control_group_only_507s_and_nothing_is_killed(tmp_path):
    model = weighing(tmp_path / "model", 20)
    with cgroup() as group:
        group.limit_memory(640 * MIB)
        with serving_in(group) as server:
            names = load_until_refused(server, model)
            assert len(names) >= 2
            assert_full_and_well(server, names, model)
            assert group.kernel_kills == 0
            assert "cgroup v" in status(server)["memory"]["source"]


def test_a_load_that_the_kernel_kills_is_507_and_takes_nothing_with_it(tmp_path):
    small, large = weighing(tmp_path / "small", 1), weighing(tmp_path / "large", 2000)
    with cgroup() as group:
        group.limit_memory(640 * MIB)
        with serving_in(group) as server:
            assert load(server, "small", small) == 200
            (before,) = server.model_processes()
            assert load(server, "large", large) == 507
            assert_gone(server, "large")
            assert group.kernel_kills == 1
            assert server.invoke("small").status == 200
            assert [p.pid for p in server.model_processes()] == [before.pid]
            eventually(lambda: "killed by the kernel" in server.log(), 5)
            assert status(server)["counters"]["kernel_kills"] == 1


def test_a_model_that_the_kernel_kills_in_a_request_is_replaced_and_the_others_live(tmp_path):
    model = weighing(tmp_path / "model", 1)
    with cgroup() as group:
        group.limit_memory(640 * MIB)
        with serving_in(group) as server:
            assert load(server, "greedy", model) == 200
            assert load(server, "other", model) == 200
            answer = server.invoke("greedy", "take 2000", "text/plain")
            assert answer.status == 500
            assert "killed by the kernel, as memory ran out" in answer.json()["message"]
            eventually(lambda: server.invoke("greedy").status == 200, what="it is replaced")
            assert server.invoke("other").status == 200
            assert group.kernel_kills == 1


def test_a_killed_model_is_not_replaced_while_memory_is_short(tmp_path):
    model, hog = weighing(tmp_path / "model", 60), weighing(tmp_path / "hog", 1)
    with serving(MANYMODELS_MEMORY_LIMIT=LIMIT) as server:
        assert load(server, "victim", model) == 200
        victim = server.model_processes()[0]
        assert load(server, "hog", hog) == 200
        free = status(server)["memory"]
        # A replacement may take a quarter of the floor.
        taking = (free["limit"] - free["used"] - free["floor"] * 3 // 4) // MIB
        assert server.invoke("hog", f"take {taking}", "text/plain").status == 200
        victim.kill()
        answer = server.invoke("victim")
        assert answer.status == 503
        assert "does not fit" in answer.json()["message"]
        assert server.log().count("its process is not replaced yet") == 1
        assert server.invoke("hog").status == 200
        server.unload("hog")
        eventually(lambda: server.invoke("victim").status == 200, what="there is room again")


@pytest.mark.timeout(300)
def test_at_the_limit_of_processes_a_load_is_507_and_never_hangs(tmp_path):
    model = weighing(tmp_path / "model", 1)
    with cgroup() as group, serving_in(group) as server:
        group.limit_pids(group.task_count + 120)
        names = load_until_refused(server, model)
        assert len(names) >= 5
        # The threads that the JVM had for a model end a minute later, or serve the next.
        assert_full_and_well(server, names, model, unloads=3)

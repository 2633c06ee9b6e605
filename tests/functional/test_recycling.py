"""Processes of models that come to a limit of their own are replaced between requests."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.functional.harness import Server, eventually, serving, write_handler

MIB = 1 << 20
LIMIT = 64
HANDLER = """
    import os

    MIB = 1 << 20
    LOADED_BY = os.getpid()
    heap = []

    def handle(data, context):
        if data is None:
            return None
        for item in data:
            order, _, size = bytes(item["body"]).decode().partition(" ")
            if order == "leak":
                heap.append(b"x" * (int(size) * MIB))
        return [f"{os.getpid()} {LOADED_BY} {sum(map(len, heap))}"] * len(data)

    def handle_much(data, context):
        if not heap:
            heap.append(b"x" * (100 * MIB))
        return handle(data, context)
"""
REPLACED = re.compile(r" INFO .*model (\S+): its process (\d+) is replaced: it has (.+)$", re.M)


class Reply(NamedTuple):
    """Which process answered, which one had loaded the model, and the bytes on its heap."""

    pid: int
    loaded_by: int
    heap: int


def ask(server: Server, name: str, order: str, times: int, clients: int = 4) -> list[Reply]:
    """Ask from several clients at once; every answer must be right."""

    def one(_: int) -> Reply:
        answer = server.invoke(name, order, timeout=20)
        assert answer.status == 200, answer.body
        return Reply(*map(int, answer.body.split()))

    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, range(times)))


def shown(server: Server, name: str) -> Any:
    found = json.loads(
        subprocess.run(
            [sys.executable, "-m", "manymodels.cli", "status", "--json"],
            env={**os.environ, "TMPDIR": str(server.directory)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    )
    (model,) = (model for model in found["models"] if model["name"] == name)
    return model


def replaced(server: Server, name: str) -> list[tuple[int, str]]:
    """The pids of a model's processes that were replaced, and the reasons, from the log."""
    lines = REPLACED.findall(server.log())
    return [(int(pid), reason) for model, pid, reason in lines if model == name]


def assert_replaced(server: Server, name: str, replies: list[Reply]) -> list[str]:
    """Fail unless no request is lost and each replacement is shown; return their reasons."""
    pids = {reply.pid for reply in replies}
    # The last reply may be that of a process whose end is yet to be seen.
    eventually(lambda: len(replaced(server, name)) == shown(server, name)["restarts"])
    gone = replaced(server, name)
    found = shown(server, name)
    assert found["tally"]["requests"] == len(replies)
    assert found["tally"]["errors"] == {}
    assert found["restarts"] == len(gone) == len(set(gone))
    left = {worker["pid"] for worker in found["workers"]}
    assert {pid for pid, _ in gone} == pids - left
    assert len(pids) > 3
    return [reason for _, reason in gone]


def assert_calm(server: Server) -> None:
    assert not [line for line in server.log().splitlines() if re.search("WARN|ERROR|Trace", line)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_handler(tmp_path_factory.mktemp("models") / "model", HANDLER)


@pytest.fixture(scope="module")
def by_requests() -> Iterator[Server]:
    with serving(MANYMODELS_MODEL_REQUESTS_LIMIT="5") as server:
        yield server


@pytest.fixture(scope="module")
def by_memory() -> Iterator[Server]:
    with serving(MANYMODELS_MODEL_MEMORY_LIMIT=f"{LIMIT}m") as server:
        yield server


def test_a_process_is_replaced_after_its_requests_and_none_is_lost(by_requests, model):
    assert by_requests.load("one", model, handler="custom:handle").status == 200
    replies = ask(by_requests, "one", "pid", 100)
    eventually(lambda: len(replaced(by_requests, "one")) == 20)
    assert assert_replaced(by_requests, "one", replies) == ["answered 5 requests"] * 20
    assert {reply.pid for reply in replies} == {pid for pid, _ in replaced(by_requests, "one")}
    assert_calm(by_requests)


def test_requests_of_a_batch_count_each(by_requests, model):
    loaded = by_requests.load(
        "many", model, handler="custom:handle", batch_size=4, max_batch_delay=50
    )
    assert loaded.status == 200
    replies = ask(by_requests, "many", "pid", 100)
    reasons = assert_replaced(by_requests, "many", replies)
    counts = [int(reason.split()[1]) for reason in reasons]
    assert all(5 <= count <= 8 for count in counts), "the batch in which it comes to its limit"
    (worker,) = shown(by_requests, "many")["workers"]
    assert sum(counts) + worker["tally"]["requests"] == 100
    assert_calm(by_requests)


@pytest.mark.parametrize("batch", [1, 4])
def test_workers_of_a_model_are_replaced_one_by_one_and_load_it_anew(model, batch):
    with serving(SAGEMAKER_MODEL_SERVER_WORKERS="2", MANYMODELS_MODEL_REQUESTS_LIMIT="5") as server:
        loaded = server.load(
            "two", model, handler="custom:handle", batch_size=batch, max_batch_delay=50
        )
        assert loaded.status == 200
        eventually(lambda: len(server.model_processes()) == 2)
        first = {process.pid for process in server.model_processes()}
        replies = ask(server, "two", "pid", 100)
        assert_replaced(server, "two", replies)
        later = [reply for reply in replies if reply.pid not in first]
        assert all(reply.loaded_by == reply.pid for reply in later), "no fork of a used one"
        eventually(lambda: len(server.model_processes()) == 2)
        assert_calm(server)


def test_a_process_that_leaks_is_replaced_soon_after_its_limit(by_memory, model):
    assert by_memory.load("leaky", model, handler="custom:handle").status == 200
    replies = ask(by_memory, "leaky", "leak 5", 100)
    reasons = assert_replaced(by_memory, "leaky", replies)
    pattern = rf"(\d+) MiB of memory, more than {LIMIT} MiB"
    sizes = [int(re.fullmatch(pattern, reason).group(1)) for reason in reasons]
    assert all(LIMIT <= size < 2 * LIMIT for size in sizes)
    assert max(reply.heap for reply in replies) < 2 * LIMIT * MIB
    assert_calm(by_memory)


def test_a_model_that_is_above_the_limit_at_once_is_warned_of_and_served(by_memory, model):
    assert by_memory.load("much", model, handler="custom:handle_much").status == 200
    replies = ask(by_memory, "much", "pid", 50)
    assert len({reply.pid for reply in replies}) == 1
    assert shown(by_memory, "much")["restarts"] == 0
    warnings = [line for line in by_memory.log().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert f"more than {LIMIT} MiB" in warnings[0]
    assert "[much]" in warnings[0]


def test_a_model_that_cannot_be_loaded_again_says_so_and_is_not_tried_each_time(
    by_requests, tmp_path
):
    model = write_handler(
        tmp_path / "model",
        """
        import os
        if os.path.exists("broken"):
            open("tries", "a").write("x")
            raise ValueError("broken")

        def handle(data, context):
            return None if data is None else ["ok"] * len(data)
        """,
    )
    assert by_requests.load("once", model, handler="custom:handle").status == 200
    (model / "broken").touch()
    answers = [by_requests.invoke("once").status for _ in range(40)]
    assert answers == [200] * 5 + [503] * 35
    assert len((model / "tries").read_text()) <= 2, "one each few seconds"
    by_requests.unload("once")

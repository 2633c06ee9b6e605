"""``manymodels status`` and the metrics of a real ``serve``: they show what was done to it."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from manymodels.status.command import ask
from tests.functional.harness import Server, eventually, free_port, serving, write_handler

MIB = 1 << 20
ECHO = """
    def handle(data, context):
        if data is None:
            return None
        for index, item in enumerate(data):
            status = bytes(item["body"])
            if status.isdigit():
                context.set_response_status(int(status), "", index)
        return ["ok"] * len(data)
"""
LONG = "handle_" + "x" * 4000
"""Models with such a handler make a snapshot that no socket's buffer holds."""
Sample = tuple[str, frozenset[tuple[str, str]]]


def status(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command where the server's TMPDIR is ``directory``."""
    return subprocess.run(
        [sys.executable, "-m", "manymodels.cli", "status", *options],
        env={**os.environ, "TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def snapshot(server: Server) -> Any:
    answer = status(server.directory, "--json", "--port", str(server.port))
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def shown(server: Server, name: str) -> Any:
    """The JSON object of one model."""
    (model,) = (model for model in snapshot(server)["models"] if model["name"] == name)
    return model


def table(server: Server) -> tuple[str, dict[str, list[str]]]:
    """What is above the table, and its rows by their first cell."""
    answer = status(server.directory)
    assert (answer.returncode, answer.stderr) == (0, "")
    head, _, rows = answer.stdout.partition("\n\n")
    cells = [re.split(r" {2,}", line) for line in rows.splitlines()]
    return head, {row[0]: row for row in cells}


def load(server: Server, name: str, model: Path, function: str = "handle") -> None:
    answer = server.load(name, model, handler=f"custom:{function}")
    assert answer.status == 200, answer.body


def statuses(server: Server, name: str, *bodies: str) -> list[int]:
    return [server.invoke(name, body).status for body in bodies]


def unload(server: Server, name: str) -> None:
    assert server.unload(name).status == 200
    eventually(lambda: name not in [m["name"] for m in snapshot(server)["models"]])


def on_disk(directory: Path) -> int:
    return sum(512 * path.lstat().st_blocks for path in (directory, *directory.rglob("*")))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_handler(tmp_path_factory.mktemp("models") / "model", ECHO)
    (directory / "weights").write_bytes(b"w" * 100_000)
    return directory


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("root")
    with serving(
        MANYMODELS_MODEL_ROOT=str(root),
        MANYMODELS_METRICS_PORT=str(free_port()),
        MANYMODELS_METRICS_FILE=str(root / "m.prom"),
    ) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A server without models; what it has counted before stays."""
    yield shared_server
    shared_server.unload_all()
    shared_server.assert_nothing_left()


# -- the command -------------------------------------------------------------------------------


def test_a_server_without_models_says_so(server):
    head, rows = table(server)
    assert list(rows) == ["no models"]
    assert f"port {server.port}, pid {server.process.pid}, up" in head
    found = snapshot(server)
    assert found["models"] == []
    assert found["server"]["pid"] == server.process.pid


def test_each_models_requests_and_errors_are_those_that_were_made(server, model):
    load(server, "quiet", model)
    load(server, "asked", model)
    before = time.time()
    bodies = ("x", "400", "x", "500", "404", "400", "503")
    assert statuses(server, "asked", *bodies) == [200, 400, 200, 500, 404, 400, 503]
    after = time.time()
    asked, quiet = shown(server, "asked"), shown(server, "quiet")
    assert asked["tally"]["requests"] == sum(asked["tally"]["buckets"]) == 7
    assert asked["tally"]["errors"] == {"400": 2, "404": 1, "500": 1, "503": 1}
    assert asked["tally"]["other_errors"] == 0
    assert before - 0.01 <= asked["tally"]["last_use"] <= after + 0.01
    assert 0 < asked["tally"]["seconds"] < after - before
    assert (quiet["tally"]["requests"], quiet["tally"]["errors"]) == (0, {})
    assert quiet["tally"]["last_use"] is None
    _, rows = table(server)
    assert list(rows) == ["MODEL", "asked", "quiet", "2 models"]
    assert rows["asked"][4:6] == ["7", "5"]
    assert rows["quiet"][4:7] == ["0", "0", "never"]
    assert rows["2 models"][3:5] == ["7", "5"]


def test_a_model_is_shown_with_its_memory_its_directory_and_its_lease(server, model):
    began = time.monotonic()
    load(server, "m", model)
    took = 1000 * (time.monotonic() - began)
    (process,) = server.model_processes()
    found = shown(server, "m")
    (worker,) = found["workers"]
    memory = process.memory_full_info()
    assert (found["path"], found["handler"]) == (str(model), "custom:handle")
    assert (found["state"], worker["state"], worker["pid"]) == ("loaded", "idle", process.pid)
    assert abs(worker["private_bytes"] - memory.uss) < MIB
    assert abs(worker["shared_bytes"] - (memory.rss - memory.uss)) < 2 * MIB
    assert 0 < found["load_ms"] <= took
    assert (found["restarts"], found["leased"]) == (0, True)
    assert found["directory_bytes"] == on_disk(model) > 100_000
    _, rows = table(server)
    assert rows["m"][1] == str(process.pid)
    assert rows["m"][-1] == "held"


def test_counts_go_on_when_a_process_is_killed(server, model):
    load(server, "m", model)
    assert statuses(server, "m", "x", "400") == [200, 400]
    before = snapshot(server)["counters"]
    (process,) = server.model_processes()
    process.kill()
    assert statuses(server, "m", "x", "500") == [200, 500]
    found, counters = shown(server, "m"), snapshot(server)["counters"]
    assert found["tally"]["requests"] == 4
    assert found["tally"]["errors"] == {"400": 1, "500": 1}
    assert found["restarts"] == 1
    assert counters == {**before, "replaced_processes": before["replaced_processes"] + 1}
    (worker,) = found["workers"]
    assert worker["pid"] != process.pid
    assert worker["tally"]["requests"] == 2, "its own"


def test_loads_failed_loads_and_unloads_are_counted(server, model, tmp_path):
    before = snapshot(server)["counters"]
    broken = write_handler(tmp_path / "broken", "raise ValueError('no')")
    large = write_handler(tmp_path / "large", "raise MemoryError")
    load(server, "m", model)
    load(server, "n", model)
    tried = (broken, large, broken)
    failed = [server.load(path.name, path, handler="custom:handle").status for path in tried]
    assert failed == [500, 507, 500]
    unload(server, "m")
    expected = {
        **before,
        "loads": before["loads"] + 2,
        "unloads": before["unloads"] + 1,
        "failed_loads": added(before["failed_loads"], {"500": 2, "507": 1}),
    }
    assert snapshot(server)["counters"] == expected
    assert f"loads    {expected['loads']} done" in table(server)[0]


def added(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {key: counts.get(key, 0) + more.get(key, 0) for key in (*counts, *more)}


def test_the_volume_and_the_memory_are_shown_with_their_marks(server):
    root = Path(server.environment["MANYMODELS_MODEL_ROOT"])
    volume, memory = snapshot(server)["volume"], snapshot(server)["memory"]
    assert (volume["root"], volume["mode"]) == (str(root), "evict")
    assert volume["high"] == pytest.approx(0.95)
    assert volume["low"] == pytest.approx(0.90)
    assert 0 < volume["used_bytes"] <= volume["size_bytes"] <= psutil.disk_usage(str(root)).total
    assert 0 < volume["used_fraction"] <= 1
    family = [psutil.Process(server.process.pid), *server._descendants()]
    own = sum(process.memory_full_info().uss for process in family)
    assert own / 2 < memory["used"] <= memory["limit"] <= psutil.virtual_memory().total
    assert 0 < memory["floor"] < memory["limit"]
    assert memory["pids"] != 0, "unknown, or how many there are"
    head, _ = table(server)
    assert str(root) in head.replace("\n         ", "")
    assert "; 0 processes" not in head


def test_workers_of_a_model_are_shown_together_and_no_volume_where_there_is_no_root(
    model, tmp_path
):
    root = tmp_path / "root"
    root.mkdir()
    with serving(SAGEMAKER_MODEL_SERVER_WORKERS="2", MANYMODELS_MODEL_ROOT=str(root)) as server:
        root.rmdir()
        eventually(lambda: snapshot(server)["volume"] is None)
        assert "volume   not watched" in table(server)[0]
        load(server, "m", model)
        eventually(lambda: len(server.model_processes()) == 2)
        assert statuses(server, "m", "x", "400", "x", "x", "x") == [200, 400, 200, 200, 200]
        found = shown(server, "m")
        processes = server.model_processes()
        assert {w["pid"] for w in found["workers"]} == {p.pid for p in processes}
        assert sum(w["tally"]["requests"] for w in found["workers"]) == 5
        assert (found["tally"]["requests"], found["tally"]["errors"]) == (5, {"400": 1})
        private = sum(w["private_bytes"] for w in found["workers"])
        assert abs(private - sum(p.memory_full_info().uss for p in processes)) < MIB
        _, rows = table(server)
        assert re.fullmatch(r"\d+\+1", rows["m"][1])
        assert rows["1 model"][1] == "2"
        for process in processes:
            process.kill()
        assert statuses(server, "m", *"xxxxxx") == [200] * 6
        assert shown(server, "m")["tally"]["requests"] == 11
        eventually(lambda: shown(server, "m")["restarts"] == 2)
        unload(server, "m")
        counters = snapshot(server)["counters"]
        assert (counters["loads"], counters["unloads"]) == (1, 1)
        assert counters["replaced_processes"] == 2, "those that an unload ends are not"


def test_of_two_servers_one_is_chosen_by_its_port_and_a_killed_one_is_passed_over(server):
    second = Server({"TMPDIR": str(server.directory)})
    try:
        second.start()
        ports = sorted((server.port, second.port))
        both = status(server.directory)
        assert (both.returncode, both.stdout) == (1, "")
        assert both.stderr.splitlines() == [
            "manymodels: several servers are running; choose one by its port: "
            f"{ports[0]}, {ports[1]}"
        ]
        for one in (server, second):
            found = status(server.directory, "--json", "--port", str(one.port))
            assert json.loads(found.stdout)["server"]["pid"] == one.process.pid
        family = second._descendants()
        second.process.kill()
        psutil.wait_procs(family, 10)
        second.process.wait(10)
        assert list(server.directory.glob(f"manymodels-{second.port}-*/status")), "it is stale"
        left = status(server.directory, "--json")
        assert json.loads(left.stdout)["server"]["port"] == server.port
        gone = status(server.directory, "--port", str(second.port))
        assert (gone.returncode, gone.stdout, gone.stderr.count("\n")) == (1, "", 1)
        assert f"no server is running on port {second.port}" in gone.stderr
    finally:
        second.close()


def test_where_no_server_runs_the_command_says_so_in_one_line(tmp_path):
    answer = status(tmp_path)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1)
    assert f"no server is running in {tmp_path}" in answer.stderr


# -- the metrics -------------------------------------------------------------------------------


def samples(text: str) -> dict[Sample, float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(server: Server) -> Callable[..., float | None]:
    """GET /metrics; look samples up by their name without its prefix, and labels."""
    port = int(server.environment["MANYMODELS_METRICS_PORT"])
    answer = Server(port=port, directory=server.directory).request("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = samples(answer.body.decode())
    return lambda name, **labels: found.get((f"manymodels_{name}", frozenset(labels.items())))


def test_the_metrics_have_the_figures_of_the_status(server, model):
    load(server, "m", model)
    statuses(server, "m", "x", "400", "500", "400", "x")
    (process,) = server.model_processes()
    process.kill()
    statuses(server, "m", "x")
    found, value = snapshot(server), scrape(server)
    (m,) = found["models"]
    assert value("requests_total", model="m") == 6
    assert value("errors_total", model="m", status="400") == 2
    assert value("errors_total", model="m", status="500") == 1
    assert value("errors_total", model="m", status="200") is None
    assert value("restarts_total", model="m") == 1
    assert value("latency_seconds_count", model="m") == 6
    assert value("latency_seconds_bucket", model="m", le="+Inf") == 6
    assert value("latency_seconds_bucket", model="m", le="0.0002") == m["tally"]["buckets"][0]
    assert value("latency_seconds_sum", model="m") == pytest.approx(m["tally"]["seconds"])
    assert value("load_seconds", model="m") == pytest.approx(m["load_ms"] / 1000)
    assert value("last_use_timestamp_seconds", model="m") == pytest.approx(m["tally"]["last_use"])
    private = value("memory_bytes", model="m", kind="private")
    assert private is not None
    assert abs(private - m["workers"][0]["private_bytes"]) < MIB
    counters = found["counters"]
    for name in ("loads", "unloads", "replaced_processes", "kernel_kills"):
        assert value(f"{name}_total") == counters[name], name
    for failed, count in counters["failed_loads"].items():
        assert value("failed_loads_total", status=failed) == count
    assert value("models") == 1
    assert value("memory_limit_bytes") == found["memory"]["limit"]
    assert value("volume_high_ratio") == found["volume"]["high"]
    assert value("evictions_total") == 0


def refusal(tmp_path: Path, **environment: str) -> str:
    """The one line with which ``serve`` refuses to start."""
    server = Server(environment)
    try:
        server.start(ready=False)
        assert server.process.wait(20) == 1
        lines = server.log().splitlines()
        assert len(lines) == 1, lines
        assert not list(server.directory.glob("manymodels-*"))
        return lines[0]
    finally:
        server.close()


def test_a_metrics_port_that_is_taken_ends_the_start_with_one_line(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(tmp_path, MANYMODELS_METRICS_PORT=str(port))
    assert line.endswith(f"no metrics on port {port}: Address already in use")


def test_the_servers_own_port_is_none_for_metrics(tmp_path):
    port = str(free_port())
    line = refusal(tmp_path, MANYMODELS_METRICS_PORT=port, SAGEMAKER_BIND_TO_PORT=port)
    assert f"no metrics on port {port}" in line


@pytest.mark.parametrize(
    ("file", "reason"), [("missing/m.prom", "No such file or directory"), (".", "Is a directory")]
)
def test_a_metrics_file_that_cannot_be_written_ends_the_start_with_one_line(tmp_path, file, reason):
    line = refusal(tmp_path, MANYMODELS_METRICS_FILE=str(tmp_path / file))
    assert line.endswith(f"no metrics in {tmp_path / file}: {reason}")


# -- clients of the socket ---------------------------------------------------------------------


def connect(path: Path) -> socket.socket:
    """Connect and wait for room to do so, as a client that is in no hurry."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(path))
    return client


def status_socket(server: Server) -> Path:
    (path,) = server.directory.glob(f"manymodels-{server.port}-*/status")
    return path


def test_clients_that_never_read_or_hang_up_delay_no_load(server, tmp_path):
    model = write_handler(tmp_path / "model", ECHO.replace("def handle", f"def {LONG}"))
    path, host = status_socket(server), server.host()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: load(server, f"m{n}", model, LONG), range(60)))
    threads = host.num_threads()
    silent = [connect(path) for _ in range(12)]
    eventually(lambda: host.num_threads() >= threads + 12, what="they do not take the answer")
    for _ in range(40):
        connect(path).close()
    began = time.monotonic()
    load(server, "one", model, LONG)
    assert statuses(server, "one", "x") == [200]
    assert time.monotonic() - began < 1.0
    assert len(ask(path, 5).models) == 61
    eventually(lambda: host.num_threads() <= threads, 15, "they are given up")
    for client in silent:
        client.close()


def test_more_clients_than_the_socket_has_room_for_are_all_answered(server, model):
    path, host = status_socket(server), server.host()
    host.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = [pool.submit(ask, path, 20) for _ in range(50)]
            waiting = lambda: Path("/proc/net/unix").read_text().count(str(path)) > 17  # noqa: E731
            eventually(waiting, what="no more can wait")
            host.send_signal(signal.SIGCONT)
            assert {answer.result().server.port for answer in answers} == {server.port}
    finally:
        host.send_signal(signal.SIGCONT)
    load(server, "m", model)


# -- the file, last, as it takes its time --------------------------------------------------------


def test_the_metrics_file_is_there_from_the_start_and_written_every_15_seconds(server, model):
    file = Path(server.environment["MANYMODELS_METRICS_FILE"])
    written = file.stat().st_mtime
    load(server, "late", model)
    statuses(server, "late", "x", "400")
    eventually(lambda: file.stat().st_mtime > written, 17, "it is written again")
    found = samples(file.read_text())
    started = found["manymodels_start_time_seconds", frozenset()]
    assert (written - started) % 15 == pytest.approx(0, abs=3) or (written - started) % 15 > 14
    assert list(file.parent.iterdir()) == [file], "nothing else is left"

"""Metrics on a port and in a file."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from manymodels.errors import ServeError
from manymodels.status.metrics import serve_metrics, write_metrics
from manymodels.status.snapshot import Counters, Snapshot
from tests.unit.snapshots import model, snapshot, tally
from tests.unit.test_metric_families import exposition, value


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


# -- the port ----------------------------------------------------------------------------


def test_each_scrape_is_a_new_look(port):
    seen = itertools.count(1)
    close = serve_metrics(port, lambda: snapshot(counters=Counters(next(seen))), "127.0.0.1")
    try:
        assert [value(get(port), "loads_total") for _ in range(3)] == [1, 2, 3]
    finally:
        close()


def test_scrapes_at_once_look_one_after_the_other(port):
    looks = [threading.Event(), threading.Event()]
    go_on = threading.Event()
    waiting = iter(looks)

    def source() -> Snapshot:
        next(waiting).set()
        go_on.wait(20)
        return snapshot()

    close = serve_metrics(port, source, "127.0.0.1")
    try:
        threads = [threading.Thread(target=get, args=(port,)) for _ in looks]
        for thread in threads:
            thread.start()
        assert looks[0].wait(20)
        assert not looks[1].wait(0.3)
        go_on.set()
        assert looks[1].wait(20)
        for thread in threads:
            thread.join(20)
    finally:
        go_on.set()
        close()


def test_the_port_is_free_again_after_the_end(port):
    for _ in range(2):
        close = serve_metrics(port, snapshot, "127.0.0.1")
        assert value(get(port), "models") == 0
        close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(port)


def test_a_source_that_fails_is_500_and_the_next_scrape_is_answered(port, capfd):
    answers = iter([RuntimeError("secret"), snapshot()])

    def source() -> Snapshot:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    close = serve_metrics(port, source, "127.0.0.1")
    try:
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(port)
        assert raised.value.code == 500
        assert b"secret" not in raised.value.read()
        assert value(get(port), "models") == 0
    finally:
        close()


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"no metrics on port {port}: Address already in use"):
            serve_metrics(port, snapshot, "127.0.0.1")


# -- the file ----------------------------------------------------------------------------


def test_the_file_has_what_the_port_answers(tmp_path):
    path = tmp_path / "manymodels.prom"
    one = snapshot(model("wine", tally=tally(0.1)))
    write_metrics(path, lambda: one)
    assert path.read_text() == exposition(one)
    assert [entry.name for entry in tmp_path.iterdir()] == ["manymodels.prom"]


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path):
    path = tmp_path / "manymodels.prom"
    write_metrics(path, lambda: snapshot(model("old")))
    with path.open() as reader:
        write_metrics(path, lambda: snapshot(model("new")))
        old = reader.read()
    assert value(old, "requests_total", model="old") == 0
    assert value(path.read_text(), "requests_total", model="new") == 0


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "manymodels.prom"
    write_metrics(path, lambda: snapshot(model("old")))
    before = path.read_text()

    def fail() -> Snapshot:
        raise RuntimeError("no snapshot")

    with pytest.raises(RuntimeError):
        write_metrics(path, fail)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["manymodels.prom"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(OSError, match="No such file or directory"):
        write_metrics(tmp_path / "nowhere" / "manymodels.prom", snapshot)

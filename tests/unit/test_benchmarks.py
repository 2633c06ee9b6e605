"""The benchmark's own arithmetic, its load generator, and how it finds what it started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid

import pytest

pytest.importorskip("rich")
pytest.importorskip("psutil")

from benchmarks import loadgen, processes, report
from benchmarks.loadgen import Exchange, UnexpectedAnswer, drive, split_response, time_each
from benchmarks.measure import percentile

LOAD = next(figure for figure in report.FIGURES if figure.key == "load_p50_ms")
THROUGHPUT = next(figure for figure in report.FIGURES if figure.key == "throughput_one_rps")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n1\n"
ASK = b"POST /models/m/invoke HTTP/1.1\r\n\r\n"


def a_round(**by_stack: float) -> dict[str, dict[str, float]]:
    """A round in which every figure of a stack has one value."""
    names = {name.replace("_", "-"): value for name, value in by_stack.items()}
    return {n: {figure.key: value for figure in report.FIGURES} for n, value in names.items()}


class Answering:
    """A server on loopback that answers each request in turn with ``answers``, in two pieces."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers
        self._listener = socket.create_server((loadgen.HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for count in range(1000):
                received = b""
                while not received.endswith(b"\r\n\r\n"):
                    chunk = connection.recv(4096)
                    if not chunk:
                        return
                    received += chunk
                answer = self._answers[count % len(self._answers)]
                connection.sendall(answer[:25])
                connection.sendall(answer[25:])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def answering():
    servers = []

    def start(*answers):
        servers.append(Answering(*answers))
        return servers[-1].port

    yield start
    for server in servers:
        server.close()


def test_a_percentile_is_one_of_the_values():
    values = [float(value) for value in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values[:20], 0.99) == 100
    assert percentile([7.0], 0.5) == 7


def test_ratios_are_taken_within_a_round_before_the_median():
    rounds = [
        a_round(stock=100, ours=10),
        a_round(stock=900, ours=30),
        a_round(stock=200, ours=10),
    ]
    assert report.ratios(rounds, LOAD) == {"ours": (20.0, 10.0, 30.0)}
    assert report.ratios(rounds, THROUGHPUT)["ours"].median == pytest.approx(1 / 20)


def test_a_growth_that_is_not_positive_has_no_ratio():
    rounds = [a_round(stock=100, ours=10), a_round(stock=100, ours=-1)]
    assert report.ratios(rounds, LOAD) == {}


def test_a_goal_is_missed_by_each_judged_stack_for_itself():
    rounds = [a_round(stock=100, ours=1, ours_generic=50)]
    lines = report.missed_goals(rounds)
    goals = [figure for figure in report.FIGURES if figure.goal is not None]
    # A value of 1 is a hundredth of the throughput, and of 50 half of it: missed by both.
    assert [line for line in lines if line.startswith("ours: ")] == [
        "ours: 16 connections, one model: 0.01x, the goal is 1.3x"
    ]
    generic = [line for line in lines if line.startswith("ours-generic: ")]
    assert len(generic) == len([goal for goal in goals if goal.key != "latency_p50_ms"])


@pytest.mark.parametrize("stacks", [{"stock": 1}, {"ours": 1}])
def test_nothing_compared_is_no_goal_reached(stacks):
    assert report.missed_goals([a_round(**stacks)])


def test_a_goal_without_a_ratio_is_missed():
    lines = report.missed_goals([a_round(stock=100, ours=-1)])
    assert len(lines) == len([figure for figure in report.FIGURES if figure.goal is not None])


@pytest.mark.parametrize("cut", range(len(OK)))
def test_a_response_is_whole_only_with_its_last_byte(cut):
    assert split_response(OK[:cut]) is None
    assert split_response(OK) == (200, b"1\n")


@pytest.mark.parametrize("received", [OK + b"x", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_response_that_cannot_be_bounded_is_refused(received):
    with pytest.raises(UnexpectedAnswer):
        split_response(received)


def test_each_request_is_timed(answering):
    seconds = time_each(answering(OK), Exchange(ASK, b"1\n"), 20, timeout=10)
    assert len(seconds) == 20
    assert all(0 < value < 10 for value in seconds)


def test_all_requests_are_driven_over_all_connections(answering):
    driven = drive(answering(OK), [Exchange(ASK, b"1\n")], connections=4, count=50, timeout=10)
    assert driven.requests == 50
    assert 0 < driven.seconds < 10


@pytest.mark.parametrize(
    "wrong",
    [
        OK.replace(b"1\n", b"2\n"),
        OK.replace(b"200 OK", b"503 No"),
    ],
)
def test_one_wrong_answer_ends_the_run(answering, wrong):
    port = answering(OK, OK, wrong)
    with pytest.raises(UnexpectedAnswer):
        time_each(port, Exchange(ASK, b"1\n"), 20, timeout=10)
    with pytest.raises(UnexpectedAnswer):
        drive(port, [Exchange(ASK, b"1\n")], connections=2, count=20, timeout=10)


def test_a_reparented_process_is_found_weighed_and_ended():
    mark = uuid.uuid4().hex
    code = "import subprocess; subprocess.Popen(['sleep', '60'])"
    environment = {**os.environ, processes.MARK: mark}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=30)
    (orphan,) = processes.marked(mark)
    memory = processes.weigh([orphan])
    assert memory.processes == 1
    assert memory.backend > 0
    assert memory.jvm == 0
    assert processes.end_all(lambda: processes.marked(mark), 5) == 1
    assert processes.marked(mark) == []

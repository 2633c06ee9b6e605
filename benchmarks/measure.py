"""The measurements, made on one running stack in one fixed order."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.loadgen import Connection, Drive, Exchange, UnexpectedAnswer, drive, time_each
from benchmarks.processes import Memory
from benchmarks.stacks import Server, Stack, running
from benchmarks.workload import Model

MIB = 1024 * 1024
CONNECTIONS = 16
TIMEOUT = 180.0
"""Seconds that any one step may take before the run is given up."""
STEPS = ("start", "load", "latency", "throughput, one model", "throughput, all models")

Figures = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """How much is asked of each stack in a round."""

    models: int
    warm_up: int
    single: int
    concurrent: int


FULL = Effort(models=20, warm_up=1000, single=2000, concurrent=8000)
QUICK = Effort(models=4, warm_up=200, single=500, concurrent=1500)


def measure(
    stack: Stack,
    models: Sequence[Model],
    effort: Effort,
    directory: Path,
    begin_step: Callable[[str], None],
) -> Figures:
    """Return every figure of a stack: milliseconds, MiB, requests a second."""
    begin_step(STEPS[0])
    with running(stack, directory) as server:
        figures = {"ready_s": server.seconds_to_ready}
        begin_step(STEPS[1])
        loading, exchanges = _load_all(server, models)
        figures |= loading
        begin_step(STEPS[2])
        figures |= _latency(server, exchanges[0], effort)
        begin_step(STEPS[3])
        figures |= _throughput(server, exchanges[:1], effort, "one")
        begin_step(STEPS[4])
        figures |= _throughput(server, exchanges, effort, "all")
    return figures


def percentile(values: Sequence[float], part: float) -> float:
    """Return the smallest value that at least ``part`` of all values do not exceed."""
    return sorted(values)[max(math.ceil(part * len(values)) - 1, 0)]


def _load_all(server: Server, models: Sequence[Model]) -> tuple[Figures, list[Exchange]]:
    """Load and ask each model once; weigh after the first and after the last.

    What the first model brings (pages that forked processes come to share, classes the JVM
    loads) is thereby left out: the growth is that of one more model.
    """
    seconds, exchanges = [], []
    first = server.weigh()
    with Connection(server.port, TIMEOUT) as connection:
        for model in models:
            start = time.perf_counter()
            connection.ask(model.load_request)
            seconds.append(time.perf_counter() - start)
            exchanges.append(_first_exchange(connection, model))
            if len(exchanges) == 1:
                first = _settled(server)
    last = _settled(server)
    more = max(len(models) - 1, 1)
    backend = (last.backend - first.backend) / more / MIB
    jvm = (last.jvm - first.jvm) / more / MIB
    return {
        "load_first_ms": 1000 * seconds[0],
        "load_p50_ms": 1000 * percentile(seconds, 0.5),
        "load_p99_ms": 1000 * percentile(seconds, 0.99),
        "private_mib": backend,
        "jvm_mib": jvm,
        "private_with_jvm_mib": backend + jvm,
        "proportional_mib": (last.proportional - first.proportional) / more / MIB,
        "processes": (last.processes - first.processes) / more,
    }, exchanges


def _settled(server: Server) -> Memory:
    time.sleep(0.5)
    return server.weigh()


def _first_exchange(connection: Connection, model: Model) -> Exchange:
    """Ask a model once; what is right this once is what it must answer for ever."""
    body = connection.ask(model.invocation)
    try:
        right = float(body.decode("ascii").strip(" \r\n[]")) == model.label
    except ValueError:
        right = False
    if not right:
        raise UnexpectedAnswer(f"{model.name}: {body!r} instead of {model.label}")
    return Exchange(model.invocation, body)


def _latency(server: Server, exchange: Exchange, effort: Effort) -> Figures:
    time_each(server.port, exchange, effort.warm_up, TIMEOUT)
    gc.collect()
    seconds = time_each(server.port, exchange, effort.single, TIMEOUT)
    return {
        "latency_p50_ms": 1000 * percentile(seconds, 0.5),
        "latency_p99_ms": 1000 * percentile(seconds, 0.99),
    }


def _throughput(server: Server, exchanges: Sequence[Exchange], effort: Effort, key: str) -> Figures:
    drive(server.port, exchanges, CONNECTIONS, effort.warm_up, TIMEOUT)
    gc.collect()
    driven: Drive = drive(server.port, exchanges, CONNECTIONS, effort.concurrent, TIMEOUT)
    return {
        f"throughput_{key}_rps": driven.requests / driven.seconds,
        f"generator_{key}_share": driven.own_seconds / driven.seconds,
    }

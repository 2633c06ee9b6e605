"""What watching costs: idle with many models, and on the way of loads and requests.

``python -m benchmarks.watching`` measures a server with the watchdog and the guard against one
without, idle; with ``--against TREE``, a checkout from before, also loads and requests, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from benchmarks.loadgen import Connection, Exchange, drive, time_each
from benchmarks.measure import CONNECTIONS, TIMEOUT, percentile
from benchmarks.stacks import Launch, Server, Stack, running
from benchmarks.workload import Model, build_models

OFF = {"MANYMODELS_STORAGE": "off", "MANYMODELS_MEMORY_GUARD": "off"}
PARTS = ("manymodels.backend.host", "manymodels.backend.zygote")
WARM_UP, SINGLE, CONCURRENT = 300, 3000, 6000
QUIET_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.watching")
    parser.add_argument("--against", type=Path, help="a checkout from before")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=30.0, help="of idling")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        models = build_models(directory / "models", options.models)
        root = {"MANYMODELS_MODEL_ROOT": str(directory / "models")}
        if options.against is not None:
            hot_path(options.against, models[:8], directory, root, options.rounds)
        for title, variables in (
            ("without", OFF),
            ("with", {}),
            ("with a budget", {"MANYMODELS_STORAGE_BUDGET": "100g"}),
        ):
            with running(_stack("now", {**root, **variables}), directory / "server") as server:
                _load(server, models)
                shares = idle_shares(server, options.seconds)
            listed = ", ".join(f"{part} {share:.2f} %" for part, share in shares.items())
            print(f"idle, {options.models} models, {title}: {listed} of a core", flush=True)
    return 0


def idle_shares(server: Server, seconds: float) -> dict[str, float]:
    """Return the processor time that the server takes while nothing is asked, in % of a core."""
    time.sleep(QUIET_SECONDS)
    before = _processor_seconds(server)
    time.sleep(seconds)
    after = _processor_seconds(server)
    return {part: 100 * (after[part] - before.get(part, 0.0)) / seconds for part in after}


def _processor_seconds(server: Server) -> dict[str, float]:
    sums = {"host": 0.0, "zygote": 0.0, "JVM": 0.0, "models and the rest": 0.0}
    for process in server.processes():
        try:
            times, command = process.cpu_times(), process.cmdline()
        except psutil.Error:
            continue
        if process.name() == "java":
            part = "JVM"
        elif PARTS[0] in command:
            part = "host"
        elif process.name() == "manymodels-zygo":
            part = "zygote"
        else:
            part = "models and the rest"
        sums[part] += times.user + times.system
    return sums


def hot_path(
    before: Path, models: Sequence[Model], directory: Path, root: Mapping[str, str], rounds: int
) -> None:
    """Measure loads and requests of this tree and of an older one, in turns."""
    stacks = {
        "before": _stack("before", {"PYTHONPATH": str(before / "handler")}),
        "now": _stack("now", root),
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in stacks}
    for number in range(rounds):
        order = list(stacks) if number % 2 else list(reversed(stacks))
        for name in order:
            with running(stacks[name], directory / "server") as server:
                for figure, value in _round(server, models).items():
                    found[name].setdefault(figure, []).append(value)
    for figure in found["now"]:
        pairs = zip(found["now"][figure], found["before"][figure], strict=True)
        ratios = sorted(now / then for now, then in pairs)
        print(
            f"{figure}: before {statistics.median(found['before'][figure]):.3f}, "
            f"now {statistics.median(found['now'][figure]):.3f}, "
            f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})",
            flush=True,
        )


def _round(server: Server, models: Sequence[Model]) -> dict[str, float]:
    loads, exchanges = _load(server, models)
    time_each(server.port, exchanges[0], WARM_UP, TIMEOUT)
    seconds = time_each(server.port, exchanges[0], SINGLE, TIMEOUT)
    driven = drive(server.port, exchanges, CONNECTIONS, CONCURRENT, TIMEOUT)
    return {
        "load, ms": 1000 * percentile(loads[1:], 0.5),
        "request, one connection, p50, ms": 1000 * percentile(seconds, 0.5),
        f"seconds for {CONCURRENT} requests, {CONNECTIONS} connections": driven.seconds,
    }


def _load(server: Server, models: Sequence[Model]) -> tuple[list[float], list[Exchange]]:
    seconds, exchanges = [], []
    with Connection(server.port, TIMEOUT) as connection:
        for model in models:
            start = time.perf_counter()
            connection.ask(model.load_request)
            seconds.append(time.perf_counter() - start)
            exchanges.append(Exchange(model.invocation, connection.ask(model.invocation)))
    return seconds, exchanges


def _stack(name: str, variables: Mapping[str, str]) -> Stack:
    def launch(port: int, _: Path) -> Launch:
        served = {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(port)}
        return Launch([sys.executable, "-m", "manymodels.cli", "serve"], {**served, **variables})

    return Stack(name, name, launch)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks.swap``: an image of Multi Model Server before and after the two lines.

Both containers run at the same time and are asked in turns: the same MXNet model is loaded into
one and then into the other, again and again, and requests go to them in alternating blocks.
container/swap has the images; ``make image-test`` builds them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.loadgen import Connection, Exchange, UnexpectedAnswer, time_each
from benchmarks.workload import HOST, http_post
from container.__main__ import test_engine
from container.engine import Engine, EngineError
from container.swap import STOCK, SWAPPED, train
from sample_models import Sample, samples

KB_IN_MIB = 1024
MODEL = "digits-mxnet-module"
TIMEOUT = 120.0
BLOCKS, BLOCK = 10, 100
"""Requests that are timed, in blocks that alternate between the containers."""
WEIGH = r"""
import glob, os, re
private = proportional = 0
for process in set(glob.glob("/proc/[0-9]*")) - {"/proc/%d" % os.getpid()}:
    try:
        name = open(process + "/comm").read().strip()
        memory = open(process + "/smaps_rollup").read()
    except OSError:
        continue
    if name != "java":
        private += sum(map(int, re.findall(r"^Private_\w+: +(\d+)", memory, re.M)))
        proportional += sum(map(int, re.findall(r"^Pss: +(\d+)", memory, re.M)))
print(private, proportional)
"""
"""Prints kB, of all processes but the JVM: what each has alone, and with its part of the rest."""


@dataclass
class Contender:
    """A running container and what was measured on it: seconds, and pairs of kB as of WEIGH."""

    engine: Engine
    container: str
    port: int
    loads: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    weights: list[tuple[int, int]] = field(default_factory=list)

    def load(self, name: str, directory: str) -> None:
        body = json.dumps({"model_name": name, "url": directory})
        request = http_post("/models", body, "application/json")
        with Connection(self.port, TIMEOUT) as connection:
            started = time.perf_counter()
            connection.ask(request)
            self.loads.append(time.perf_counter() - started)

    def first_answer(self, name: str, sample: Sample) -> Exchange:
        """Ask a model once; what it answers is what it must answer for ever."""
        request = http_post(f"/models/{name}/invoke", sample.body, sample.content_type)
        with Connection(self.port, TIMEOUT) as connection:
            return Exchange(request, connection.ask(request))

    def weigh(self) -> None:
        weighed = self.engine.output("exec", self.container, "python3", "-c", WEIGH).split()
        self.weights.append((int(weighed[0]), int(weighed[1])))

    @property
    def private_mib(self) -> float:
        """MiB that one more model takes, from the first model to the last."""
        return (self.weights[-1][0] - self.weights[0][0]) / (len(self.weights) - 1) / KB_IN_MIB


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap", description=__doc__)
    parser.add_argument("--models", type=int, default=16, help="models a container (%(default)s)")
    options = parser.parse_args()
    if options.models < 2:
        parser.error("--models must be at least 2")
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        before, after = _measure(test_engine(), options.models, console)
    except (EngineError, UnexpectedAnswer, OSError, subprocess.TimeoutExpired) as error:
        console.print(f"given up: {error}", markup=False)
        return 1
    console.print(_table(before, after))
    return 0


def _measure(engine: Engine, models: int, console: Console) -> tuple[Contender, Contender]:
    for image in (STOCK, SWAPPED):
        if not engine.has_image(image):
            raise EngineError(f"{image} is not here: python -m container test-images")
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
    )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack, progress:
        bar = progress.add_task("train the model, start the containers", total=models + BLOCKS)

        def step(description: str) -> None:
            progress.update(bar, description=description, advance=1)
            progress.refresh()

        progress.refresh()
        directory = Path(name, "models")
        train(engine, directory)
        sample = next(sample for sample in samples(directory) if sample.name == MODEL)
        before, after = (
            stack.enter_context(_running(engine, image, directory)) for image in (STOCK, SWAPPED)
        )
        _load_in_turns((before, after), models, sample, step)
        _ask_in_turns((before, after), sample, step)
    return before, after


def _load_in_turns(
    contenders: tuple[Contender, Contender],
    models: int,
    sample: Sample,
    step: Callable[[str], None],
) -> None:
    for number in range(models):
        for contender in contenders:
            contender.load(f"m{number}", f"/opt/ml/models/{MODEL}/model")
            contender.first_answer(f"m{number}", sample)
            contender.weigh()
        step("load in turns")


def _ask_in_turns(
    contenders: tuple[Contender, Contender], sample: Sample, step: Callable[[str], None]
) -> None:
    exchanges = [contender.first_answer("m0", sample) for contender in contenders]
    if exchanges[0] != exchanges[1]:
        raise UnexpectedAnswer(f"{exchanges[0].body!r} before, {exchanges[1].body!r} after")
    for number in range(BLOCKS + 1):
        for contender, exchange in zip(contenders, exchanges, strict=True):
            seconds = time_each(contender.port, exchange, BLOCK, TIMEOUT)
            if number:  # the first block is the warm-up
                contender.requests += seconds
        if number:
            step("ask in turns")


@contextlib.contextmanager
def _running(engine: Engine, image: str, models: Path) -> Iterator[Contender]:
    """Run an image with a directory of models for the time of the block."""
    container = engine.output(
        "run",
        "--detach",
        "--env=SAGEMAKER_MULTI_MODEL=true",
        f"--publish={HOST}::8080",
        f"--volume={models}:/opt/ml/models:ro",
        image,
        "serve",
    )
    try:
        published = engine.output("port", container, "8080").splitlines()[0]
        port = int(published.rpartition(":")[2])
        _await_ping(port)
        yield Contender(engine, container, port)
    finally:
        engine.command("rm", "--force", "--volumes", container)


def _await_ping(port: int) -> None:
    request = f"GET /ping HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("ascii")
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, UnexpectedAnswer), Connection(port, 5) as connection:
            connection.ask(request)
            return
        time.sleep(0.05)
    raise TimeoutError(f"no ping on port {port} within {TIMEOUT:.0f} s")


def _table(before: Contender, after: Contender) -> Table:
    table = Table(title=f"One image, before and after the two lines: {len(before.loads)} models")
    for column in ("", "before", "after", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    for title, digits, figure in _FIGURES:
        old, new = figure(before), figure(after)
        table.add_row(title, f"{old:.{digits}f}", f"{new:.{digits}f}", f"{old / new:.1f}x")
    return table


_FIGURES: tuple[tuple[str, int, Callable[[Contender], float]], ...] = (
    ("load the first model, ms", 0, lambda each: 1000 * each.loads[0]),
    ("load a further model, median, ms", 0, lambda each: 1000 * statistics.median(each.loads[1:])),
    ("private memory of a further model, MiB", 1, lambda each: each.private_mib),
    ("memory of all processes (PSS), MiB", 0, lambda each: each.weights[-1][1] / KB_IN_MIB),
    ("warm request, median, ms", 2, lambda each: 1000 * statistics.median(each.requests)),
)

if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks``: the stacks side by side, in turns."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report
from benchmarks.loadgen import UnexpectedAnswer
from benchmarks.measure import FULL, QUICK, STEPS, Effort, Figures, measure
from benchmarks.plot import write_plot
from benchmarks.stacks import STACKS, Stack, find_java
from benchmarks.workload import Model, build_models

_PACKAGES = (
    "manymodels",
    "multi-model-server",
    "sagemaker-inference",
    "numpy",
    "scikit-learn",
    "joblib",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write; the status says whether all went well."""
    options = _parse(arguments)
    effort = QUICK if options.quick else FULL
    stacks = [stack for stack in STACKS if stack.name in options.stacks]
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        about = _about(options, effort)
        rounds = _run(stacks, options.rounds, effort, console)
    except KeyboardInterrupt:
        console.print("interrupted: every process was ended, nothing is written")
        return 130
    except (UnexpectedAnswer, OSError, ModuleNotFoundError) as error:
        console.print(f"given up: {error}", markup=False)
        return 1
    return _conclude(options, about, rounds, console)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = [stack.name for stack in STACKS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=_positive, help="turns of all stacks (5; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="one round, few models and requests")
    parser.add_argument("--stacks", nargs="+", choices=names, default=names, metavar="STACK",
                        help=f"only these: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), metavar="DIR",
                        help="where results.json and results.png go (%(default)s)")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 5)
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(
    stacks: Sequence[Stack], rounds: int, effort: Effort, console: Console
) -> list[dict[str, Figures]]:
    # The bar is drawn between the steps only: a thread that draws would disturb what is measured.
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        auto_refresh=False,
    )
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, progress:
        models = build_models(Path(name, "models"), effort.models)
        bar = progress.add_task("models", total=rounds * len(stacks) * len(STEPS))
        return [
            _run_round(stacks, models, effort, Path(name), _Steps(progress, bar, number, rounds))
            for number in range(1, rounds + 1)
        ]


class _Steps:
    """Moves the bar on as the steps of a round begin."""

    def __init__(self, progress: Progress, bar: Any, number: int, rounds: int) -> None:
        self._progress = progress
        self._bar = bar
        self._prefix = f"round {number}/{rounds}"

    def begin(self, stack: str, step: str) -> None:
        self._progress.update(self._bar, description=f"{self._prefix} {stack}: {step}")
        self._progress.refresh()

    def end(self) -> None:
        self._progress.advance(self._bar)


def _run_round(
    stacks: Sequence[Stack],
    models: Sequence[Model],
    effort: Effort,
    directory: Path,
    steps: _Steps,
) -> dict[str, Figures]:
    figures = {}
    for stack in stacks:
        begun: list[str] = []

        def begin(step: str, stack: Stack = stack, begun: list[str] = begun) -> None:
            if begun:
                steps.end()
            begun.append(step)
            steps.begin(stack.name, step)

        figures[stack.name] = measure(stack, models, effort, directory / stack.name, begin)
        steps.end()
    return figures


def _conclude(
    options: argparse.Namespace,
    about: dict[str, Any],
    rounds: list[dict[str, Figures]],
    console: Console,
) -> int:
    options.output.mkdir(parents=True, exist_ok=True)
    about["seconds"] = round(time.time() - about["started"])
    report.write_json(options.output / "results.json", about, rounds)
    write_plot(options.output / "results.png", rounds)
    console.print(report.table(rounds, {stack.name: stack.title for stack in STACKS}))
    console.print(f"written: {options.output}/results.json and results.png")
    if not options.check:
        return 0
    missed = report.missed_goals(rounds)
    for line in missed:
        console.print(f"goal missed: {line}")
    return 1 if missed else 0


def _about(options: argparse.Namespace, effort: Effort) -> dict[str, Any]:
    """Say what ran where, for a reader of the JSON."""
    java = subprocess.run(
        [str(find_java()), "-version"], capture_output=True, text=True, timeout=60, check=True
    )
    return {
        "started": round(time.time()),
        "rounds": options.rounds,
        "quick": options.quick,
        "effort": vars(effort),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": os.getloadavg(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "java": java.stderr.splitlines()[0],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks.content_codecs``: our decoders and encoders against the toolkit's.

sagemaker-inference's own functions and ours on the same bodies and predictions, in turns, in one
process. Its decoders take text, so turning the request's bytes into text is part of its time.
"""

from __future__ import annotations

import argparse
import sys
import timeit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sagemaker_inference import decoder, encoder

from manymodels import content
from manymodels.content import Columns

SHAPES = ((1, 10), (1000, 30))
GOALS = {content.CSV: 5.0, content.JSON: 2.0}
_ROUND_SECONDS = 0.05
"""How long one function runs in a row before it is the other's turn."""


@dataclass(frozen=True)
class Case:
    """One thing that both do."""

    title: str
    goal: float
    theirs: Callable[[], Any]
    ours: Callable[[], Any]


@dataclass(frozen=True)
class Outcome:
    """Microseconds a call, medians of all rounds, and the ratio of each round."""

    theirs: float
    ours: float
    ratios: Sequence[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios; above 1 we are faster."""
        return median(self.ratios)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the status says whether the goals were reached, if that was asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.content_codecs", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of both (%(default)s)")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    options = parser.parse_args(arguments)
    outcomes = [(case, measure(case, options.rounds)) for case in cases()]
    Console(width=None if sys.stdout.isatty() else 120).print(table(outcomes, options.rounds))
    missed = [case.title for case, outcome in outcomes if outcome.ratio < case.goal]
    if options.check and missed:
        print(f"goal missed: {', '.join(missed)}")
        return 1
    return 0


def cases() -> list[Case]:
    """Return decoding, encoding and both, of each format and shape."""
    generator = np.random.default_rng(0)
    found = []
    for name, goal in GOALS.items():
        for shape in SHAPES:
            found += _cases(name, generator.normal(size=shape), goal)
    return found


def measure(case: Case, rounds: int) -> Outcome:
    """Let both do it in turns for so many rounds."""
    counts = [_calls_a_round(function) for function in (case.theirs, case.ours)]
    times: list[tuple[float, float]] = []
    for _ in range(max(rounds, 1)):
        theirs = timeit.timeit(case.theirs, number=counts[0]) / counts[0]
        ours = timeit.timeit(case.ours, number=counts[1]) / counts[1]
        times.append((theirs * 1e6, ours * 1e6))
    return Outcome(
        theirs=median(theirs for theirs, _ in times),
        ours=median(ours for _, ours in times),
        ratios=[theirs / ours for theirs, ours in times],
    )


def table(outcomes: Sequence[tuple[Case, Outcome]], rounds: int) -> Table:
    """Return the figures side by side, each ratio with the range of the rounds' ratios."""
    result = Table(title=f"Microseconds a call, medians of {rounds} rounds")
    for heading in ("", "sagemaker-inference", "manymodels", "times faster", "goal"):
        result.add_column(heading, justify="left" if not heading else "right")
    for case, outcome in outcomes:
        low, high = min(outcome.ratios), max(outcome.ratios)
        result.add_row(
            case.title,
            f"{outcome.theirs:,.1f}",
            f"{outcome.ours:,.1f}",
            f"{outcome.ratio:.1f} ({low:.1f}-{high:.1f})",
            f"{case.goal:g} {'yes' if outcome.ratio >= case.goal else 'no'}",
        )
    return result


def _cases(name: str, rows: NDArray[np.float64], goal: float) -> list[Case]:
    columns = Columns(rows.shape[1], numbers=True)
    body = content.encode(rows, name)

    def their_decode() -> Any:
        return decoder.decode(body.decode("utf-8"), name)

    def our_decode() -> Any:
        return content.decode(body, name, columns)

    # What is not equal is not to be compared.
    np.testing.assert_array_equal(np.atleast_2d(their_decode()), our_decode())
    np.testing.assert_array_equal(
        content.decode(encoder.encode(rows, name), name, columns),
        content.decode(content.encode(rows, name), name, columns),
    )
    what = f"{name}, {rows.shape[0]:,} x {rows.shape[1]}"
    return [
        Case(f"{what}: decode", goal, their_decode, our_decode),
        Case(
            f"{what}: encode",
            goal,
            lambda: encoder.encode(rows, name),
            lambda: content.encode(rows, name),
        ),
        Case(
            f"{what}: both",
            goal,
            lambda: encoder.encode(np.atleast_2d(their_decode()), name),
            lambda: content.encode(our_decode(), name),
        ),
    ]


def _calls_a_round(function: Callable[[], Any]) -> int:
    function()
    calls, seconds = timeit.Timer(function).autorange()
    return max(1, round(calls * _ROUND_SECONDS / seconds))


if __name__ == "__main__":
    sys.exit(main())

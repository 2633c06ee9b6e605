"""From the figures of all rounds to ratios, a table and a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.table import Table

from benchmarks.measure import Figures

Rounds = Sequence[dict[str, Figures]]
"""For each round, the figures of each stack by its name."""

BASELINE = "stock"
JUDGED = ("ours", "ours-generic")
"""The stacks that the goals are for: ours with the baseline's very handler, and as it comes."""


@dataclass(frozen=True)
class Figure:
    """A quantity that is reported; a ratio above 1 is better than the baseline."""

    key: str
    title: str
    unit: str
    digits: int = 2
    more_is_better: bool = False
    goal: float | None = None

    def ratio(self, value: float, baseline: float) -> float | None:
        """Return how many times better ``value`` is; None where a ratio means nothing."""
        if value <= 0 or baseline <= 0:
            return None
        return value / baseline if self.more_is_better else baseline / value


FIGURES = (
    Figure("ready_s", "start to first ping", "s"),
    Figure("load_p50_ms", "load, p50", "ms", 1, goal=25.0),
    Figure("load_p99_ms", "load, p99", "ms", 1),
    Figure("load_first_ms", "load, the first model", "ms", 1),
    Figure("private_mib", "private memory a model (USS, processes)", "MiB", goal=18.0),
    Figure("jvm_mib", "JVM growth a model (USS)", "MiB"),
    Figure("private_with_jvm_mib", "both together", "MiB"),
    Figure("proportional_mib", "all memory a model (PSS)", "MiB"),
    Figure("latency_p50_ms", "invoke, 1 connection, p50", "ms", 3, goal=1.8),
    Figure("latency_p99_ms", "invoke, 1 connection, p99", "ms", 3),
    Figure("throughput_one_rps", "16 connections, one model", "req/s", 0, True, goal=1.3),
    Figure("throughput_all_rps", "16 connections, all models", "req/s", 0, True),
)


class Ratio(NamedTuple):
    """The ratios of all rounds in three numbers."""

    median: float
    low: float
    high: float


def medians(rounds: Rounds, figure: Figure) -> dict[str, float]:
    """Return the median over the rounds of one figure, by stack."""
    return {name: median(r[name][figure.key] for r in rounds) for name in rounds[0]}


def ratios(rounds: Rounds, figure: Figure) -> dict[str, Ratio]:
    """Compare each stack with the baseline of the same round, then take the median.

    The rounds are minutes apart and the machine changes its pace; within one it hardly does.
    """
    if BASELINE not in rounds[0]:
        return {}
    found = {}
    for name in rounds[0]:
        each = [figure.ratio(r[name][figure.key], r[BASELINE][figure.key]) for r in rounds]
        valid = [ratio for ratio in each if ratio is not None]
        if name != BASELINE and len(valid) == len(rounds):
            found[name] = Ratio(median(valid), min(valid), max(valid))
    return found


def missed_goals(rounds: Rounds) -> list[str]:
    """Return a line for each goal that was not reached, or that nothing was measured for."""
    judged = [name for name in JUDGED if name in rounds[0]]
    if not judged or BASELINE not in rounds[0]:
        return [f"nothing to judge without {BASELINE} and one of {', '.join(JUDGED)}"]
    lines = []
    for figure in FIGURES:
        if figure.goal is None:
            continue
        compared = ratios(rounds, figure)
        for name in judged:
            ratio = compared.get(name)
            if ratio is None or ratio.median < figure.goal:
                seen = "no ratio" if ratio is None else f"{ratio.median:.2f}x"
                lines.append(f"{name}: {figure.title}: {seen}, the goal is {figure.goal:g}x")
    return lines


def table(rounds: Rounds, titles: dict[str, str]) -> Table:
    """Return the table of medians, each with its ratio and the range of the rounds' ratios."""
    names = list(rounds[0])
    result = Table(title=f"Medians of {len(rounds)} round(s); times better than {BASELINE}")
    result.add_column("figure")
    result.add_column("unit")
    for name in names:
        result.add_column(f"{name}\n[dim]{titles[name]}[/dim]", justify="right")
    result.add_column("goal", justify="right")
    for figure in FIGURES:
        values, compared = medians(rounds, figure), ratios(rounds, figure)
        cells = [_cell(figure, values[name], compared.get(name)) for name in names]
        result.add_row(figure.title, figure.unit, *cells, _goal(figure, compared))
    return result


def _cell(figure: Figure, value: float, ratio: Ratio | None) -> str:
    text = f"{value:,.{figure.digits}f}"
    if ratio is None:
        return text
    spread = f" [dim]({ratio.low:.2f}-{ratio.high:.2f})[/dim]" if ratio.low < ratio.high else ""
    return f"{text}\n[bold]{ratio.median:.2f}x[/bold]{spread}"


def _goal(figure: Figure, compared: dict[str, Ratio]) -> str:
    if figure.goal is None:
        return ""
    lines = [f"{figure.goal:g}x"]
    for name in JUDGED:
        if name in compared:
            reached = compared[name].median >= figure.goal
            lines.append(f"{name}: " + ("[green]yes[/green]" if reached else "[red]no[/red]"))
    return "\n".join(lines)


def write_json(path: Path, about: dict[str, Any], rounds: Rounds) -> None:
    """Write everything measured and everything derived."""
    summary = {
        figure.key: {
            "title": figure.title,
            "unit": figure.unit,
            "more_is_better": figure.more_is_better,
            "goal": figure.goal,
            "median": medians(rounds, figure),
            "ratio": {name: ratio._asdict() for name, ratio in ratios(rounds, figure).items()},
        }
        for figure in FIGURES
    }
    document = {"about": about, "summary": summary, "rounds": list(rounds)}
    path.write_text(json.dumps(document, indent=2) + "\n")

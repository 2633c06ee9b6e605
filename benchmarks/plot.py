"""The figures as one picture: a bar for the median of each stack, a dot for each round."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.report import FIGURES, Figure, Rounds, medians, ratios

_SHOWN = (
    "load_p50_ms",
    "private_with_jvm_mib",
    "latency_p50_ms",
    "throughput_one_rps",
    "throughput_all_rps",
    "ready_s",
)
_COLOURS = {
    "stock": "#8a8f98",
    "stock-toolkit": "#c3c7cd",
    "ours": "#1f6f8b",
    "ours-generic": "#6fb1c8",
}


def write_plot(path: Path, rounds: Rounds) -> None:
    """Draw a panel for each of the main figures."""
    by_key = {figure.key: figure for figure in FIGURES}
    canvas, panels = plt.subplots(2, 3, figsize=(13, 5.6), layout="constrained")
    for panel, key in zip(panels.flat, _SHOWN, strict=True):
        _draw(panel, by_key[key], rounds)
    canvas.suptitle(f"Medians of {len(rounds)} round(s); each dot is a round")
    canvas.savefig(path, dpi=130)
    plt.close(canvas)


def _draw(panel: Axes, figure: Figure, rounds: Rounds) -> None:
    values, compared = medians(rounds, figure), ratios(rounds, figure)
    names = list(values)
    panel.barh(names, list(values.values()), color=[_COLOURS[name] for name in names], height=0.65)
    if figure.key == "private_with_jvm_mib":
        _hatch_jvm(panel, rounds)
    longest = 0.0
    for row, name in enumerate(names):
        dots = [r[name][figure.key] for r in rounds]
        longest = max(longest, *dots)
        panel.plot(dots, [row] * len(dots), ".", color="black", alpha=0.45, markersize=4)
        label = f"{values[name]:,.{figure.digits}f}"
        if name in compared:
            label += f"  ({compared[name].median:.1f}x)"
        panel.annotate(
            label, (max(dots), row), xytext=(6, 0), textcoords="offset points", va="center", size=9
        )
    direction = "more is better" if figure.more_is_better else "less is better"
    title = "memory a model" if figure.key == "private_with_jvm_mib" else figure.title
    panel.set_title(f"{title}, {figure.unit}\n({direction})", fontsize=10)
    panel.set_xlim(0, longest * 1.38)
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def _hatch_jvm(panel: Axes, rounds: Rounds) -> None:
    """Show the JVM's part apart, at the start of each bar."""
    figure = next(figure for figure in FIGURES if figure.key == "jvm_mib")
    values = medians(rounds, figure)
    panel.barh(
        list(values),
        [max(value, 0.0) for value in values.values()],
        color="none",
        edgecolor="white",
        hatch="////",
        height=0.65,
        label="of it: growth of the JVM",
    )
    panel.legend(fontsize=8, loc="lower right", facecolor="#8a8f98", labelcolor="white")

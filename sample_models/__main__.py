"""``python -m sample_models --out DIR``: train every sample model."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sample_models.build import TRAININGS, build


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m sample_models", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to build the models in")
    out = parser.parse_args().out
    console = Console()
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("training", total=len(TRAININGS))

        def on_trained(training: str) -> None:
            progress.update(task, advance=1, description=training)

        names = build(out, on_trained)
    console.print(f"{len(names)} models in {out}", highlight=False)


if __name__ == "__main__":
    main()

"""A sample model's request and the answer that its library gives."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CSV = "text/csv"
JSON = "application/json"


@dataclass(frozen=True)
class Sample:
    """What `sample.json` holds, and the model directory beside it.

    ``expected`` is the answer as a list with one entry a row of ``body``; numbers may differ from
    it by ``tolerance``, relative or absolute, text may not.
    """

    name: str
    framework: str
    description: str
    content_type: str
    accept: str
    body: str
    expected: list[Any]
    tolerance: float
    model_dir: Path

    def answered_by(self, answer: bytes) -> bool:
        """Whether a response's body says what is expected; ValueError if it is not ``accept``."""
        return _close(self.parse(answer), self.expected, self.tolerance)

    def parse(self, answer: bytes) -> list[Any]:
        """Return a response's body as a list; ValueError if it is not ``accept``."""
        if self.accept == CSV:
            return [_csv_row(row) for row in csv.reader(io.StringIO(answer.decode(), newline=""))]
        parsed = json.loads(answer)
        if not isinstance(parsed, list):
            raise ValueError(f"the answer is not a list: {answer[:80]!r}")
        return parsed


def samples(directory: Path) -> list[Sample]:
    """Return the samples that ``python -m sample_models --out directory`` built, by name."""
    found = []
    for path in sorted(Path(directory).glob("*/sample.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found.append(Sample(**content, model_dir=path.parent / "model"))
    return found


def csv_body(rows: Iterable[Iterable[float]]) -> str:
    """Return rows of numbers as a CSV body, one line a row."""
    return "".join(",".join(repr(float(value)) for value in row) + "\n" for row in rows)


def json_body(rows: Any, key: str | None = None) -> str:
    """Return an array of rows, or a single row, as a JSON body, under ``key`` if there is one."""
    return json.dumps(rows.tolist() if key is None else {key: rows.tolist()})


def _csv_row(fields: list[str]) -> Any:
    values = [_number_or_text(field) for field in fields]
    return values[0] if len(values) == 1 else values


def _number_or_text(field: str) -> float | str:
    try:
        return float(field)
    except ValueError:
        return field


def _close(answer: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list):
        return (
            isinstance(answer, list)
            and len(answer) == len(expected)
            and all(_close(*pair, tolerance) for pair in zip(answer, expected, strict=True))
        )
    if isinstance(expected, str) or isinstance(answer, (str, list, dict, type(None))):
        return bool(answer == expected)
    return math.isclose(answer, expected, rel_tol=tolerance, abs_tol=tolerance)

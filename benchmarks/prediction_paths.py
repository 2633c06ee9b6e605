"""``python -m benchmarks.prediction_paths``: our predictions beside the libraries' own.

Both are given the same parsed array and must answer the same, bit for bit, before they are timed:
in turns, in one process, with one thread as in a model process. A ratio is that of one turn, so a
machine that slows down for a while slows down both; reported are medians over the turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import joblib
import numpy as np
import xgboost
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_classification
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from manymodels.artifacts import load

Predict = Callable[[NDArray[Any]], Any]
FEATURES = 20
TREES = 100
_TURN = 0.02
"""Seconds that each side has in a turn, at least one call."""


class PredictionPath(NamedTuple):
    """A way to a prediction: ours, what it is measured against, and what it must equal."""

    title: str
    rows: int
    goal: float
    ours: Predict
    theirs: Predict
    expected: Predict


class Timing(NamedTuple):
    """Medians over the turns: seconds a call, and how many times faster ours is."""

    ours: float
    theirs: float
    ratio: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; with ``--check`` the status says whether every goal was met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prediction_paths")
    parser.add_argument("--turns", type=int, default=25, help="of each side (%(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 when a goal is missed")
    options = parser.parse_args(arguments)
    sample, labels = make_classification(
        2000, FEATURES, n_informative=8, n_classes=3, random_state=0
    )
    results = []
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        for path in _paths(Path(directory), sample, labels):
            rows = np.ascontiguousarray(sample[: path.rows])
            results.append((path, measure(path, rows, options.turns)))
    _print(results)
    missed = [path.title for path, timing in results if timing.ratio < path.goal]
    return 1 if options.check and missed else 0


def measure(path: PredictionPath, rows: NDArray[Any], turns: int) -> Timing:
    """Return the path's timing; AssertionError if the predictions are not equal."""
    found, expected = path.ours(rows), path.expected(rows)
    np.testing.assert_array_equal(found, expected)
    if found.dtype != expected.dtype:
        raise AssertionError(f"{path.title}: {found.dtype}, the library's is {expected.dtype}")
    path.theirs(rows)
    ours, theirs = [], []
    for _ in range(turns):
        theirs.append(_seconds_a_call(path.theirs, rows))
        ours.append(_seconds_a_call(path.ours, rows))
    ratios = [their / our for their, our in zip(theirs, ours, strict=True)]
    return Timing(median(ours), median(theirs), median(ratios))


def _seconds_a_call(predict: Predict, rows: NDArray[Any]) -> float:
    calls, start = 0, time.perf_counter()
    elapsed = 0.0
    while elapsed < _TURN:
        predict(rows)
        calls += 1
        elapsed = time.perf_counter() - start
    return elapsed / calls


def _paths(directory: Path, sample: NDArray[Any], labels: NDArray[Any]) -> Iterator[PredictionPath]:
    for number, (title, estimator, sizes, goal) in enumerate(_estimators()):
        estimator.fit(sample, labels)
        model = _stored(directory / str(number), estimator)
        for rows in sizes:
            yield PredictionPath(
                title, rows, goal if rows == 1 else 1.0, model, estimator.predict, estimator.predict
            )
    yield from _booster_paths(directory / "booster", sample, labels)


def _estimators() -> list[tuple[str, Any, tuple[int, ...], float]]:
    """What is fitted and pickled, the numbers of rows, and the goal for one."""
    imputed = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())
    neighbors = make_pipeline(StandardScaler(), KNeighborsClassifier())
    return [
        ("LogisticRegression", LogisticRegression(max_iter=500), (1, 1000), 5.0),
        ("imputer, scaler, LogisticRegression", imputed, (1, 1000), 5.0),
        ("scaler, KNeighborsClassifier", neighbors, (1,), 1.0),
        ("DecisionTreeClassifier", DecisionTreeClassifier(), (1, 1000), 2.0),
        (f"RandomForestClassifier, {TREES} trees", RandomForestClassifier(TREES), (1, 1000), 5.0),
        (f"ExtraTreesRegressor, {TREES} trees", ExtraTreesRegressor(TREES), (1, 1000), 5.0),
        ("GradientBoostingClassifier", GradientBoostingClassifier(), (1, 1000), 2.0),
        ("pickled XGBClassifier, 3 classes", _xgb_classifier(), (1, 1000), 1.5),
    ]


def _booster_paths(
    directory: Path, sample: NDArray[Any], labels: NDArray[Any]
) -> Iterator[PredictionPath]:
    """A saved Booster, measured against the estimator around it."""
    classifier = _xgb_classifier().fit(sample, labels > 0)
    directory.mkdir()
    classifier.save_model(directory / "model.ubj")
    predict = load(directory).predict
    booster = classifier.get_booster()
    for rows, goal in ((1, 1.5), (1000, 1.0)):
        yield PredictionPath(
            "Booster file, 2 classes",
            rows,
            goal,
            predict,
            classifier.predict,
            booster.inplace_predict,
        )


def _xgb_classifier() -> Any:
    return xgboost.XGBClassifier(n_estimators=TREES, max_depth=6, n_jobs=1)


def _stored(directory: Path, estimator: Any) -> Predict:
    directory.mkdir()
    joblib.dump(estimator, directory / "model.joblib")
    return load(directory).predict


def _print(results: Sequence[tuple[PredictionPath, Timing]]) -> None:
    table = Table(title="a prediction on a parsed array, one thread, microseconds")
    table.add_column("path")
    for column in ("rows", "the library's", "ours", "times faster", "goal"):
        table.add_column(column, justify="right")
    for path, timing in results:
        table.add_row(
            path.title,
            f"{path.rows:,}",
            f"{timing.theirs * 1e6:,.0f}",
            f"{timing.ours * 1e6:,.0f}",
            f"{timing.ratio:.1f}",
            f"{path.goal:g}{'' if timing.ratio >= path.goal else '  missed'}",
        )
    Console(width=None if sys.stdout.isatty() else 110).print(table)


if __name__ == "__main__":
    sys.exit(main())

"""The microbenchmark of predictions: it compares before it measures."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("xgboost")

from benchmarks import prediction_paths
from benchmarks.prediction_paths import PredictionPath, measure

ROWS = np.ones((3, 2))


def labels(rows):
    return np.zeros(len(rows), int)


def slowly(rows):
    time.sleep(0.002)
    return labels(rows)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(prediction_paths, "_TURN", 0.001)


def test_the_ratio_says_how_many_times_faster_ours_is():
    timing = measure(PredictionPath("a path", 3, 1.0, labels, slowly, labels), ROWS, turns=3)
    assert timing.theirs > 0.002 > timing.ours
    assert timing.ratio > 1


@pytest.mark.parametrize("other", [lambda rows: labels(rows) + 1, lambda rows: labels(rows) * 1.0])
def test_predictions_that_differ_are_not_timed(other):
    with pytest.raises(AssertionError):
        measure(PredictionPath("a path", 3, 1.0, other, labels, labels), ROWS, turns=1)

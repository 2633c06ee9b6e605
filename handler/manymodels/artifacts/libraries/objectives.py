"""What a booster's objective makes of its predictions: labels, probabilities, raw scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Predict


@dataclass(frozen=True)
class Answers:
    """The fields of a `Model` that follow from an objective."""

    classes: NDArray[Any] | None = None
    labels: Predict | None = None
    probabilities: Predict | None = None
    raw_scores: Predict | None = None


Make = Callable[[Predict, Predict, NDArray[Any]], Answers]


def probability(predict: Predict, margins: Predict, classes: NDArray[Any]) -> Answers:
    """Of two classes, where ``predict`` answers the second one's probability."""
    return Answers(
        classes,
        lambda rows: classes[(predict(rows) > 0.5).astype(int)],
        lambda rows: _both(predict(rows)),
        margins,
    )


def margin(predict: Predict, margins: Predict, classes: NDArray[Any]) -> Answers:
    """Of two classes, where ``predict`` answers the logarithm of their odds."""
    return Answers(
        classes,
        lambda rows: classes[(predict(rows) > 0).astype(int)],
        lambda rows: _both(_sigmoid(predict(rows))),
        margins,
    )


def one_of_two(predict: Predict, margins: Predict, classes: NDArray[Any]) -> Answers:
    """Of two classes, where ``predict`` answers 0 or 1 and there is no probability."""
    return Answers(classes, lambda rows: classes[predict(rows).astype(int)], raw_scores=margins)


def probabilities(predict: Predict, margins: Predict, classes: NDArray[Any]) -> Answers:
    """Of any number of classes, where ``predict`` answers a probability each."""
    return Answers(classes, lambda rows: classes[predict(rows).argmax(axis=1)], predict, margins)


def one_of_many(predict: Predict, margins: Predict, classes: NDArray[Any]) -> Answers:
    """Of any number of classes, where ``predict`` answers the position of one."""
    return Answers(
        classes,
        lambda rows: classes[predict(rows).astype(int)],
        lambda rows: softmax(margins(rows)),
        margins,
    )


def softmax(margins: NDArray[Any]) -> NDArray[Any]:
    """Return probabilities for margins, both of shape (n_rows, n_classes)."""
    powers = np.exp(margins - margins.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _sigmoid(margins: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-margins)))


def _both(second: NDArray[Any]) -> NDArray[Any]:
    return np.column_stack((1.0 - second, second))


def classes_of(number: int) -> NDArray[Any]:
    """Return the labels of classes that have no other names."""
    return np.arange(number)


XGBOOST: dict[str, Make] = {
    "binary:logistic": probability,
    "binary:logitraw": margin,
    "binary:hinge": one_of_two,
    "multi:softprob": probabilities,
    "multi:softmax": one_of_many,
}
LIGHTGBM: dict[str, Make] = {
    "binary": probability,
    "multiclass": probabilities,
    "multiclassova": probabilities,
}
VOTED = ("multi:softmax", "binary:hinge")
"""Objectives whose predictions are labels: an ensemble of such boosters votes."""


def answers(
    makers: dict[str, Make], objective: str, n_classes: int, predict: Predict, margins: Predict
) -> Answers:
    """Return what a model of ``objective`` can answer beside its predictions."""
    make = makers.get(objective)
    return Answers() if make is None else make(predict, margins, classes_of(max(n_classes, 2)))

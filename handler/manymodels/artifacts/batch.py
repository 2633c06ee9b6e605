"""Requests of one batch: one predict where their rows agree, an outcome each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.model import Rows

Answer = list[NDArray[Any]]
"""Arrays whose first dimension is the rows."""
Outcome = Answer | Exception


def predict_each(function: Callable[[Rows], Answer], requests: Sequence[Rows]) -> list[Outcome]:
    """Return each request's answer, or what the model raised for it.

    Requests of the same type and columns are predicted together. When that fails each is
    predicted by itself, so that one request's values are no other's error.
    """
    outcomes: list[Outcome] = [[] for _ in requests]
    for positions in _agreeing(requests):
        together = [requests[position] for position in positions]
        for position, outcome in zip(positions, _predict(function, together), strict=True):
            outcomes[position] = outcome
    return outcomes


def _predict(function: Callable[[Rows], Answer], requests: Sequence[Rows]) -> list[Outcome]:
    if len(requests) > 1:
        try:
            return list(_split(function(_joined(requests)), requests))
        except Exception:  # raised again by the request that it is about
            return [_outcome(function, rows) for rows in requests]
    return [_outcome(function, requests[0])]


def _outcome(function: Callable[[Rows], Answer], rows: Rows) -> Outcome:
    try:
        return function(rows)
    except Exception as error:
        return error


def _agreeing(requests: Sequence[Rows]) -> Iterable[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for position, rows in enumerate(requests):
        groups.setdefault(_shape(rows), []).append(position)
    return groups.values()


def _shape(rows: Rows) -> Hashable:
    """What two requests have in common that can be predicted together."""
    if hasattr(rows, "dtypes"):
        return type(rows), tuple(rows.columns), tuple(rows.dtypes)
    return type(rows), rows.shape[1:], rows.dtype


def _joined(requests: Sequence[Rows]) -> Rows:
    first = requests[0]
    if hasattr(first, "dtypes"):
        import pandas as pd

        return pd.concat(requests, ignore_index=True)
    if hasattr(first, "tocsr"):
        import scipy.sparse

        return scipy.sparse.vstack(requests, format="csr")
    return np.concatenate(requests)


def _split(answer: Answer, requests: Sequence[Rows]) -> Iterable[Answer]:
    start = 0
    total = sum(rows.shape[0] for rows in requests)
    if any(len(array) != total for array in answer):
        raise ValueError("the model answered another number of rows than it was asked")
    for rows in requests:
        end = start + rows.shape[0]
        yield [array[start:end] for array in answer]
        start = end

"""How many workers an estimator starts for a prediction: none of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_LOOKED_AT = 1000
_OF_A_LIST = 50


def limit_jobs(estimator: Any, threads: int | None = None) -> None:
    """Set ``n_jobs`` to 1 in ``estimator`` and what it consists of.

    How it was trained says nothing of where it serves: with -1 each of many model processes would
    start a pool of as many workers as the machine has processors. XGBoost's boosters, which use
    threads and no pool, get ``threads``, or what the process may use.
    """
    waiting, seen = [estimator], set[int]()
    while waiting and len(seen) < _LOOKED_AT:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        attributes = getattr(one, "__dict__", None)
        if not isinstance(attributes, dict) or isinstance(one, type):
            continue
        _limit(one, attributes, threads)
        for value in attributes.values():
            waiting.extend(_estimators(value))


def _limit(one: Any, attributes: dict[str, Any], threads: int | None) -> None:
    if attributes.get("n_jobs") is not None:
        attributes["n_jobs"] = threads or 1 if _has_own_threads(one) else 1
    booster = attributes.get("_Booster")
    if booster is not None and hasattr(booster, "set_param"):
        booster.set_param({"nthread": threads or 0})


def _has_own_threads(one: Any) -> bool:
    return type(one).__module__.partition(".")[0] in ("xgboost", "lightgbm")


def _estimators(value: Any) -> Iterable[Any]:
    """What may have ``n_jobs`` in an attribute: an estimator, or a list of such or named such."""
    if hasattr(value, "get_params"):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return []
    found: list[Any] = []
    for item in value[:_OF_A_LIST]:
        parts = item if isinstance(item, tuple) else (item,)
        found.extend(part for part in parts if hasattr(part, "get_params"))
    return found

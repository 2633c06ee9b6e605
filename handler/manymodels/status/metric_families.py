"""The metrics that a snapshot makes: their names, their texts, their samples.

Names are Prometheus's way: base units, ``_total`` at the end of what only grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from manymodels.status.snapshot import Memory, Model, Snapshot, Volume
from manymodels.status.tally import BOUNDS, Tally

PREFIX = "manymodels_"
OTHER_ERRORS = "other"
"""The status of errors that found no room in a process's table."""
_BUCKETS = [*map(floatToGoString, BOUNDS), "+Inf"]
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield every metric; what the snapshot does not know has no sample."""
    yield from _of_models(series_of(snapshot.models))
    yield from _of_server(snapshot)
    yield from _of_memory(snapshot.memory)
    if snapshot.volume is not None:
        yield from _of_volume(snapshot.volume)


@dataclass(frozen=True)
class Series:
    """What there is under one model's name: one series, however many processes it has."""

    name: str
    tally: Tally
    restarts: int
    load_seconds: float | None
    private: int | None
    shared: int | None


def series_of(models: Iterable[Model]) -> list[Series]:
    """Gather models by name, in the order of names.

    A model that ends and its successor may have the same name for a moment.
    """
    by_label: dict[str, list[Model]] = {}
    for model in models:
        by_label.setdefault(_label(model.name), []).append(model)
    return [_series(label, same) for label, same in sorted(by_label.items())]


def _series(label: str, models: Sequence[Model]) -> Series:
    loads = [model.load_ms / 1000 for model in models if model.load_ms is not None]
    private = [model.private_bytes for model in models if model.private_bytes is not None]
    shared = [model.shared_bytes for model in models if model.shared_bytes is not None]
    return Series(
        label,
        sum((model.tally for model in models), Tally()),
        sum(model.restarts for model in models),
        loads[-1] if loads else None,
        sum(private) if private else None,
        max(shared, default=None),
    )


def _label(name: str) -> str:
    """Make a name one that UTF-8 can carry; bytes of a path that were no text are escaped."""
    return name.encode(errors="backslashreplace").decode()


def _of_models(models: Sequence[Series]) -> Iterator[Metric]:
    requests = _counter("requests", "Requests that the model's processes answered.", "model")
    errors = _counter(
        "errors", "Requests that were answered by an error, by its HTTP status.", "model", "status"
    )
    latency = HistogramMetricFamily(
        f"{PREFIX}latency_seconds",
        "Seconds from a request's being read to its reply's being ready.",
        labels=["model"],
    )
    restarts = _counter("restarts", "Processes of the model that were replaced.", "model")
    for model in models:
        requests.add_metric([model.name], model.tally.requests)
        restarts.add_metric([model.name], model.restarts)
        for status, count in sorted(model.tally.errors.items()):
            errors.add_metric([model.name, str(status)], count)
        if model.tally.other_errors:
            errors.add_metric([model.name, OTHER_ERRORS], model.tally.other_errors)
        buckets = zip(_BUCKETS, accumulate(model.tally.buckets), strict=True)
        latency.add_metric([model.name], list(buckets), model.tally.seconds)
    yield from (requests, errors, latency, restarts)
    yield from _gauges_of_models(models)


def _gauges_of_models(models: Sequence[Series]) -> Iterator[Metric]:
    load = _gauge("load_seconds", "Seconds from the model's launch to its being loaded.", "model")
    memory = _gauge(
        "memory_bytes",
        "Bytes of memory that are the model's processes' alone (private), and that one of them "
        "has together with others (shared).",
        *("model", "kind"),
    )
    last_use = _gauge(
        "last_use_timestamp_seconds",
        "When the model answered last, in seconds since 1970.",
        "model",
    )
    for model in models:
        _add(load, model.load_seconds, model.name)
        _add(memory, model.private, model.name, "private")
        _add(memory, model.shared, model.name, "shared")
        _add(last_use, model.tally.last_use, model.name)
    yield from (load, memory, last_use)


def _of_server(snapshot: Snapshot) -> Iterator[Metric]:
    counters = snapshot.counters
    started = "When the server started, in seconds since 1970."
    yield _add(_gauge("start_time_seconds", started), snapshot.server.started)
    yield _add(_gauge("models", "Models that are loaded or being loaded."), len(snapshot.models))
    failed = _counter(
        "failed_loads", "Loads that failed, by the HTTP status that answered them.", "status"
    )
    for status, count in sorted(counters.failed_loads.items()):
        failed.add_metric([str(status)], count)
    yield failed
    for name, text, value in (
        ("loads", "Loads that succeeded.", counters.loads),
        ("unloads", "Models that were unloaded.", counters.unloads),
        (
            "replaced_processes",
            "Processes of models that ended and were replaced.",
            counters.replaced_processes,
        ),
        (
            "kernel_kills",
            "Processes of models that the kernel killed for lack of memory.",
            counters.kernel_kills,
        ),
    ):
        yield _add(_counter(name, text), value)


def _of_memory(memory: Memory) -> Iterator[Metric]:
    for name, text, value in (
        ("memory_limit_bytes", "Bytes of memory that the server may take.", memory.limit),
        ("memory_used_bytes", "Bytes of that memory that are in use.", memory.used),
        ("memory_floor_bytes", "Bytes of that memory that a load must leave.", memory.floor),
        (
            "memory_reserved_bytes",
            "Bytes of memory that loads under way are expected to take yet.",
            memory.reserved,
        ),
        ("pids", "Processes and threads that there are.", memory.pids),
        ("pids_limit", "Processes and threads that there may be.", memory.pids_limit),
    ):
        yield _add(_gauge(name, text), value)
    refused = "Loads that were refused for lack of memory, before a process was made."
    yield _add(_counter("refused_loads", refused), memory.refused_loads)


def _of_volume(volume: Volume) -> Iterator[Metric]:
    for name, text, value in (
        ("used_bytes", "Bytes in use of the models' volume, or of its budget.", volume.used_bytes),
        ("size_bytes", "Bytes of the models' volume, or its budget.", volume.size_bytes),
        ("used_ratio", "Part of the volume in use, from 0 to 1.", volume.used_fraction),
        ("high_ratio", "Part above which unused models are removed.", volume.high),
        ("low_ratio", "Part that is reached by that.", volume.low),
        (
            "inodes_used_ratio",
            "Part of the volume's inodes in use, from 0 to 1.",
            volume.inode_fraction,
        ),
    ):
        yield _add(_gauge(f"volume_{name}", text), value)
    evictions = "Model directories that were removed for lack of room."
    yield _add(_counter("evictions", evictions), volume.evictions)
    evicted = "Bytes on disk that these had."
    yield _add(_counter("evicted_bytes", evicted), volume.evicted_bytes)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=labels)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)


def _add(family: Family, value: float | None, *labels: str) -> Family:
    """Add a sample where there is a value."""
    if value is not None:
        family.add_metric(labels, value)
    return family

"""Snapshots of servers, for tests: made by hand, and any at all."""

from __future__ import annotations

from hypothesis import strategies as st

from manymodels.status.snapshot import (
    Counters,
    Memory,
    Model,
    Server,
    Snapshot,
    Volume,
    Worker,
)
from manymodels.status.tally import BOUNDS, Tally

MIB = 1 << 20
NOW = 1_760_000_000.0
MEMORY = Memory(2048 * MIB, 1024 * MIB, 128 * MIB, 64 * MIB, "cgroup v1", refused_loads=3, pids=40)


def tally(*seconds: float, errors: dict[int, int] | None = None, last_use: float = NOW) -> Tally:
    """A tally of requests that took so long."""
    buckets = [0] * (len(BOUNDS) + 1)
    for one in seconds:
        buckets[sum(one > bound for bound in BOUNDS)] += 1
    return Tally(tuple(buckets), sum(seconds), errors or {}, 0, last_use if seconds else None)


def model(name: str, *workers: Worker, **fields: object) -> Model:
    """A loaded model whose tally is that of its workers."""
    counted = sum((worker.tally for worker in workers), Tally())
    values = {
        "path": f"/opt/ml/models/{name}",
        "handler": "manymodels.service:handle",
        "state": "loaded",
        "tally": counted,
        "loaded_at": NOW - 60,
        "load_ms": 38.4,
        **fields,
    }
    return Model(name, workers=workers, **values)  # type: ignore[arg-type]


def snapshot(*models: Model, **fields: object) -> Snapshot:
    server = Server(4711, "0.1.0", NOW - 3700, 8080)
    return Snapshot(server, MEMORY, models, **fields)  # type: ignore[arg-type]


# -- any at all --------------------------------------------------------------------------

texts = st.text(st.characters(), max_size=30)
"""Any text, surrogates that stand for the bytes of a path too."""
counts = st.integers(0, 1 << 50)
reals = st.floats(0, 1e12)
by_status = st.dictionaries(st.integers(400, 599), counts, max_size=4)
tallies = st.builds(
    Tally,
    st.lists(counts, min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1).map(tuple),
    reals,
    by_status,
    counts,
    st.none() | reals,
)
workers = st.builds(
    Worker, counts, st.sampled_from(["loading", "idle"]), tallies, st.none() | counts
)
models = st.builds(
    Model,
    name=texts,
    path=texts,
    handler=texts,
    state=st.sampled_from(["loading", "loaded", "failed"]),
    tally=tallies,
    loaded_at=st.none() | reals,
    load_ms=st.none() | reals,
    restarts=counts,
    workers=st.lists(workers, max_size=3).map(tuple),
    directory_bytes=st.none() | counts,
    leased=st.none() | st.booleans(),
)
volumes = st.builds(
    Volume,
    root=texts,
    mode=st.sampled_from(["evict", "report", "off"]),
    high=reals,
    low=reals,
    used_fraction=reals,
    used_bytes=counts,
    size_bytes=counts,
    inode_fraction=st.none() | reals,
    evictions=counts,
    evicted_bytes=counts,
    warning=st.none() | texts,
)
snapshots = st.builds(
    Snapshot,
    server=st.builds(Server, counts, texts, reals, st.none() | st.integers(1, 65535)),
    memory=st.builds(
        Memory, counts, counts, counts, counts, texts, counts, counts, st.none() | counts
    ),
    models=st.lists(models, max_size=4).map(tuple),
    volume=st.none() | volumes,
    counters=st.builds(Counters, counts, by_status, counts, counts, counts),
)

"""The metrics of a snapshot: every sample, read back from the text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from manymodels.status.metrics import SnapshotCollector
from manymodels.status.snapshot import Counters, Snapshot, Volume, Worker
from manymodels.status.tally import BOUNDS
from tests.unit.snapshots import MIB, NOW, model, snapshot, snapshots, tally, texts

steady = hypothesis_settings(deadline=None, derandomize=True)
VOLUME = Volume("/opt/ml/models", "evict", 0.95, 0.9, 0.5, 10 * MIB, 20 * MIB, 0.25, 7, 9 * MIB)


def exposition(one: Snapshot) -> str:
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: one))
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """All samples by name and labels; fails where two have the same."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for sample in parsed(text):
        key = sample.name, tuple(sorted(sample.labels.items()))
        assert key not in found
        found[key] = sample.value
    return found


def parsed(text: str) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text):
        yield from family.samples


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((f"manymodels_{name}", tuple(sorted(labels.items()))))


def test_a_model_is_one_series_of_its_processes_and_those_that_were_replaced():
    first = Worker(1, "idle", tally(0.1, errors={404: 1}), 5 * MIB, 150 * MIB)
    second = Worker(2, "idle", tally(0.3, last_use=NOW + 1), 6 * MIB, 151 * MIB)
    counted = first.tally + second.tally + tally(0.0001, 70.0, errors={404: 1, 500: 1})
    text = exposition(snapshot(model("m", first, second, tally=counted, restarts=1)))
    assert value(text, "requests_total", model="m") == 4
    assert value(text, "errors_total", model="m", status="404") == 2
    assert value(text, "errors_total", model="m", status="500") == 1
    assert value(text, "restarts_total", model="m") == 1
    assert value(text, "load_seconds", model="m") == pytest.approx(0.0384)
    assert value(text, "memory_bytes", model="m", kind="private") == 11 * MIB
    assert value(text, "memory_bytes", model="m", kind="shared") == 151 * MIB
    assert value(text, "last_use_timestamp_seconds", model="m") == NOW + 1
    assert value(text, "latency_seconds_count", model="m") == 4
    assert value(text, "latency_seconds_sum", model="m") == pytest.approx(70.4001)
    assert value(text, "latency_seconds_bucket", model="m", le="0.0002") == 1
    assert value(text, "latency_seconds_bucket", model="m", le="0.1") == 2
    assert value(text, "latency_seconds_bucket", model="m", le="60.0") == 3
    assert value(text, "latency_seconds_bucket", model="m", le="+Inf") == 4


def test_what_is_not_known_has_no_sample():
    text = exposition(snapshot(model("m", Worker(1, "loading", tally()), load_ms=None)))
    assert value(text, "requests_total", model="m") == 0
    assert value(text, "latency_seconds_count", model="m") == 0
    known = {name for name, labels in samples(text) if ("model", "m") in labels}
    assert not known & {
        "manymodels_load_seconds",
        "manymodels_memory_bytes",
        "manymodels_last_use_timestamp_seconds",
        "manymodels_errors_total",
    }
    assert not any(name.startswith("manymodels_volume") for name, _ in samples(text))
    assert "None" not in text


def test_errors_that_had_no_room_have_a_status_of_their_own():
    many = replace(tally(0.1), other_errors=5)
    text = exposition(snapshot(model("m", tally=many)))
    assert value(text, "errors_total", model="m", status="other") == 5


def test_the_server_says_what_it_did_and_what_it_has():
    counters = Counters(340, {507: 2, 500: 1}, 300, 4, 1)
    text = exposition(snapshot(model("m"), model("n"), volume=VOLUME, counters=counters))
    for name, wanted in {
        "start_time_seconds": NOW - 3700,
        "models": 2,
        "loads_total": 340,
        "unloads_total": 300,
        "replaced_processes_total": 4,
        "kernel_kills_total": 1,
        "refused_loads_total": 3,
        "memory_limit_bytes": 2048 * MIB,
        "memory_used_bytes": 1024 * MIB,
        "memory_floor_bytes": 128 * MIB,
        "memory_reserved_bytes": 64 * MIB,
        "pids": 40,
        "pids_limit": None,
        "volume_used_bytes": 10 * MIB,
        "volume_size_bytes": 20 * MIB,
        "volume_used_ratio": 0.5,
        "volume_high_ratio": 0.95,
        "volume_low_ratio": 0.9,
        "volume_inodes_used_ratio": 0.25,
        "evictions_total": 7,
        "evicted_bytes_total": 9 * MIB,
    }.items():
        assert value(text, name) == wanted, name
    assert value(text, "failed_loads_total", status="507") == 2
    assert value(text, "failed_loads_total", status="500") == 1


def test_a_model_and_its_successor_of_the_same_name_are_one_series():
    ending = model("m", Worker(1, "idle", tally(0.1), 5 * MIB, 9 * MIB))
    loading = model("m", Worker(2, "loading", tally(), 1 * MIB, 8 * MIB), load_ms=None)
    text = exposition(snapshot(ending, loading))
    assert value(text, "requests_total", model="m") == 1
    assert value(text, "memory_bytes", model="m", kind="private") == 6 * MIB
    assert value(text, "memory_bytes", model="m", kind="shared") == 9 * MIB
    assert value(text, "load_seconds", model="m") == pytest.approx(0.0384)


def test_names_and_texts_keep_to_the_conventions():
    text = exposition(
        snapshot(model("m", Worker(1, "idle", tally(0.1, errors={404: 1}), 1, 1)), volume=VOLUME)
    )
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) > 25
    for family in families:
        assert re.fullmatch(r"manymodels_[a-z]+(_[a-z]+)*", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        for unit in ("seconds", "bytes"):
            if family.name.endswith(f"_{unit}"):
                assert unit in family.documentation.lower()
        assert not re.search(r"_(ms|milliseconds|mib|kib|percent)(_|$)", family.name)
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")


@steady
@given(st.lists(texts.filter(bool), unique=True, max_size=6))
def test_any_name_comes_back_from_the_text(names):
    text = exposition(snapshot(*(model(name, tally=tally(0.1)) for name in names)))
    found = [s.labels["model"] for s in parsed(text) if s.name == "manymodels_requests_total"]
    expected = {name.encode(errors="backslashreplace").decode() for name in names}
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    "name",
    [
        'a "b"',
        "two\nlines",
        "back\\slash",
        "\\n",
        "ends in \\",
        '",model="x',
        "}",
        "{a=b} 1",
        " x ",
        "é日本😀",
        "\r",
        "\u2028",
        "#",
    ],
)
def test_a_name_with_signs_of_the_format_comes_back_from_the_text(name):
    text = exposition(snapshot(model(name, tally=tally(0.1)), model("other")))
    assert value(text, "requests_total", model=name) == 1
    assert value(text, "requests_total", model="other") == 0


def test_a_name_that_is_no_text_is_escaped():
    text = exposition(snapshot(model("a\udc80", tally=tally(0.1)), model("a\\udc80")))
    assert value(text, "requests_total", model="a\\udc80") == 1


@steady
@given(snapshots)
def test_of_any_snapshot_no_two_samples_have_the_same_labels(one):
    text = exposition(one)
    found = samples(text)
    names = {m.name.encode(errors="backslashreplace").decode() for m in one.models}
    for name in names:
        counts = [
            found["manymodels_latency_seconds_bucket", (("le", le), ("model", name))]
            for le in (*map(str, map(float, BOUNDS)), "+Inf")
        ]
        assert all(a <= b for a, b in itertools.pairwise(counts))
        assert counts[-1] == found["manymodels_requests_total", (("model", name),)]

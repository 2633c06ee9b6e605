"""Metrics: what a scrape of a snapshot says, on a port and in a file."""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from manymodels.backend.metrics import SnapshotCollector, serve_metrics, write_metrics
from manymodels.backend.snapshot import Counters, Snapshot, Volume, Worker
from manymodels.backend.tally import BOUNDS, Tally
from manymodels.errors import ServeError
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


@pytest.fixture
def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        return answer.read().decode()


# -- the samples -------------------------------------------------------------------------


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


# -- the port ----------------------------------------------------------------------------


def test_each_scrape_is_a_new_look(port):
    seen = itertools.count(1)
    close = serve_metrics(port, lambda: snapshot(counters=Counters(next(seen))), "127.0.0.1")
    try:
        assert [value(get(port), "loads_total") for _ in range(3)] == [1, 2, 3]
    finally:
        close()


def test_scrapes_at_once_look_one_after_the_other(port):
    looks = [threading.Event(), threading.Event()]
    go_on = threading.Event()
    waiting = iter(looks)

    def source() -> Snapshot:
        next(waiting).set()
        go_on.wait(20)
        return snapshot()

    close = serve_metrics(port, source, "127.0.0.1")
    try:
        threads = [threading.Thread(target=get, args=(port,)) for _ in looks]
        for thread in threads:
            thread.start()
        assert looks[0].wait(20)
        assert not looks[1].wait(0.3)
        go_on.set()
        assert looks[1].wait(20)
        for thread in threads:
            thread.join(20)
    finally:
        go_on.set()
        close()


def test_the_port_is_free_again_after_the_end(port):
    for _ in range(2):
        close = serve_metrics(port, snapshot, "127.0.0.1")
        assert value(get(port), "models") == 0
        close()
    with pytest.raises(urllib.error.URLError, match="refused"):
        get(port)


def test_a_source_that_fails_is_500_and_the_next_scrape_is_answered(port, capfd):
    answers = iter([RuntimeError("secret"), snapshot()])

    def source() -> Snapshot:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    close = serve_metrics(port, source, "127.0.0.1")
    try:
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(port)
        assert raised.value.code == 500
        assert b"secret" not in raised.value.read()
        assert value(get(port), "models") == 0
    finally:
        close()


def test_a_port_in_use_is_an_error_that_names_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"no metrics on port {port}: Address already in use"):
            serve_metrics(port, snapshot, "127.0.0.1")


# -- the file ----------------------------------------------------------------------------


def test_the_file_has_what_the_port_answers(tmp_path):
    path = tmp_path / "manymodels.prom"
    one = snapshot(model("wine", tally=tally(0.1)), volume=VOLUME)
    write_metrics(path, lambda: one)
    assert path.read_text() == exposition(one)
    assert [entry.name for entry in tmp_path.iterdir()] == ["manymodels.prom"]


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path):
    path = tmp_path / "manymodels.prom"
    write_metrics(path, lambda: snapshot(model("old")))
    with path.open() as reader:
        write_metrics(path, lambda: snapshot(model("new")))
        old = reader.read()
    assert value(old, "requests_total", model="old") == 0
    assert value(path.read_text(), "requests_total", model="new") == 0


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "manymodels.prom"
    write_metrics(path, lambda: snapshot(model("old")))
    before = path.read_text()

    def fail() -> Snapshot:
        raise RuntimeError("no snapshot")

    with pytest.raises(RuntimeError):
        write_metrics(path, fail)
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["manymodels.prom"]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(OSError, match="No such file or directory"):
        write_metrics(tmp_path / "nowhere" / "manymodels.prom", snapshot)


def test_a_tally_without_all_buckets_is_none():
    with pytest.raises(ValueError, match="2 buckets in place of"):
        Tally((1, 2))

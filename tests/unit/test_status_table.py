"""The table of ``manymodels status``, for any snapshot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.status.snapshot import Counters, Volume, Worker
from manymodels.status.table import table
from tests.unit.snapshots import MIB, NOW, model, snapshot, snapshots, tally

steady = hypothesis_settings(deadline=None, derandomize=True)
VOLUME = Volume("/opt/ml/models", "evict", 0.95, 0.9, 0.953, 19 << 30, 20 << 30, 0.12, 7, 900 * MIB)


def rows(text: str) -> list[str]:
    return text.partition("\n\n")[2].splitlines()


def test_the_table_says_what_is_known_of_each_model():
    busy = Worker(
        101, "idle", tally(0.1, 0.1, errors={404: 1}, last_use=NOW - 3), 6 * MIB, 150 * MIB
    )
    other = Worker(102, "idle", tally(0.1, last_use=NOW - 200), 5 * MIB, 151 * MIB)
    text = table(
        snapshot(
            model("wine", busy, directory_bytes=3 * MIB + 400_000, leased=True),
            model("ada", replace(busy, pid=104), other, directory_bytes=2048, leased=False),
            model("new", Worker(103, "loading", tally()), state="loading", load_ms=None),
        ),
        NOW,
    )
    assert rows(text) == [
        "MODEL       PID   PRIVATE   SHARED  REQUESTS  ERRORS  LAST USE     LOAD     DISK  LEASE",
        "ada       104+1  11.0 MiB  151 MiB         3       1   3 s ago    38 ms  2.0 KiB   free",
        "new         103         -        -         0       0     never  loading        -      -",
        "wine        101   6.0 MiB  150 MiB         2       1   3 s ago    38 ms  3.4 MiB   held",
        "3 models      4  17.0 MiB                  5       2                     3.4 MiB      1",
    ]


def test_models_from_one_directory_take_its_room_once_in_the_total():
    both = [model(name, path="/opt/ml/models/m", directory_bytes=2 * MIB) for name in "ab"]
    alone = model("c", directory_bytes=MIB)
    assert rows(table(snapshot(*both, alone), NOW))[-1].split()[-3:-1] == ["3.0", "MiB"]


def test_the_head_has_the_server_the_memory_and_the_volume_with_their_marks():
    counters = Counters(340, {507: 2, 500: 1}, 300, 2, 1)
    text = table(snapshot(volume=VOLUME, counters=counters), NOW, 90)
    assert text.splitlines() == [
        "server   manymodels 0.1.0, port 8080, pid 4711, up 1 h 1 min",
        "loads    340 done, 3 failed (1 with 500, 2 with 507), 300 unloaded; 2 processes replaced,",
        "         1 killed for lack of memory",
        "memory   1.0 GiB of 2.0 GiB (50.0 %, cgroup v1); 128 MiB stay free, 64.0 MiB reserved,",
        "         3 loads refused; 40 processes and threads",
        "volume   19.0 GiB of 20.0 GiB (95.3 %, inodes 12.0 %); evict above 95.0 % to 90.0 %;",
        "         7 removed (900 MiB); /opt/ml/models",
        "",
        "no models",
    ]


def test_a_warning_of_the_watchdog_is_in_the_head():
    warned = replace(VOLUME, warning="nothing is left to remove")
    assert "\nwarning  nothing is left to remove\n" in table(snapshot(volume=warned), NOW)
    assert "warning" not in table(snapshot(volume=VOLUME), NOW)
    assert "volume   not watched" in table(snapshot(), NOW)


def test_two_thousand_models_are_a_row_each_in_the_order_of_their_names():
    names = [f"model-{n * 7919 % 2000:04}" for n in range(2000)]
    busy = Worker(4_194_303, "idle", tally(*[0.1] * 50), 1023 * MIB, 1023 * MIB)
    text = table(snapshot(*(model(name, busy, leased=True) for name in names)), NOW)
    listed = rows(text)
    assert [row.split()[0] for row in listed[1:-1]] == sorted(names)
    assert listed[-1].startswith("2000 models")
    assert "100000" in listed[-1]
    assert {len(row) for row in listed} <= set(range(101))


def test_a_long_name_is_cut_in_the_middle_and_in_the_table_only():
    name = "fraud-detection-" + "x" * 300 + "-2026-11-23"
    one = snapshot(model(name, Worker(1, "idle", tally(0.1))))
    row = rows(table(one, NOW, 100))[1]
    assert row.startswith("fraud-det")
    assert "…" in row.split()[0]
    assert row.split()[0].endswith("-2026-11-23")
    assert len(row) <= 100
    assert name in table(one, NOW, 1000)
    assert name in one.to_json()


def test_a_wide_terminal_does_not_stretch_short_names():
    one = snapshot(model("m", Worker(1, "idle", tally(0.1))))
    assert rows(table(one, NOW, 300)) == rows(table(one, NOW, 100))


def test_a_name_cannot_break_its_row_or_steer_the_terminal():
    one = snapshot(model("a\nb\x1b[2Jc\u202ed\udc80"), volume=replace(VOLUME, warning="x\x1b[1m"))
    text = table(one, NOW, 200)
    assert "a\\nb\\x1b[2Jc\\u202ed\\udc80" in text
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "name", ["日本語のモデル" * 9, "\uff46" * 80, "e\u0301" * 200, "日本", "é"]
)
def test_columns_are_aligned_whatever_the_script(name):
    text = table(snapshot(model(name, Worker(1, "idle", tally(0.1))), model("b")), NOW, 100)
    heading, *others = rows(text)

    def columns(row: str) -> int:
        wide = sum(0x1100 <= ord(c) <= 0xFFFF and c != "…" for c in row)
        return len(row) + wide - row.count("\u0301")

    assert {columns(row) for row in others} == {len(heading)} != {0}
    assert len(heading) <= 100


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s ago"),
        (0.4, "0 s ago"),
        (59.9, "59 s ago"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (7200, "2 h ago"),
        (90_000, "1 d ago"),
    ],
)
def test_the_last_use_is_in_its_largest_unit(seconds, words):
    one = snapshot(model("m", Worker(1, "idle", tally(0.1, last_use=NOW - seconds))))
    assert f"  {words}  " in rows(table(one, NOW))[1]


@steady
@given(snapshots, st.floats(0, 1e12), st.integers(100, 300))
def test_any_snapshot_has_a_table(one, now, width):
    text = table(one, now, width)
    assert text.replace("\n", "").isprintable()
    if one.models:
        assert len(rows(text)) == len(one.models) + 2

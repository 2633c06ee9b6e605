"""What the container may use, read off cgroup trees of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from manymodels.backend import cgroup

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
USABLE = len(os.sched_getaffinity(0))
GIB = 1 << 30


def tree(root: Path, **files: str) -> Path:
    """Write a cgroup tree; in a name ``__`` stands for a slash and ``_dot_`` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def memory(root: Path, text: str, version: int) -> int:
    name = "memory_dot_max" if version == 2 else "memory__memory_dot_limit_in_bytes"
    return cgroup.memory_bytes(tree(root, **{name: text}))


@pytest.mark.parametrize("version", [1, 2])
def test_a_memory_limit_below_the_machines_is_what_may_be_used(tmp_path, version):
    assert memory(tmp_path, "123456789\n", version) == 123456789


@pytest.mark.parametrize("version", [1, 2])
def test_a_memory_limit_above_the_machines_does_not_make_it_larger(tmp_path, version):
    assert memory(tmp_path, f"{MACHINE + GIB}\n", version) == MACHINE


@pytest.mark.parametrize(
    ("version", "text"), [(2, "max\n"), (1, "9223372036854771712\n"), (1, f"{1 << 50}")]
)
def test_no_memory_limit_means_the_machines_memory(tmp_path, version, text):
    assert memory(tmp_path, text, version) == MACHINE


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("text", ["", "lots", "1.5", "12 34"])
def test_a_memory_file_that_makes_no_sense_means_the_machines_memory(tmp_path, version, text):
    assert memory(tmp_path, text, version) == MACHINE


def test_a_memory_file_of_binary_garbage_means_the_machines_memory(tmp_path):
    (tmp_path / "memory.max").write_bytes(b"\xff\xfe\x00")
    assert cgroup.memory_bytes(tmp_path) == MACHINE


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("text", ["-1", "-9223372036854775808"])
def test_a_negative_memory_limit_means_the_machines_memory(tmp_path, version, text):
    assert memory(tmp_path, text, version) == MACHINE


def test_version_2_is_asked_before_version_1(tmp_path):
    tree(
        tmp_path,
        memory_dot_max="1000000",
        memory__memory_dot_limit_in_bytes="2000000",
    )
    assert cgroup.memory_bytes(tmp_path) == 1000000
    (tmp_path / "memory.max").write_text("max")
    assert cgroup.memory_bytes(tmp_path) == 2000000


def test_without_a_cgroup_the_machine_is_the_limit(tmp_path):
    assert cgroup.memory_bytes(tmp_path / "absent") == MACHINE
    assert cgroup.processors(tmp_path / "absent") == USABLE


@pytest.mark.parametrize(
    ("text", "shares"),
    [("100000 100000", 1), ("50000 100000", 1), ("1 100000", 1), ("100001 100000", 2)],
)
def test_a_share_of_a_processor_counts_as_one(tmp_path, text, shares):
    expected = min(USABLE, shares)
    assert cgroup.processors(tree(tmp_path / "two", cpu_dot_max=text + "\n")) == expected
    quota, period = text.split()
    one = tree(
        tmp_path / "one",
        cpu__cpu_dot_cfs_quota_us=quota,
        cpu__cpu_dot_cfs_period_us=period,
    )
    assert cgroup.processors(one) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"cpu_dot_max": "max 100000\n"},
        {"cpu_dot_max": f"{10**9} 1000\n"},
        {"cpu_dot_max": ""},
        {"cpu_dot_max": "max"},
        {"cpu_dot_max": "a few"},
        {"cpu_dot_max": "1 2 3"},
        {"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"},
        {"cpu__cpu_dot_cfs_quota_us": "100000", "cpu__cpu_dot_cfs_period_us": "0"},
        {"cpu__cpu_dot_cfs_quota_us": "100000"},
        {"cpu__cpu_dot_cfs_quota_us": "100000", "cpu__cpu_dot_cfs_period_us": "soon"},
    ],
)
def test_no_quota_or_one_that_makes_no_sense_means_every_usable_processor(tmp_path, files):
    assert cgroup.processors(tree(tmp_path, **files)) == USABLE


def test_a_quota_per_no_time_means_every_usable_processor(tmp_path):
    assert cgroup.processors(tree(tmp_path, cpu_dot_max="100000 0\n")) == USABLE


def test_the_limits_of_this_machine_can_be_read():
    assert 0 < cgroup.memory_bytes() <= MACHINE
    assert 1 <= cgroup.processors() <= USABLE

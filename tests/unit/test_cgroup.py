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


def test_of_both_versions_limits_the_smaller_one_counts(tmp_path):
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


# -- what binds: the own cgroup, those around it, the machine ------------------------------------


def place(tmp_path: Path, lines: str) -> Path:
    """Write where this process is in each hierarchy; return a /proc with 1 GiB, 600 MiB of it free.

    The file of the machine's memory is as the kernel writes it.
    """
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(lines)
    (proc / "meminfo").write_text(
        "MemTotal:        1048576 kB\nMemFree:          102400 kB\nMemAvailable:     614400 kB\n"
    )
    return proc


@pytest.mark.parametrize(
    ("lines", "top"),
    [("0::/pod/container\n", "."), ("7:cpuset:/\n4:memory:/pod/container\n0::/\n", "memory")],
    ids=["v2", "v1"],
)
def test_a_smaller_limit_of_a_cgroup_around_this_ones_binds(tmp_path, lines, top):
    proc, root = place(tmp_path, lines), tmp_path / "cgroup"
    name = "memory.max" if top == "." else "memory.limit_in_bytes"
    pod = root / top / "pod"
    (pod / "container").mkdir(parents=True)
    (pod / "container" / name).write_text("300000000")
    assert cgroup.memory_bytes(root, proc) == 300000000
    (pod / name).write_text("200000000")
    assert cgroup.memory_bytes(root, proc) == 200000000


def test_processors_of_a_cgroup_around_this_ones_bind(tmp_path):
    proc, root = place(tmp_path, "0::/pod/container\n"), tmp_path / "cgroup"
    (root / "pod" / "container").mkdir(parents=True)
    (root / "pod" / "container" / "cpu.max").write_text("max 100000")
    (root / "pod" / "cpu.max").write_text("100000 100000")
    assert cgroup.processors(root, proc) == 1


def test_a_path_that_is_told_from_above_what_is_mounted_is_found_by_its_end(tmp_path):
    proc = place(tmp_path, "4:memory:/docker/1f2e/inner\n")
    root = tree(tmp_path / "cgroup", memory__memory_dot_limit_in_bytes="400000000")
    assert cgroup.memory_bytes(root, proc) == 400000000
    tree(root, memory__inner__memory_dot_limit_in_bytes="300000000")
    assert cgroup.memory_bytes(root, proc) == 300000000


def test_a_path_that_leads_out_of_the_namespace_stands_for_its_top(tmp_path):
    proc = place(tmp_path, "0::/../other\n")
    tree(tmp_path, other__memory_dot_max="1000000")
    root = tree(tmp_path / "cgroup", memory_dot_max="2000000")
    assert cgroup.memory_bytes(root, proc) == 2000000


# -- what is used --------------------------------------------------------------------------------

V2_STAT = """anon 100000000
file 90000000
kernel 9000000
shmem 5000000
file_mapped 7000000
file_dirty 2000000
file_writeback 1000000
slab_reclaimable 3000000
slab_unreclaimable 4000000
"""
V1_STAT = """cache 1
mapped_file 1
total_cache 90000000
total_rss 100000000
total_shmem 5000000
total_mapped_file 7000000
total_dirty 2000000
total_writeback 1000000
"""


def limited(tmp_path: Path, version: int, limit: int, usage: int, stat: str) -> cgroup.Memory:
    root = tmp_path / "cgroup"
    if version == 2:
        tree(
            root, memory_dot_max=f"{limit}\n", memory_dot_current=f"{usage}\n", memory_dot_stat=stat
        )
    else:
        names = {"limit_in_bytes": f"{limit}\n", "usage_in_bytes": f"{usage}\n", "stat": stat}
        tree(root, **{f"memory__memory_dot_{name}": text for name, text in names.items()})
    return cgroup.Memory(root, place(tmp_path, ""))


@pytest.mark.parametrize(
    ("version", "stat", "reclaimable"), [(2, V2_STAT, 78000000), (1, V1_STAT, 75000000)]
)
def test_cached_pages_that_can_be_dropped_do_not_count_as_used(
    tmp_path, version, stat, reclaimable
):
    memory = limited(tmp_path, version, 400000000, 200000000, stat)
    expected = cgroup.MemoryUse(200000000 - reclaimable, 400000000, f"cgroup v{version}")
    assert memory.use() == expected
    assert expected.free == 200000000 + reclaimable


@pytest.mark.parametrize("version", [1, 2])
def test_without_statistics_all_that_is_charged_counts_as_used(tmp_path, version):
    assert limited(tmp_path, version, 400000000, 200000000, "").use().used == 200000000


def test_more_mapped_than_cached_makes_nothing_reclaimable(tmp_path):
    stat = "file 1000\nfile_mapped 5000\n"
    assert limited(tmp_path, 2, 400000000, 200000000, stat).use().used == 200000000


def test_figures_are_read_anew_each_time(tmp_path):
    memory = limited(tmp_path, 2, 400000000, 200000000, "")
    tree(tmp_path / "cgroup", memory_dot_current="100\n", memory_dot_max="300000000\n")
    assert memory.use() == cgroup.MemoryUse(100, 300000000, "cgroup v2")


def test_where_the_machine_has_less_left_than_the_cgroup_the_machine_counts(tmp_path):
    memory = limited(tmp_path, 2, 1000000000, 100000000, "")
    assert memory.use() == cgroup.MemoryUse(424 << 20, 1 << 30, "the machine")


def test_the_cgroup_with_the_least_left_counts_not_the_one_with_the_least_limit(tmp_path):
    proc, root = place(tmp_path, "0::/pod/container\n"), tmp_path / "cgroup"
    for path, limit, current in (("pod", 500, 490), ("pod/container", 100, 10)):
        (root / path).mkdir(parents=True)
        (root / path / "memory.max").write_text(str(limit))
        (root / path / "memory.current").write_text(str(current))
    assert cgroup.Memory(root, proc).use() == cgroup.MemoryUse(490, 500, "cgroup v2")


def test_a_version_1_controller_beside_a_version_2_hierarchy_without_memory_is_read(tmp_path):
    proc = place(tmp_path, "4:memory:/app\n1:name=systemd:/\n0::/app\n")
    root = tree(
        tmp_path / "cgroup",
        unified__app__cgroup_dot_controllers="io\n",
        memory__app__memory_dot_limit_in_bytes="300000000\n",
        memory__app__memory_dot_usage_in_bytes="100000000\n",
        memory__app__memory_dot_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        memory__memory_dot_limit_in_bytes="9223372036854771712\n",
    )
    memory = cgroup.Memory(root, proc)
    assert memory.use() == cgroup.MemoryUse(100000000, 300000000, "cgroup v1")
    assert memory.oom_kills() == 3


def test_without_a_limit_the_machine_is_what_is_used(tmp_path):
    memory = cgroup.Memory(tmp_path / "absent", place(tmp_path, ""))
    assert memory.use() == cgroup.MemoryUse(424 << 20, 1 << 30, "the machine")


def test_without_any_figures_nothing_is_taken_for_used(tmp_path):
    assert cgroup.Memory(tmp_path, tmp_path).use() == cgroup.MemoryUse(0, MACHINE, "the machine")


def test_the_use_of_this_machine_can_be_read():
    use = cgroup.Memory().use()
    assert 0 < use.used <= use.limit


# -- kills and tasks -----------------------------------------------------------------------------


def test_the_kernels_kills_for_lack_of_memory_are_counted(tmp_path):
    memory = limited(tmp_path, 2, 400000000, 200000000, "")
    assert memory.oom_kills() is None
    tree(tmp_path / "cgroup", memory_dot_events="low 0\nhigh 0\nmax 9\noom 5\noom_kill 2\n")
    assert memory.oom_kills() == 2


@pytest.mark.parametrize(("lines", "top"), [("0::/pod/app\n", "."), ("8:pids:/pod/app\n", "pids")])
def test_tasks_are_those_of_the_cgroup_that_has_the_fewest_left(tmp_path, lines, top):
    proc, root = place(tmp_path, lines), tmp_path / "cgroup"
    for path, limit, current in (("pod", "200", "190"), ("pod/app", "100", "60")):
        (root / top / path).mkdir(parents=True)
        (root / top / path / "pids.max").write_text(limit)
        (root / top / path / "pids.current").write_text(current)
    tasks = cgroup.Tasks(root, proc)
    assert tasks.use() == cgroup.TaskUse(190, 200)
    (root / top / "pod" / "pids.max").write_text("max\n")
    assert tasks.use() == cgroup.TaskUse(60, 100)
    (root / top / "pod" / "app" / "pids.max").write_text("max\n")
    assert tasks.use() is None


def test_without_a_pids_controller_tasks_are_unknown(tmp_path):
    assert cgroup.Tasks(tmp_path, place(tmp_path, "0::/\n")).use() is None

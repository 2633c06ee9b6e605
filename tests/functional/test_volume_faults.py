"""Storage on real file systems that are full, read-only or broken, and killed at every step."""

from __future__ import annotations

import ast
import contextlib
import errno
import fcntl
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from manymodels import storage
from manymodels.errors import DirectoryInUse
from manymodels.settings import Amount, StorageSettings
from manymodels.storage import area, arrival, watchdog
from tests.functional.harness import Server, eventually, serving, write_handler
from tests.functional.platform import HANDLER, Platform
from tests.functional.test_volume import volume

NOW = 1_900_000_000.0
KIB = 1024


@contextlib.contextmanager
def disk(path: Path, size: str = "8M", make: str = "", options: str = "") -> Iterator[Path]:
    """An ext4 file system in a file beside the directory that it is mounted on."""
    image = path.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(int(size[:-1]) << 20)
    commands = [
        ["mkfs.ext4", "-q", "-m", "0", "-b", "1024", *make.split(), str(image)],
        ["mount", "-o", f"loop,{options}".strip(","), str(image), str(path)],
    ]
    path.mkdir()
    for command in commands:
        if os.geteuid() or not shutil.which(command[0]):
            pytest.skip("file systems cannot be mounted here")
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no ext4 can be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@contextlib.contextmanager
def file_system(kind: str, path: Path, inodes: int = 0) -> Iterator[Path]:
    """A small file system of either kind, of so many inodes."""
    if kind == "tmpfs":
        count = f",nr_inodes={inodes}" if inodes else ""
        with volume(path, f"size=8m{count}") as mounted:
            yield mounted
    else:
        with disk(path, make=f"-N {inodes}" if inodes else "") as mounted:
            yield mounted


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def add(root: Path, name: str | bytes, idle: float, files: int = 3, kib: float = 100) -> Path:
    """A model directory of so many files, last used so many seconds ago."""
    unit = root / os.fsdecode(name)
    model = unit / "model"
    model.mkdir(parents=True)
    for number in range(files):
        (model / f"{number}.bin").write_bytes(b"x" * int(kib * KIB / files))
    os.utime(unit, (NOW - idle, NOW - idle))
    return model


def fill(root: Path, kind: str) -> None:
    """Take the last byte, or the last inode, of a volume."""
    directory = root / "newest" / "model"
    directory.mkdir(parents=True)
    if kind == "inodes":
        until_full(lambda number: (directory / str(number)).touch())
    else:
        with (directory / "all").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 10, 1):
                until_full(lambda _, size=size: file.write(b"x" * size))
    os.utime(root / "newest", (NOW, NOW))


def until_full(write: Callable[[int], object]) -> None:
    for number in range(1_000_000):
        try:
            write(number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return
    raise AssertionError("it never fills")


def settings(root: Path, **changes: object) -> StorageSettings:
    """Above 80 % of the volume, it is emptied to 50 %."""
    high, low = Amount(share=0.8), Amount(share=0.5)
    made = StorageSettings(root=root, high=high, low=low, settle_seconds=0)
    return replace(made, **changes)


def dog(root: Path, **changes: object) -> storage.Watchdog:
    return storage.Watchdog(settings(root, **changes), lambda: NOW)


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


STEPS = ["flock", "mkdir", "rename", "unlink", "rmdir", "utime", "write_bytes"]


def killed_at(action: Callable[[], object], number: int) -> bool:
    """Do something in a process that is killed before its n-th step; whether it was."""
    pid = os.fork()
    if pid == 0:
        calls = [0]

        def kill_at(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls[0] += 1
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            module = {"flock": fcntl, "write_bytes": Path}.get(name, os)
            setattr(module, name, kill_at(getattr(module, name)))
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


# -- full --------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["bytes", "inodes"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_volume_without_a_byte_or_an_inode_left_is_relieved(tmp_path, kind, full, caplog):
    with file_system(kind, tmp_path / "volume", 400 if full == "inodes" else 0) as root:
        kib, files = (700, 3) if full == "bytes" else (3, 30)
        for number in range(9):
            add(root, f"m{number}", 1000 - number, files, kib)
        fill(root, full)
        evictions = dog(root).step()
        assert {eviction.reason for eviction in evictions} == {full}
        gone = [eviction.name for eviction in evictions]
        assert gone == [f"m{number}" for number in range(len(gone))]
        usage = storage.usage(root)
        assert max(usage.share, usage.inodes_share) <= 0.51
        assert [name for name in names(root) if name.startswith("m")] == [
            f"m{number}" for number in range(len(gone), 9)
        ]
        assert (root / "newest" / "model").is_dir()
        assert dog(root).step() == []
        assert storage.check(root) == []
        assert set(names(root)) - {"lost+found", "newest", area.NAME} == {
            f"m{number}" for number in range(len(gone), 9)
        }
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("full", ["bytes", "inodes"])
def test_killed_at_any_step_on_a_full_volume_the_next_start_mends_it(tmp_path, full):
    steps = 0
    while True:
        path = tmp_path / f"volume{steps}"
        with file_system("tmpfs", path, 60 if full == "inodes" else 0) as root:
            model = add(root, "m0", 1000, kib=1000)
            (model / "code" / "below").mkdir(parents=True)
            (model / "code" / "below" / "inference.py").write_text("x")
            os.utime(root / "m0", (NOW - 1000, NOW - 1000))
            fill(root, full)
            with storage.share(root / "newest"):
                was_killed = killed_at(dog(root).step, steps)
                if (root / "m0").exists():
                    assert (model / "code" / "below" / "inference.py").read_text() == "x"
                    assert len(os.listdir(model)) == 4
                dog(root).step()
            assert storage.check(root) == []
            assert set(names(root)) - {area.NAME} == {"newest"}
        steps += 1
        if not was_killed:
            break
    assert steps > 10, "the steps were not counted"


def test_fifty_thousand_tiny_files_go_for_their_inodes_in_order_and_in_time(tmp_path):
    with volume(tmp_path / "volume", "size=64m,nr_inodes=51000") as root:
        for number in range(100):
            model = add(root, f"m{number:02}", 1000 - number, 450, 0)
            (model / "code").mkdir()
            for file in range(50):
                (model / "code" / str(file)).symlink_to("/")
            os.utime(root / f"m{number:02}", (NOW - 1000 + number,) * 2)
        assert storage.usage(root).inodes_used > 50_000
        began = time.monotonic()
        with storage.share(root / "m03"):
            evictions = dog(root, high=Amount(share=0.9)).step()
        assert time.monotonic() - began < 20
        order = [f"m{number:02}" for number in range(100) if number != 3]
        assert [eviction.name for eviction in evictions] == order[: len(evictions)]
        assert 45 < len(evictions) < 55
        assert {(eviction.reason, eviction.inodes) for eviction in evictions} == {("inodes", 503)}
        assert storage.usage(root).inodes_share <= 0.5
        assert len(os.listdir(root / "m03" / "model")) == 451
        assert storage.check(root) == []


def step_in_a_process(root: Path, begin: tuple[int, int]) -> tuple[int, int]:
    """Have another process look once when a pipe is closed; its id, and where it says what went."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            warnings: list[str] = []
            logger = logging.getLogger("manymodels.storage")
            logger.addFilter(lambda record: bool(warnings.append(record.getMessage())))
            logger.setLevel(logging.WARNING)
            watching = dog(root)
            os.close(begin[1])
            os.read(begin[0], 1)
            gone = [eviction.name for eviction in watching.step()]
            os.write(tell, repr((gone, warnings)).encode())
        finally:
            os._exit(0)
    os.close(tell)
    return pid, told


def test_several_watchdogs_of_one_root_do_not_remove_more_than_one_would(tmp_path):
    with volume(tmp_path / "volume", "size=8m,nr_inodes=9000") as root:
        for attempt in range(10):
            for number in range(9):
                if not (root / f"m{number}").exists():
                    add(root, f"m{number}", 1000 - number, 200, 800)
            begin = os.pipe()
            children = [step_in_a_process(root, begin) for _ in range(3)]
            for descriptor in begin:
                os.close(descriptor)
            gone: list[str] = []
            for pid, told in children:
                with os.fdopen(told) as answer:
                    names_gone, warnings = ast.literal_eval(answer.read())
                os.waitpid(pid, 0)
                assert warnings == [], attempt
                gone += names_gone
            assert gone == ["m0", "m1", "m2", "m3"], attempt
            assert storage.check(root) == []


# -- arriving ----------------------------------------------------------------------------------


def arrive(root: Path, name: str, size: int = 200) -> None:
    with storage.arriving(root, name) as arriving:
        (arriving.path / "model").mkdir()
        for number in range(3):
            (arriving.path / "model" / f"{number}.bin").write_bytes(b"x" * size * KIB)
        arriving.place().close()


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_volume_that_fills_while_a_directory_arrives_has_nothing_of_it(tmp_path, kind):
    with file_system(kind, tmp_path / "volume") as root:
        other = add(root, "other", 10, kib=1000)
        before = storage.usage(root).used
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                arrive(root, "new", 5000)
        assert set(names(root)) - {"lost+found"} == {"other", area.NAME}
        assert os.listdir(root / area.NAME) == [area.SIGN]
        assert sum(file.stat().st_size for file in other.iterdir()) > 999 * KIB
        assert storage.usage(root).used - before < 64 * KIB
        assert storage.check(root) == []
        arrive(root, "new")
        assert len(os.listdir(root / "new" / "model")) == 3


@pytest.mark.parametrize("size", [200, 5000])
def test_killed_at_any_step_of_its_arrival_a_directory_is_whole_or_not_there(tmp_path, size):
    steps, placed = 0, 0
    while True:
        with volume(tmp_path / f"volume{steps}", "size=8m") as root:
            other = add(root, "other", 10)
            was_killed = killed_at(lambda root=root: arrive(root, "new", size), steps)
            for _ in range(2):
                assert dog(root).step() == []
                assert storage.check(root) == []
            assert set(names(root)) - {area.NAME} <= {"new", "other"}
            assert len(os.listdir(other)) == 3
            if (root / "new").exists():
                placed += 1
                sizes = [file.stat().st_size for file in (root / "new" / "model").iterdir()]
                assert sizes == [size * KIB] * 3
            arrive(root, "newer", 10)
        steps += 1
        if not was_killed:
            break
    assert steps > 8, "the steps were not counted"
    assert bool(placed) == (size == 200)


def test_a_directory_that_is_swept_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, swept = storage.exclude, []
    with volume(tmp_path / "volume", "size=8m") as root:

        def exclude(path: Path) -> storage.Lease:
            if not swept:
                swept.append(path)
                dog(root).step()
                assert not path.exists()
            return real(path)

        monkeypatch.setattr(arrival, "exclude", exclude)
        arrive(root, "new")
        assert swept
        assert len(os.listdir(root / "new" / "model")) == 3
        assert storage.check(root) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/")])
def test_what_has_a_name_in_the_root_is_never_replaced_by_what_arrives(tmp_path, make):
    make(tmp_path / "new")
    before = (tmp_path / "new").lstat().st_ino
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        arrive(tmp_path, "new", 1)
    assert (tmp_path / "new").lstat().st_ino == before
    assert storage.check(tmp_path) == []


# -- read-only ---------------------------------------------------------------------------------


def test_a_read_only_volume_is_warned_of_once_and_nothing_changes(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(watchdog, "RETRY_SECONDS", 0.0)
    with volume(tmp_path / "volume", "size=8m") as root:
        models = [add(root, f"m{number}", 1000 - number, kib=800) for number in range(9)]
        mount("-o", "remount,ro", str(root))
        before = [path.stat().st_mtime for path in sorted(root.rglob("*"))]
        watching = dog(root)
        for _ in range(4):
            assert watching.step() == []
        assert len(caplog.records) == 1
        assert "Read-only file system" in caplog.text or "read-only" in caplog.text
        report = dog(root, mode="report")
        caplog.clear()
        assert [eviction.name for eviction in report.step()] == ["m0", "m1", "m2", "m3"]
        assert "would remove 4 directories: m0, m1, m2, m3" in caplog.text
        with storage.share(root / "m0") as lease:
            lease.note_use(NOW)
            with pytest.raises(DirectoryInUse):
                storage.exclude(root / "m0")
        holding = storage.hold(models[1], root)
        holding.note_use()
        assert storage.check(root, [storage.InUse("m1", models[1])]) == []
        holding.close()
        assert storage.check(root) == []
        assert [path.stat().st_mtime for path in sorted(root.rglob("*"))] == before
        mount("-o", "remount,rw", str(root))
        assert [eviction.name for eviction in watching.step()] == ["m0", "m1", "m2", "m3"]


def test_a_model_on_a_read_only_volume_is_served(tmp_path):
    with volume(tmp_path / "volume", "size=8m") as root:
        model = write_handler(root / "one" / "model", HANDLER, "handler")
        np.save(model / "weights.npy", np.ones(1000))
        add(root, "m1", 1000, kib=7000)
        mount("-o", "remount,ro", str(root))
        variables = {"MANYMODELS_STORAGE_HIGH": "80%", "MANYMODELS_STORAGE_LOW": "50%"}
        variables |= {"MANYMODELS_STORAGE_SETTLE_SECONDS": "0"}
        with serving(MANYMODELS_MODEL_ROOT=str(root), **variables) as server:
            assert server.load("one", model, handler="handler:handle").status == 200
            assert storage.in_use(root / "one")
            answer = server.invoke("one", "3", "text/plain")
            assert answer.status == 200
            expected = np.random.default_rng(3).standard_normal(1000).sum()
            assert float(answer.body) == pytest.approx(expected)
            assert storage.check(root, [storage.InUse("one", model)]) == []
            assert server.unload("one").status == 200
            eventually(lambda: not storage.in_use(root / "one"))
            warned = [line for line in server.log().splitlines() if "80 %" in line]
            assert len(warned) == 1, warned
            assert "Traceback" not in server.log()
        assert storage.check(root) == []


# -- what cannot be deleted --------------------------------------------------------------------


def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(watchdog, "SWEEP_SECONDS", 0.0)


def immutable(path: Path, on: bool = True) -> None:
    command = ["chattr", "+i" if on else "-i", str(path)]
    if not shutil.which("chattr") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file can be made immutable here")


def test_a_file_that_may_not_be_deleted_is_out_of_the_root_and_goes_later(
    tmp_path, monkeypatch, caplog
):
    no_wait(monkeypatch)
    with disk(tmp_path / "volume") as root:
        for number in range(8):
            model = add(root, f"m{number}", 1000 - number, kib=750)
        stuck = root / "m0" / "model" / "0.bin"
        immutable(stuck)
        with storage.share(root / "m7"):
            watching = dog(root)
            assert [eviction.name for eviction in watching.step()] == ["m0", "m1", "m2", "m3"]
            (kept,) = (root / area.NAME).rglob("0.bin")
            for _ in range(3):
                watching.step()
                watching._sweep()
            assert kept.stat().st_size > 200 * KIB
            assert len(list((root / area.NAME).rglob("*"))) == 3
            assert caplog.text.count("not all of it could be deleted") == 1
            assert "Operation not permitted" in caplog.text
            assert len(storage.check(root)) == 2
            immutable(kept, False)
            watching._sweep()
        assert os.listdir(root / area.NAME) == [area.SIGN]
        assert len(os.listdir(model)) == 3
        assert storage.check(root) == []


def test_a_directory_that_may_not_be_moved_stays_whole_and_others_go(tmp_path, monkeypatch, caplog):
    no_wait(monkeypatch)
    with disk(tmp_path / "volume") as root:
        for number in range(8):
            add(root, f"m{number}", 1000 - number, kib=750)
        immutable(root / "m0")
        try:
            watching = dog(root)
            assert [eviction.name for eviction in watching.step()] == ["m1", "m2", "m3", "m4"]
            for number in (1, 2, 3, 4):
                add(root, f"m{number}", 1000 - number, kib=750)
            assert len(watching.step()) == 4
            assert len(os.listdir(root / "m0" / "model")) == 3
            assert caplog.text.count("cannot be removed") == 1
            assert storage.check(root) == []
        finally:
            immutable(root / "m0", False)


def blocks(image: Path, path: str) -> list[int]:
    """The numbers of a file's blocks on an ext4 file system."""
    command = ["debugfs", "-R", f"blocks {path}", str(image)]
    return [int(number) for number in subprocess.check_output(command, stderr=-3).split()]


@pytest.mark.parametrize("block", ["first", "last"])
def test_of_a_directory_that_the_disk_cannot_read_only_that_stays_until_it_can(
    tmp_path, monkeypatch, caplog, block
):
    no_wait(monkeypatch)
    image = tmp_path / "volume.img"
    with disk(tmp_path / "volume", make="-O ^has_journal,^metadata_csum") as root:
        model = add(root, "m0", 1000, kib=1000)
        for name in ("a", "z", "bad"):
            if name == "bad":  # its blocks are the last of all
                add(root, "m1", 900, kib=5800)
            (model / name).mkdir()
            for number in range(80):
                (model / name / f"{'long' * 20}{number}").touch()
        os.utime(root / "m0", (NOW - 1000, NOW - 1000))
        subprocess.run(["umount", str(root)], check=True)
        bad = blocks(image, "/m0/model/bad")
        whole = image.read_bytes()
        mount("-o", "loop,errors=continue", str(image), str(root))
        # The disk ends where its file does, from one moment to the next.
        cut = KIB * (min(bad) if block == "first" else max(bad[1:]))
        os.truncate(image, cut)
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(model / "bad")
        watching = dog(root)
        assert [eviction.name for eviction in watching.step()] == ["m0", "m1"]
        for _ in range(3):
            watching._sweep()
        assert names(root) == [area.NAME, "lost+found"]
        left = [path for path in (root / area.NAME).iterdir() if path.name != area.SIGN]
        assert len(left) == 1
        if block == "first":  # a directory whose beginning cannot be read cannot be moved
            assert os.listdir(left[0]) == ["bad"]
        assert storage.usage(root).used < 200 * KIB
        assert caplog.text.count("not all of it could be deleted (Input/output error") == 1
        assert len(storage.check(root)) == 1
        with image.open("r+b") as file:
            file.seek(cut)
            file.write(whole[cut:])
        watching._sweep()
        assert storage.check(root) == []
        assert os.listdir(root / area.NAME) == [area.SIGN]


# -- odd names, links and mounts ---------------------------------------------------------------

ODD = [
    b"a\nb",
    b" a b ",
    b"\xff\xfe",
    b"n" * 255,
    "ж".encode() * 127,
    "日".encode() * 85,
    b"-rf",
    b"~",
]


def test_odd_names_are_handled_and_nothing_outside_is_touched(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    canary = tmp_path / "canary"
    (canary / "below").mkdir(parents=True)
    (canary / "below" / "precious").write_text("x")
    with file_system("tmpfs", tmp_path / "volume") as root:
        for number, name in enumerate(ODD):
            model = add(root, name, 1000 - number, kib=800)
            (model / "all").symlink_to("/")
            (model / "canary").symlink_to(canary)
            (model / "other").symlink_to(root / "~" / "model")
            for inner in ODD:
                (model / os.fsdecode(inner)).mkdir()
                (model / os.fsdecode(inner) / os.fsdecode(inner)).write_bytes(b"x")
            os.utime(model.parent, (NOW - 1000 + number,) * 2)
        (root / "everything").symlink_to("/")
        (root / "canary").symlink_to(canary)
        (root / "same").symlink_to(root / "~")
        evictions = dog(root).step()
        assert [os.fsencode(eviction.name) for eviction in evictions] == ODD[: len(evictions)]
        assert len(evictions) >= 4
        lines = [record.message for record in caplog.records]
        assert len(lines) == len(evictions)
        assert all(line.isprintable() for line in lines)
        assert r"evicted a\nb: " in lines[0]
        dog(root, low=Amount(share=0.0), high=Amount(share=0.001)).step()
        assert names(root) == [area.NAME, "canary", "everything", "same"]
        assert os.listdir(root / area.NAME) == [area.SIGN]
        for name in ODD:
            arrive(root, os.fsdecode(name), 1)
        assert storage.check(root) == []
    assert (canary / "below" / "precious").read_text() == "x"


def test_a_model_with_a_directory_of_elsewhere_mounted_in_it_stays_and_a_root_may_be_a_link(
    tmp_path,
):
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "precious").write_text("x")
    link = tmp_path / "link"
    with volume(tmp_path / "volume of models", "size=8m") as root:
        link.symlink_to(root)
        for number in range(9):
            model = add(root, f"m{number}", 1000 - number, kib=800)
            (model / "mounted here").mkdir()
            os.utime(root / f"m{number}", (NOW - 1000 + number,) * 2)
        mount("--bind", str(canary), str(root / "m0" / "model" / "mounted here"))
        mount("--bind", str(root / "m2"), str(root / "m2"))
        (root / "same").mkdir()
        mount("--bind", str(root / "m3" / "model"), str(root / "same"))
        try:
            evictions = dog(link).step()
            assert [eviction.name for eviction in evictions] == ["m1", "m3", "m4", "m5"]
            assert (root / "m0" / "model" / "mounted here" / "precious").read_text() == "x"
            assert len(os.listdir(root / "m0" / "model")) == 4
            assert len(os.listdir(root / "m2" / "model")) == 4
            holding = storage.hold(link / "m8" / "model", link)
            assert storage.check(link, [storage.InUse("m8", link / "m8" / "model")]) == []
            holding.close()
            assert storage.check(link) == []
        finally:
            for name in ("m0/model/mounted here", "m2", "same"):
                subprocess.run(["umount", str(root / name)], check=True)
    assert (canary / "precious").read_text() == "x"


def test_an_area_is_told_from_what_looks_like_one_without_waiting_for_it(tmp_path):
    with volume(tmp_path / "volume", "size=8m") as root:
        for name, make in ((area.NAME, os.mkfifo), (f"{area.NAME}-1", os.mkdir)):
            (root / name).mkdir()
            make(root / name / area.SIGN)
        (root / f"{area.NAME}-2").mkdir()
        (root / f"{area.NAME}-2" / area.SIGN).symlink_to("/dev/zero")
        (root / f"{area.NAME}.{'0' * 16}").symlink_to("/")
        before = names(root)
        for number in range(9):
            add(root, f"m{number}", 1000 - number, kib=800)
        assert len(dog(root).step()) == 4
        assert set(before) < set(names(root))
        assert os.listdir(root / f"{area.NAME}-3") == [area.SIGN]
        assert storage.check(root) == []


# -- the command -------------------------------------------------------------------------------

COMMAND = (sys.executable, "-m", "manymodels.cli", "watchdog")


def start(*options: str, **variables: str) -> subprocess.Popen[str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith("MANYMODELS_")}
    return subprocess.Popen(
        [*COMMAND, *options],
        env={**kept, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*options: str, **variables: str) -> tuple[int, str]:
    process = start(*options, **variables)
    output = process.communicate(timeout=30)[0]
    return process.returncode, output


MARKS = ("--high", "80%", "--low", "50%", "--settle", "0")


def test_the_command_looks_once_and_its_status_says_how_it_is_then(tmp_path):
    with volume(tmp_path / "volume", "size=8m") as root:
        for number, name in enumerate(("m0", os.fsdecode(b"m1\n\xff"), "m2", *"abcdef")):
            add(root, name, 10_000 + 1000 - number, kib=800)
        where = ("--root", str(root), *MARKS)
        status, output = run(*where, "--once", "--dry-run")
        assert status == 0
        assert "would remove 4 directories" in output
        assert r"  m1\n\udcff: " in output
        assert len(names(root)) == 9
        with contextlib.ExitStack() as leases:
            for name in names(root):
                leases.enter_context(storage.share(root / name))
            status, output = run(*where, "--once", "--dry-run")
            assert status == 1, "as it would be without --dry-run"
            assert "would remove 0 directories" in output
            assert "too much would stay: the rest is in use or arriving" in output
            status, output = run(*where, "--once")
            assert status == 1
            assert "removed 0 directories" in output
            assert output.count("no model directory can be removed") == 1
        status, output = run(*where, "--once")
        assert (status, "removed 4 directories" in output) == (0, True)
        assert len(re.findall("evicted", output)) == 4
        assert names(root) == [area.NAME, *"bcdef"]
        assert run(*where, "--once")[0] == 0
        assert storage.check(root) == []


def test_options_beat_variables_and_wrong_ones_are_said_in_one_line(tmp_path):
    root = tmp_path / "root"
    for number in range(4):
        add(root, f"m{number}", 1000 - number, kib=1000)
    variables = {
        "MANYMODELS_MODEL_ROOT": str(root),
        "MANYMODELS_STORAGE_BUDGET": "3m",
        "MANYMODELS_STORAGE_HIGH": "80%",
        "MANYMODELS_STORAGE_LOW": "70%",
        "MANYMODELS_STORAGE_SETTLE_SECONDS": "0",
    }
    status, output = run("--once", "--dry-run", **variables)
    assert (status, "would remove 2 directories" in output) == (0, True)
    assert "would remove 0" in run("--once", "--dry-run", "--budget", "10m", **variables)[1]
    assert "would remove 3" in run("--once", "--dry-run", "--low", "1m", **variables)[1]
    for wrong in (
        ("--high", "60%"),
        ("--budget", "much"),
        ("--settle", "-1"),
        ("--root", str(root / "gone")),
        ("--low", "200%"),
        ("--nonsense",),
    ):
        status, output = run("--once", *wrong, **variables)
        assert status == 2, wrong
        assert "Traceback" not in output
        if wrong[0] != "--nonsense":
            assert len(output.splitlines()) == 1
            assert wrong[0] in output, "it is the option that was wrong, not a variable"
    assert len(names(root)) == 4
    assert run("--once", **variables)[0] == 0
    assert names(root) == [area.NAME, "m2", "m3"]


def test_the_command_heeds_the_mode(tmp_path):
    root = tmp_path / "root"
    for number in range(4):
        add(root, f"m{number}", 1000 - number, kib=1000)
    options = ("--root", str(root), "--budget", "3m", "--settle", "0", "--once")
    status, output = run(*options, MANYMODELS_STORAGE="report")
    assert (status, "would remove 2 directories" in output) == (0, True)
    status, output = run(*options, MANYMODELS_STORAGE="off")
    assert (status, output) == (0, "the watchdog is off: MANYMODELS_STORAGE=off\n")
    assert len(names(root)) == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_loop_at_once_with_status_0(tmp_path, number):
    with volume(tmp_path / "volume", "size=8m,nr_inodes=51000") as root:
        for index in range(45):
            add(root, f"m{index:02}", 1000 - index, 1000, 0)
        process = start("--root", str(root), "--high", "80%", "--low", "1%", "--settle", "0")
        assert process.stdout is not None
        assert "evicted m00" in process.stdout.readline()
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - began < 1
        assert len(names(root)) > 10, "it went on until the low mark"
        assert storage.check(root) == []


def test_killed_at_a_random_moment_twenty_times_nothing_half_is_in_the_root(tmp_path):
    rng = random.Random(5)
    killed_in_eviction = 0
    with volume(tmp_path / "volume", "size=8m,nr_inodes=5000") as root:
        used = add(root, "used", 5000, 300, 0)
        for _ in range(20):
            for number in range(14):
                if not (root / f"m{number}").exists():
                    add(root, f"m{number}", 1000 - number, 300, 0)
            with storage.share(root / "used"):
                process = start("--root", str(root), *MARKS)
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(rng.random() * 0.03)
                process.kill()
                process.wait()
            killed_in_eviction += bool(storage.check(root))
            for unit in root.glob("[mu]*"):
                assert len(os.listdir(unit / "model")) == 300
            assert dog(root, high=Amount(share=1.0), low=Amount(share=1.0)).step() == []
            assert storage.check(root) == []
        assert len(os.listdir(used)) == 300
    assert killed_in_eviction, "no kill came at the right time"


# -- a server that is killed -------------------------------------------------------------------


def kill(server: Server) -> None:
    """Kill all of a server's processes, none of which can start another one meanwhile."""
    family = [psutil.Process(server.process.pid)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.suspend()
            family += [child for child in member.children() if child not in family]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    server.process.wait(10)
    psutil.wait_procs(family, 10)


def test_a_server_that_is_killed_under_load_leaves_a_root_that_the_next_one_mends(tmp_path):
    with volume(tmp_path / "volume", "size=12m") as root:
        platform, served = None, 0
        for attempt in range(4):
            with serving(
                MANYMODELS_MODEL_ROOT=str(root),
                MANYMODELS_STORAGE_HIGH="75%",
                MANYMODELS_STORAGE_LOW="50%",
                MANYMODELS_STORAGE_SETTLE_SECONDS="0",
            ) as server:
                eventually(lambda: storage.check(root) == [], 5, "the start mends the root")
                assert_whole(root, platform)
                if attempt == 3:
                    break
                platform = Platform(server, root, 60, (100, 1500))
                clients = threading.Thread(target=platform.run, args=(4, 30.0))
                clients.start()
                eventually(lambda: len(re.findall("evicted", server.log())) > 5)
                time.sleep(random.Random(attempt).random())
                assert platform.wrong == []
                kill(server)
                clients.join()
                served += platform.counts["loads"]
                assert "Traceback" not in server.log()
            assert_whole(root, platform)
        assert served > 30


def assert_whole(root: Path, platform: Platform | None) -> None:
    units = [path for path in root.iterdir() if not path.name.startswith(".")]
    for unit in units:
        model = next(model for model in platform.models if model.name == unit.name)
        assert np.array_equal(np.load(unit / "model" / "weights.npy"), model.weights())
        assert (unit / "model" / "handler.py").read_text() == HANDLER

"""The storage watchdog on a root with a budget: what goes, what stays, what a crash leaves."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from manymodels import storage
from manymodels.errors import DirectoryGone, DirectoryInUse
from manymodels.settings import Amount, StorageSettings
from manymodels.storage import area, leases, watchdog

NOW = 1_900_000_000.0
MIB = 1 << 18
"""A quarter of one does as well, and is written sooner."""


class Root:
    """A root with a budget of 10 MiB: above 80 % it is emptied to 50 %."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(exist_ok=True)
        self.settings = StorageSettings(
            root=path,
            high=Amount(share=0.8),
            low=Amount(share=0.5),
            budget=10 * MIB,
            settle_seconds=0,
        )
        self.now = NOW

    def add(self, name: str, mib: float = 1.0, idle: float = 0.0) -> Path:
        """A model directory as SageMaker makes it, last used so many seconds ago."""
        model = self.path / name / "model"
        model.mkdir(parents=True)
        (model / "model.bin").write_bytes(os.urandom(int(mib * MIB) - 16 * 1024))
        self.use(name, idle)
        return model

    def use(self, name: str, idle: float = 0.0) -> None:
        os.utime(self.path / name, (self.now - idle, self.now - idle))

    def watchdog(self, **changes: object) -> storage.Watchdog:
        return storage.Watchdog(replace(self.settings, **changes), lambda: self.now)

    def step(self, **changes: object) -> list[str]:
        return [eviction.name for eviction in self.watchdog(**changes).step()]

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir() if path.name != area.NAME)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


@contextlib.contextmanager
def used_by_another_process(model: Path, root: Path) -> Iterator[None]:
    """Hold a directory as a model process does."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        storage.hold(model, root)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(told)


# -- what goes ---------------------------------------------------------------------------------


def test_below_the_high_mark_nothing_goes(root):
    for number in range(8):
        root.add(f"m{number}", idle=number * 1000)
    assert root.step() == []
    assert len(root.names) == 8
    assert not (root.path / area.NAME).exists()


def test_above_the_high_mark_the_least_recently_used_go_until_the_low_mark(root):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    assert root.step() == ["m0", "m1", "m2", "m3"]
    assert root.names == ["m4", "m5", "m6", "m7", "m8"]
    assert storage.check(root.path) == []


def test_a_use_saves_a_directory_and_another_one_goes(root):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    root.use("m1")
    assert root.step() == ["m0", "m2", "m3", "m4"]


def test_what_a_process_uses_stays_however_old_it_is(root):
    models = [root.add(f"m{number}", idle=1000 - number) for number in range(9)]
    with used_by_another_process(models[0], root.path):
        assert root.step() == ["m1", "m2", "m3", "m4"]
        assert (models[0] / "model.bin").exists()


def test_what_arrives_stays_until_it_has_settled(root):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    changed = (root.path / "m0" / "model" / "model.bin").stat().st_ctime
    root.now = changed + 59
    assert root.step(settle_seconds=60) == []
    root.now = changed + 3600
    assert len(root.step(settle_seconds=60)) == 4


def test_a_directory_that_has_only_just_been_made_stays(root):
    root.add("m0", mib=9)
    (root.path / "new").mkdir()
    root.now = (root.path / "new").stat().st_ctime + 3
    os.utime(root.path / "new", (0, 0))
    assert root.step(settle_seconds=60) == []
    assert "new" in root.names


def test_marks_may_be_bytes(root):
    for number in range(4):
        root.add(f"m{number}", idle=1000 - number)
    bytes_high = {"high": Amount(size=3 * MIB), "low": Amount(size=2 * MIB)}
    assert root.step(**bytes_high) == ["m0", "m1"]


def test_each_eviction_is_one_line_and_is_counted(root, caplog):
    caplog.set_level(logging.INFO)
    for number in range(9):
        root.add(f"m{number}", idle=7200 - number)
    dog = root.watchdog()
    dog.step()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 4
    assert lines[0].startswith("evicted m0: ")
    assert "unused for 2 h" in lines[0]
    assert "(high mark 80 %)" in lines[0]
    assert dog.watch.evictions == 4
    assert 3.5 * MIB < dog.watch.evicted_bytes < 4.5 * MIB


# -- what stays --------------------------------------------------------------------------------


def test_nothing_but_directories_of_the_root_is_ever_removed(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * MIB)
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    (root.path / "link").symlink_to(outside)
    (root.path / "everything").symlink_to("/")
    (root.path / "archive.tar.gz").write_bytes(b"x" * MIB)
    (root.path / "lost+found").mkdir()
    (root.path / ".hidden").mkdir()
    (root.path / "m0" / "inner").symlink_to(outside)
    (root.path / "m0" / "all").symlink_to("/")
    root.use("m0", 1000)
    root.step(low=Amount(share=0.0))
    kept = {".hidden", "archive.tar.gz", "everything", "link", "lost+found"}
    assert set(root.names) == kept
    assert (outside / "precious").stat().st_size == MIB


def test_a_model_that_is_served_from_the_root_itself_keeps_all_of_it(root, caplog):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    with used_by_another_process(root.path, root.path):
        assert root.step() == []
    assert "the root itself is in use" in caplog.text


def test_what_is_named_like_our_area_is_the_users_own(root):
    taken = root.path / area.NAME
    taken.mkdir()
    (taken / "model.bin").write_bytes(b"mine")
    (taken / "README").write_text("my model")
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    assert len(root.step()) == 4
    assert (taken / "model.bin").read_bytes() == b"mine"
    assert storage.check(root.path) == []
    assert root.step() == []
    assert (taken / "model.bin").read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_holds_a_mounted_file_system_is_left_alone(root):
    model = root.add("m0", mib=9, idle=1000)
    mounted = model / "mounted"
    mounted.mkdir()
    if os.system(f"mount -t tmpfs tmpfs '{mounted}'"):
        pytest.skip("nothing can be mounted here")
    try:
        (mounted / "precious").write_bytes(b"x")
        root.use("m0", 1000)
        assert root.step() == []
        assert (mounted / "precious").exists()
    finally:
        os.system(f"umount '{mounted}'")
    root.use("m0", 1000)
    assert root.step() == ["m0"]


def test_a_root_that_is_not_there_is_no_error_and_may_come_later(root):
    root.path.rmdir()
    dog = root.watchdog()
    assert dog.step() == []
    assert dog.watch.usage is None
    root.path.mkdir()
    root.add("m0", mib=9)
    assert [eviction.name for eviction in dog.step()] == ["m0"]


# -- the modes ---------------------------------------------------------------------------------


def test_report_removes_nothing_and_says_once_what_it_would(root, caplog):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    dog = root.watchdog(mode="report")
    for _ in range(3):
        assert [eviction.name for eviction in dog.step()] == ["m0", "m1", "m2", "m3"]
    assert len(root.names) == 9
    assert caplog.text.count("would remove 4 directories: m0, m1, m2, m3") == 1


def test_off_does_not_even_look(root):
    root.add("m0", mib=9)
    dog = root.watchdog(mode="off")
    assert dog.step() == []
    assert dog.watch.usage is None


def test_when_nothing_can_go_there_is_one_warning_and_no_storm(root, caplog):
    model = root.add("m0", mib=9, idle=1000)
    dog = root.watchdog()
    with used_by_another_process(model, root.path):
        for _ in range(5):
            assert dog.step() == []
        assert caplog.text.count("no model directory can be removed") == 1
        assert "no model directory can be removed" in (dog.watch.warning or "")


def test_the_warning_is_over_when_there_is_room_again(root):
    model = root.add("m0", mib=9, idle=1000)
    dog = root.watchdog()
    with used_by_another_process(model, root.path):
        dog.step()
        (model / "model.bin").unlink()
        dog._scales._known.clear()
        dog.step()
    assert dog.watch.warning is None


# -- the clock ---------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_keeps_the_order(root):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    dog = root.watchdog(high=Amount(share=1.0))
    assert dog.step() == []
    root.now -= 30 * 86_400
    assert dog.step() == []
    root.now += 60
    root.use("m0")
    assert root.step() == ["m1", "m2", "m3", "m4"]


# -- faults ------------------------------------------------------------------------------------


def failing(monkeypatch, name: str, code: int, when: Callable[..., bool] = lambda *_: True):
    """Have a function of os fail, while ``broken`` is not cleared."""
    real, broken = getattr(os, name), [True]

    def fail(*args, **kwargs):
        if broken and when(*args):
            raise OSError(code, os.strerror(code), *[str(a) for a in args[:1]])
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, fail)
    return broken


def test_an_input_output_error_while_deleting_leaves_the_rest_for_later(root, monkeypatch, caplog):
    root.add("m0", mib=9, idle=1000)
    broken = failing(monkeypatch, "unlink", errno.EIO, lambda name, *_: name == "model.bin")
    dog = root.watchdog()
    assert [eviction.name for eviction in dog.step()] == ["m0"]
    assert root.names == []
    assert caplog.text.count("not all of it could be deleted") == 1
    assert "Input/output error" in caplog.text
    dog.step()
    assert caplog.text.count("not all of it could be deleted") == 1
    broken.clear()
    assert root.step() == []
    assert storage.check(root.path) == []
    assert os.listdir(root.path / area.NAME) == ["README"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EIO])
def test_a_directory_that_cannot_be_renamed_stays_whole_and_is_warned_of_once(
    root, monkeypatch, caplog, code
):
    model = root.add("m0", mib=9, idle=1000)
    failing(monkeypatch, "rename", code)
    dog = root.watchdog()
    for _ in range(3):
        assert dog.step() == []
    assert (model / "model.bin").stat().st_size > 8 * MIB
    assert caplog.text.count(f"cannot be removed: {os.strerror(code)}") == 1


def test_a_volume_without_room_for_a_directory_of_ours_is_relieved_all_the_same(root, monkeypatch):
    for number in range(9):
        root.add(f"m{number}", idle=1000 - number)
    broken = failing(monkeypatch, "mkdir", errno.ENOSPC)
    dog = root.watchdog()
    assert len(dog.step()) == 4
    broken.clear()
    assert root.names == ["m4", "m5", "m6", "m7", "m8"]
    assert storage.check(root.path) == []


def test_the_watchdog_goes_on_after_an_error_that_nobody_thought_of(root, monkeypatch, caplog):
    root.add("m0", mib=9, idle=1000)
    dog = root.watchdog()
    stop, seen = threading.Event(), []

    def step():
        seen.append(1)
        if len(seen) == 1:
            raise RuntimeError("a bug")
        stop.set()

    monkeypatch.setattr(dog, "step", step)
    monkeypatch.setattr(watchdog, "REMINDER_SECONDS", 0.0)
    dog.run(stop)
    assert len(seen) == 2
    assert "could not be looked after" in caplog.text


STEPS = ["flock", "mkdir", "rename", "unlink", "rmdir", "utime"]


def killed_at(root: Root, number: int) -> bool:
    """Run one step in a process that is killed before its n-th system call; whether it was."""
    pid = os.fork()
    if pid == 0:
        calls = [0]

        def kill_at(real):
            def call(*args, **kwargs):
                if calls[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls[0] += 1
                return real(*args, **kwargs)

            return call

        for name in STEPS:
            module = fcntl if name == "flock" else os
            setattr(module, name, kill_at(getattr(module, name)))
        root.watchdog().step()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0


def test_killed_at_any_step_of_an_eviction_it_leaves_a_root_that_the_next_start_mends(tmp_path):
    number, steps = 0, 0
    while True:
        root = Root(tmp_path / f"root{number}")
        used = root.add("used", mib=5, idle=5000)
        old = root.add("old", mib=4, idle=1000)
        (old / "code").mkdir()
        (old / "code" / "inference.py").write_text("x")
        root.use("old", 1000)
        with used_by_another_process(used, root.path):
            was_killed = killed_at(root, number)
            assert (used / "model.bin").stat().st_size > 4 * MIB
            if (root.path / "old").exists():  # then it is whole
                assert (old / "model.bin").stat().st_size > 3 * MIB
                assert (old / "code" / "inference.py").read_text() == "x"
            root.step()
            assert root.names == ["used"]
            expected = [storage.InUse("used", used)]
            assert storage.check(root.path, expected) == []
            assert (used / "model.bin").stat().st_size > 4 * MIB
        number += 1
        if not was_killed:
            break
        steps += 1
    assert steps > 8, "the steps were not counted"


def test_what_another_watchdog_is_removing_is_left_to_it(root):
    path = area.make(root.path) / "half"
    path.mkdir()
    with storage.exclude(path):
        root.watchdog().step()
        assert path.exists()
    assert storage.check(root.path) == [f"{path} is left over, and nobody works on it"]
    root.watchdog().step()
    assert not path.exists()


def test_two_watchdogs_at_once_remove_each_directory_once(root):
    for number in range(30):
        root.add(f"m{number:02}", mib=0.3, idle=1000 - number)
    root.settings = replace(root.settings, budget=5 * MIB)
    dogs = [root.watchdog() for _ in range(2)]
    barrier = threading.Barrier(2)

    def step(dog):
        barrier.wait()
        dog.step()

    threads = [threading.Thread(target=step, args=(dog,)) for dog in dogs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gone = 30 - len(root.names)
    assert gone
    assert sum(dog.watch.evictions for dog in dogs) == gone
    assert root.names == [f"m{number:02}" for number in range(gone, 30)]


# -- loads against evictions -------------------------------------------------------------------


def test_a_load_against_an_eviction_wins_and_has_all_of_it_or_is_told(root):
    root.settings = replace(root.settings, budget=MIB, low=Amount(share=0.0))
    outcomes = {"won": 0, "told": 0}
    for attempt in range(150):
        model = root.add("m", mib=1.2, idle=1000)
        barrier = threading.Barrier(2)
        dog = root.watchdog()

        def evict(dog=dog, barrier=barrier):
            barrier.wait()
            dog.step()

        thread = threading.Thread(target=evict)
        thread.start()
        barrier.wait()
        time.sleep(attempt % 30 / 5_000)  # from well before the eviction to well after it
        try:
            holding = storage.hold(model, root.path, seconds=5)
        except (DirectoryGone, DirectoryInUse):
            outcomes["told"] += 1
            thread.join()
        else:
            thread.join()
            outcomes["won"] += 1
            assert (model / "model.bin").stat().st_size > MIB
            holding.close()
            root.use("m", 1000)
            root.step()
        assert root.names == []
    assert outcomes["won"]
    assert outcomes["told"]


class Against(RuleBasedStateMachine):
    """The watchdog against the plainest model of itself: a list in order of use."""

    @initialize(tmp=st.just(None))
    def start(self, tmp: None) -> None:
        import tempfile

        self.directory = tempfile.TemporaryDirectory()
        self.root = Root(Path(self.directory.name) / "root")
        self.root.settings = replace(self.root.settings, budget=400 * 1024)
        self.order: list[str] = []
        self.sizes: dict[str, int] = {}
        self.leased: dict[str, leases.Lease] = {}
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            for lease in self.leased.values():
                lease.close()
            self.directory.cleanup()

    @rule(kib=st.sampled_from([4, 20, 60, 100]))
    def arrives(self, kib: int) -> None:
        name = f"m{self.count}"
        self.count += 1
        self.root.now += 10
        path = self.root.path / name
        path.mkdir()
        (path / "model.bin").write_bytes(os.urandom(kib * 1024))
        self.root.use(name)
        self.order.append(name)
        self.sizes[name] = storage.size_of(path).bytes

    @rule(data=st.data())
    def is_used(self, data: st.DataObject) -> None:
        if self.order:
            name = data.draw(st.sampled_from(self.order))
            self.root.now += 10
            with storage.share(self.root.path / name) as lease:
                lease.note_use(self.root.now)
            self.order.remove(name)
            self.order.append(name)

    @rule(data=st.data())
    def is_loaded_or_unloaded(self, data: st.DataObject) -> None:
        if self.order:
            name = data.draw(st.sampled_from(self.order))
            if name in self.leased:
                self.leased.pop(name).close()
            else:
                self.leased[name] = storage.share(self.root.path / name)

    @rule()
    def the_watchdog_looks(self) -> None:
        overhead = sum(
            storage.size_of(path).bytes if path.is_dir() else 0
            for path in self.root.path.glob(".*")
        )
        budget = self.root.settings.budget or 0
        used = sum(self.sizes.values()) + overhead
        expected = []
        if used > 0.8 * budget:
            goal = used - int(0.5 * budget)
            for name in self.order:
                if goal <= 0:
                    break
                if name not in self.leased:
                    expected.append(name)
                    goal -= self.sizes[name]
        assert self.root.step() == expected
        for name in expected:
            self.order.remove(name)
            del self.sizes[name]

    @invariant()
    def the_root_holds_what_it_should(self) -> None:
        if hasattr(self, "root"):
            assert self.root.names == sorted(self.order)
            models = [storage.InUse(name, self.root.path / name) for name in self.leased]
            assert storage.check(self.root.path, models) == []


TestAgainstAListInOrderOfUse = Against.TestCase
TestAgainstAListInOrderOfUse.settings = hypothesis_settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)

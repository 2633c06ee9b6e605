"""Locks on model directories: between processes, against removal, and the time of the last use."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manymodels import storage
from manymodels.errors import DirectoryInUse
from manymodels.storage import leases

HOLD = """
import sys
from pathlib import Path
from manymodels import storage
how = getattr(storage, sys.argv[1])
lease = how(Path(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "root" / "hash" / "model"
    directory.mkdir(parents=True)
    return directory


@contextlib.contextmanager
def another_process(how: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a directory by ``share`` or ``exclude`` until its stdin ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, how, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


# -- one against the other -----------------------------------------------------------------------


def test_many_share_a_directory_and_nobody_has_it_alone_meanwhile(model):
    with another_process("share", model), storage.share(model):
        assert storage.in_use(model)
        with pytest.raises(DirectoryInUse, match=str(model)):
            storage.exclude(model)
    assert not storage.in_use(model)


def test_who_fills_a_directory_has_it_alone(model):
    with another_process("exclude", model):
        assert storage.in_use(model)
        with pytest.raises(DirectoryInUse):
            storage.share(model)


def test_a_lease_ends_with_its_process_however_that_ends(model):
    with another_process("share", model) as holder:
        assert storage.in_use(model)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not storage.in_use(model)


def test_a_fork_keeps_the_lease_of_its_parent_and_a_new_program_does_not(model):
    lease = storage.share(model)
    program = subprocess.Popen(["sleep", "60"])
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        lease.close()
        assert storage.in_use(model)
        os.close(writer)
        os.waitpid(child, 0)
        assert not storage.in_use(model)
    finally:
        program.kill()
        program.wait()
        os.close(reader)


def test_closing_twice_closes_no_descriptor_of_another(model):
    lease = storage.share(model)
    number = lease.descriptor
    lease.close()
    other = os.open(model, os.O_RDONLY)
    assert other == number
    lease.close()
    os.fstat(other)
    os.close(other)


def test_looking_whether_a_directory_is_used_leaves_no_descriptor(model):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        storage.in_use(model)
        with pytest.raises(FileNotFoundError):
            storage.share(model / "none")
    assert len(os.listdir("/proc/self/fd")) == before


# -- removal ---------------------------------------------------------------------------------------


def test_who_waits_for_a_directory_that_is_removed_is_told_that_it_is_gone(model):
    lease = storage.exclude(model)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            storage.share(model, seconds=30)
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    model.rename(model.with_name("trash"))
    lease.close()
    waiting.join(30)
    assert [type(error) for error in raised] == [FileNotFoundError]


def test_who_waits_while_a_directory_is_fetched_anew_gets_the_new_one(model):
    lease = storage.exclude(model)
    got: list[storage.Lease] = []
    waiting = threading.Thread(target=lambda: got.append(storage.share(model, seconds=30)))
    waiting.start()
    (model.parent / "new").mkdir()
    shutil.rmtree(model)
    (model.parent / "new").rename(model)
    lease.close()
    waiting.join(30)
    assert os.path.samestat(os.fstat(got[0].descriptor), os.stat(model))
    assert storage.in_use(model)
    got[0].close()


def test_a_lock_on_what_the_path_no_longer_names_is_none(model, monkeypatch):
    """The directory is removed and made again just between opening it and locking it."""
    locked = leases._locked

    def replaced(descriptor: int, how: int) -> bool:
        monkeypatch.setattr(leases, "_locked", locked)
        model.rename(model.with_name("trash"))
        model.mkdir()
        return locked(descriptor, how)

    monkeypatch.setattr(leases, "_locked", replaced)
    with storage.share(model, seconds=30) as lease:
        assert os.path.samestat(os.fstat(lease.descriptor), os.stat(model))


def test_links_and_files_are_no_directories(tmp_path, model):
    (tmp_path / "link").symlink_to(model)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            storage.share(tmp_path / name)


# -- a model's directory below the root ------------------------------------------------------------


def test_a_model_holds_each_directory_on_the_way_and_not_the_root(tmp_path, model):
    root = tmp_path / "root"
    holding = storage.hold(model, root)
    assert storage.in_use(model)
    assert storage.in_use(root / "hash")
    assert not storage.in_use(root)
    holding.close()
    assert not storage.in_use(model)
    assert not storage.in_use(root / "hash")


def test_a_model_that_is_named_by_a_link_holds_where_it_leads(tmp_path, model):
    (tmp_path / "link").symlink_to(tmp_path / "root")
    holding = storage.hold(tmp_path / "link" / "hash" / "model", tmp_path / "root")
    assert storage.in_use(tmp_path / "root" / "hash")
    holding.close()


def test_a_model_outside_of_the_root_holds_its_own_directory(tmp_path, model):
    holding = storage.hold(model, tmp_path / "elsewhere")
    assert storage.in_use(model)
    assert not storage.in_use(model.parent)
    holding.close()


def test_a_model_that_cannot_be_held_holds_nothing_of_the_way(tmp_path, model):
    with storage.exclude(model):
        with pytest.raises(DirectoryInUse):
            storage.hold(model, tmp_path / "root")
        assert not storage.in_use(model.parent)


def test_a_directory_that_cannot_be_written_to_can_be_held(model):
    model.chmod(0o555)
    with storage.share(model):
        assert storage.in_use(model)


# -- last use --------------------------------------------------------------------------------------


def test_the_last_use_is_that_of_the_directory_below_the_root_and_survives(tmp_path, model):
    holding = storage.hold(model, tmp_path / "root")
    holding.note_use(now=1_000_000_000.5)
    holding.close()
    assert (tmp_path / "root" / "hash").stat().st_mtime == 1_000_000_000.5


def test_reading_a_directory_does_not_change_its_last_use(model):
    with storage.share(model) as lease:
        lease.note_use(now=1_000_000_000)
    os.listdir(model)
    assert model.stat().st_mtime == 1_000_000_000


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30))
def test_uses_are_recorded_at_most_once_a_second_and_never_later_than_that(moments):
    lease = leases.Lease(Path("unused"), -1)
    recorded: list[float] = []
    original = os.utime
    os.utime = lambda _, times: recorded.append(times[1])  # type: ignore[assignment]
    try:
        for moment in sorted(moments):
            lease.note_use(moment)
            assert moment - recorded[-1] < leases.LAST_USE_SECONDS
    finally:
        os.utime = original
    assert all(b - a >= leases.LAST_USE_SECONDS for a, b in itertools.pairwise(recorded))


def test_a_clock_that_is_set_back_is_believed(model):
    with storage.share(model) as lease:
        lease.note_use(now=2_000_000_000)
        lease.note_use(now=1_000_000_000)
    assert model.stat().st_mtime == 1_000_000_000


def test_a_use_that_cannot_be_recorded_is_no_error(model, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "utime", refuse)
    with storage.share(model) as lease:
        lease.note_use()


# -- any order of taking and giving up -------------------------------------------------------------


class Locks(RuleBasedStateMachine):
    """A directory is unused exactly when it can be had alone."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.directory = Path(tempfile.mkdtemp())
        self.shared: list[storage.Lease] = []
        self.alone: list[storage.Lease] = []

    @rule()
    def take_a_share(self) -> None:
        try:
            self.shared.append(storage.share(self.directory))
        except DirectoryInUse:
            assert self.alone
        else:
            assert not self.alone

    @rule()
    def take_it_alone(self) -> None:
        try:
            self.alone.append(storage.exclude(self.directory))
        except DirectoryInUse:
            assert self.shared or self.alone
        else:
            assert not self.shared
            assert len(self.alone) == 1

    @precondition(lambda self: self.shared)
    @rule(data=st.data())
    def give_a_share_up(self, data: st.DataObject) -> None:
        self.shared.pop(data.draw(st.integers(0, len(self.shared) - 1))).close()

    @precondition(lambda self: self.alone)
    @rule()
    def give_it_up(self) -> None:
        self.alone.pop().close()

    @rule(seconds=st.floats(0, 1e9))
    def note_a_use(self, seconds: float) -> None:
        for lease in self.shared:
            lease.note_use(seconds)

    @invariant()
    def it_is_in_use_while_anybody_has_it(self) -> None:
        assert storage.in_use(self.directory) == bool(self.shared or self.alone)

    def teardown(self) -> None:
        for lease in [*self.shared, *self.alone]:
            lease.close()
        shutil.rmtree(self.directory)


TestLocks = Locks.TestCase


def test_waiting_ends_when_the_time_is_up(model):
    with storage.exclude(model):
        began = time.monotonic()
        with pytest.raises(DirectoryInUse):
            storage.share(model, seconds=0.05)
        assert time.monotonic() - began >= 0.05

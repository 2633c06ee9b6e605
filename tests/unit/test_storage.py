"""What directories take, how they are removed, and what does not fit together."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manymodels import storage
from manymodels.storage import area, words
from manymodels.storage.check import holders
from manymodels.storage.removal import remove
from manymodels.storage.units import units
from manymodels.storage.volume import mount_points
from manymodels.storage.weighing import Scales

# -- sizes -------------------------------------------------------------------------------------


def test_a_size_is_what_the_disk_gives_and_counts_every_inode_once(tmp_path):
    model = tmp_path / "model"
    (model / "code").mkdir(parents=True)
    (model / "a.bin").write_bytes(b"x" * 100_000)
    os.link(model / "a.bin", model / "code" / "same.bin")
    (model / "sparse").touch()
    os.truncate(model / "sparse", 1 << 30)
    size = storage.size_of(model)
    assert size.inodes == 4
    assert 100_000 <= size.bytes < 100_000 + 16 * 4096
    assert size.changed == max(
        os.stat(model / name).st_ctime for name in ("a.bin", "code", "sparse")
    )


def test_a_link_takes_what_a_link_takes(tmp_path):
    (tmp_path / "link").symlink_to("/")
    assert storage.size_of(tmp_path / "link").inodes == 1


def test_what_is_not_there_takes_nothing(tmp_path):
    assert storage.size_of(tmp_path / "gone") == storage.Size()


def test_a_volume_is_as_full_as_df_says(tmp_path):
    found = storage.usage(tmp_path)
    stat = os.statvfs(tmp_path)
    assert found.size - found.used == pytest.approx(stat.f_bavail * stat.f_frsize, rel=0.05)
    assert 0 < found.share < 1
    with pytest.raises(OSError, match="No such file"):
        storage.usage(tmp_path / "gone")


def test_scales_look_again_only_where_something_may_have_changed(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "model.bin").write_bytes(b"x" * 10_000)
    now = (old / "model.bin").stat().st_ctime + 100
    scales = Scales(tmp_path, settle_seconds=60)
    before = scales.total(now)
    (old / "more.bin").write_bytes(b"x" * 10_000)
    assert scales.total(now + 1) == before
    assert scales.total(now + 1000) > before
    new = tmp_path / "new"
    new.mkdir()
    known = scales.total(new.stat().st_ctime + 1)
    (new / "model.bin").write_bytes(b"x" * 10_000)
    assert scales.total(new.stat().st_ctime + 2) > known


def test_mount_points_are_read_with_spaces_in_their_names(tmp_path):
    info = tmp_path / "mountinfo"
    info.write_text(
        "36 35 98:0 / /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw\n"
        "37 35 98:1 / / rw - ext4 /dev/sda rw\n"
    )
    assert mount_points(info) == [Path("/mnt/a b"), Path("/")]
    assert mount_points(tmp_path / "nowhere") == []


def test_units_come_in_the_order_of_their_last_use(tmp_path):
    for number, name in enumerate("cab"):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 + number, 1000 + number))
    (tmp_path / ".area").mkdir()
    (tmp_path / "file").touch()
    assert [unit.path.name for unit in units(tmp_path)] == ["c", "a", "b"]


# -- removal -----------------------------------------------------------------------------------

trees = st.recursive(
    st.sampled_from(["file", "link", "loop", "fifo"]),
    lambda children: st.lists(children, max_size=4),
    max_leaves=25,
)


def plant(path: Path, tree: object, outside: Path) -> None:
    if isinstance(tree, list):
        path.mkdir()
        for number, child in enumerate(tree):
            plant(path / f"n{number}", child, outside)
        path.chmod(0o500)
    elif tree == "file":
        path.write_bytes(b"x")
        path.chmod(0)
    elif tree == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if tree == "link" else path)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(trees)
def test_any_tree_is_removed_and_nothing_outside_of_it(tree):
    with tempfile.TemporaryDirectory() as directory:
        outside = Path(directory) / "outside"
        outside.mkdir()
        (outside / "precious").write_bytes(b"x")
        plant(Path(directory) / "tree", tree, outside)
        assert remove(Path(directory) / "tree") == []
        assert os.listdir(directory) == ["outside"]
        assert (outside / "precious").exists()


def test_a_tree_deeper_than_any_path_can_be_is_removed(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    assert remove(tree) == []
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_directories_that_their_owner_may_not_enter_are_removed_by_the_owner(tmp_path):
    os.chown(tmp_path, 65534, 65534)
    for ancestor in tmp_path.parents[:3]:
        ancestor.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
        (tmp_path / "tree" / "a" / "b" / "file").touch()
        for name in ("tree/a/b", "tree/a", "tree"):
            (tmp_path / name).chmod(0)
        os._exit(len(remove(tmp_path / "tree")))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_removed_is_said_and_the_rest_is_gone(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "stuck").touch()
    (tree / "below" / "file").touch()
    real = os.unlink

    def unlink(name, **kwargs):
        if name == "stuck":
            raise OSError(errno.EIO, "Input/output error")
        real(name, **kwargs)

    monkeypatch.setattr(os, "unlink", unlink)
    assert [failure.errno for failure in remove(tree)] == [errno.EIO]
    assert os.listdir(tmp_path) == ["tree"]
    assert os.listdir(tree) == ["stuck"]


def test_no_room_for_a_name_only_puts_directories_off(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    for number in range(5):
        (tree / f"n{number}").mkdir(parents=True)
        (tree / f"n{number}" / "file").touch()
    real = os.rename

    def rename(source, target, **kwargs):
        if len(os.listdir(tmp_path)) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "rename", rename)
    assert remove(tree) == []
    assert os.listdir(tmp_path) == []


def test_what_is_gone_already_is_removed(tmp_path):
    assert remove(tmp_path / "gone") == []


# -- the area ----------------------------------------------------------------------------------


def test_an_area_that_was_not_signed_is_taken_over_and_a_taken_name_passed_by(tmp_path):
    (tmp_path / area.NAME).mkdir()
    assert area.find(tmp_path) is None
    assert area.make(tmp_path) == tmp_path / area.NAME
    other = tmp_path / "other"
    (other / area.NAME / "model").mkdir(parents=True)
    (other / f"{area.NAME}-1").symlink_to("/")
    assert area.make(other) == other / f"{area.NAME}-2"
    assert area.make(other) == area.find(other)


# -- check -------------------------------------------------------------------------------------


def test_check_finds_a_model_without_its_lease_its_directory_or_its_process(tmp_path):
    model = tmp_path / "m" / "model"
    model.mkdir(parents=True)
    loaded = storage.InUse("m", model, (os.getpid(),))
    assert storage.check(tmp_path, [loaded]) == [f"model m: no process has a lease on {model}"]
    holding = storage.hold(model, tmp_path)
    assert storage.check(tmp_path, [loaded]) == []
    gone = storage.InUse("m", model, (2**22 + 1,))
    assert storage.check(tmp_path, [gone]) == [f"model m: its process {2**22 + 1} has ended"]
    lost = storage.InUse("n", tmp_path / "n")
    assert "No such file" in storage.check(tmp_path, [loaded, lost])[0]
    assert "no model there is loaded" in storage.check(tmp_path)[0]
    assert str(os.getpid()) in storage.check(tmp_path)[0]
    holding.close()
    assert storage.check(tmp_path) == []


def test_holders_are_the_processes_that_took_the_lock(tmp_path):
    with storage.share(tmp_path):
        assert holders(tmp_path) == [os.getpid()]
    assert holders(tmp_path) == []


# -- words -------------------------------------------------------------------------------------


def test_sizes_and_times_are_said_in_units_that_fit():
    assert words.size(0) == "0 B"
    assert words.size(3.4 * 2**20) == "3.4 MiB"
    assert words.size(500 * 2**10) == "500 KiB"
    assert words.size(5000 * 2**30) == "5000 GiB"
    assert words.share(0.953) == "95.3 %"
    assert words.duration(0.2) == "0 s"
    assert words.duration(12_000) == "3 h 20 min"
    assert words.duration(86_400 + 59) == "1 d"
    assert words.duration(3_600) == "1 h"

"""Leases and the watchdog under a real ``serve``, on a volume of its own that is too small."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manymodels import storage
from tests.functional.harness import Server, eventually, load_when_gone, serving, write_handler
from tests.functional.platform import Platform

SECONDS = float(os.environ.get("VOLUME_SECONDS", "10"))
LONG = SECONDS > 60
SHAPE = (
    {"models": 300, "holds": 40, "clients": 8}
    if LONG
    else {"models": 100, "holds": 30, "clients": 4}
)
KIB = (100, 3000)
ECHO = """
    def handle(data, context):
        return None if data is None else ["ok"] * len(data)
"""


@contextlib.contextmanager
def volume(path: Path, options: str) -> Iterator[Path]:
    """A file system in memory of a size, mounted on a directory."""
    path.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True
        ).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def leased(server: Server, root: Path, names: list[str]) -> list[storage.InUse]:
    return [storage.InUse(name, root / name / "model") for name in names]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    with serving(MANYMODELS_MODEL_ROOT=str(root)) as running:
        yield running


# -- leases ------------------------------------------------------------------------------------


def test_a_loaded_models_directory_is_in_use_until_it_is_unloaded(server, root):
    model = write_handler(root / "one" / "model", ECHO)
    assert server.load("one", model, handler="custom:handle").status == 200
    assert storage.in_use(root / "one")
    assert storage.check(root, leased(server, root, ["one"])) == []
    assert server.unload("one").status == 200
    eventually(lambda: not storage.in_use(root / "one"), what="the lease is given up")
    assert storage.check(root) == []


def test_a_model_whose_process_is_killed_has_its_directory_again(server, root):
    model = write_handler(root / "killed" / "model", ECHO)
    assert server.load("killed", model, handler="custom:handle").status == 200
    (before,) = server.model_processes()
    before.kill()
    assert server.invoke("killed").body == b"ok"
    assert storage.check(root, leased(server, root, ["killed"])) == []
    server.unload("killed")
    eventually(lambda: not storage.in_use(root / "killed"))


def test_every_worker_of_a_model_holds_its_directory(root):
    model = write_handler(root / "two" / "model", ECHO)
    with serving(MANYMODELS_MODEL_ROOT=str(root), SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        assert server.load("two", model, handler="custom:handle").status == 200
        eventually(lambda: len(server.model_processes()) == 2)
        server.model_processes()[0].kill()
        assert storage.in_use(root / "two")
        server.process.send_signal(signal.SIGKILL)
        eventually(lambda: not storage.in_use(root / "two"), what="a crash frees the lease")


def test_a_load_that_fails_leaves_no_lease(server, root):
    model = write_handler(root / "broken" / "model", "raise ValueError('no')")
    assert server.load("broken", model, handler="custom:handle").status == 500
    eventually(lambda: not storage.in_use(root / "broken"))


def test_each_use_is_recorded(server, root):
    model = write_handler(root / "used" / "model", ECHO)
    assert server.load("used", model, handler="custom:handle").status == 200
    os.utime(root / "used", (1000, 1000))

    def used() -> bool:
        server.invoke("used")
        return (root / "used").stat().st_mtime > 1_000_000_000

    eventually(used, what="a use is recorded within a second or so")
    server.unload("used")


def test_a_load_of_a_directory_that_is_being_filled_waits_for_it(server, root):
    model = write_handler(root / "arriving" / "model", ECHO)
    lease = storage.exclude(root / "arriving")
    asked = subprocess.Popen(
        [sys.executable, "-c", LOAD, str(server.port), "arriving", str(model)],
        stdout=subprocess.PIPE,
    )
    eventually(lambda: len(server.model_processes()) == 1, what="the load waits")
    assert asked.poll() is None
    lease.close()
    assert asked.communicate(timeout=10)[0] == b"200\n"
    server.unload("arriving")


LOAD = """
import http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
body = json.dumps({"model_name": sys.argv[2], "url": sys.argv[3], "handler": "custom:handle"})
connection.request("POST", "/models", body, {"Content-Type": "application/json"})
print(connection.getresponse().status)
"""


def test_a_load_of_a_directory_that_stays_locked_is_507_and_says_why_in_the_log(server, root):
    model = write_handler(root / "locked" / "model", ECHO)
    with storage.exclude(root / "locked"):
        assert server.load("locked", model, handler="custom:handle").status == 507
    reason = re.compile(r"locked failed to load \(507\): .*is being filled or removed")
    eventually(lambda: reason.search(server.log()), 5)
    assert "[locked] Traceback" not in server.log()
    assert load_when_gone(server, "locked", model, handler="custom:handle").status == 200
    server.unload("locked")


# -- a volume that is too small ----------------------------------------------------------------


@pytest.mark.timeout(SECONDS + 170)
def test_more_models_than_the_volume_holds_are_served_and_it_never_fills(tmp_path):
    mean = sum(KIB) / 2 / 1024
    with (
        volume(tmp_path / "volume", f"size={int(SHAPE['holds'] * mean)}m") as root,
        serving(
            MANYMODELS_MODEL_ROOT=str(root),
            MANYMODELS_STORAGE_HIGH="75%",
            MANYMODELS_STORAGE_LOW="60%",
            MANYMODELS_STORAGE_SETTLE_SECONDS="0",
        ) as server,
    ):
        platform = Platform(server, root, SHAPE["models"], KIB)
        platform.run(SHAPE["clients"], SECONDS)
        evictions = len(re.findall(r"evicted model-", server.log()))
        print(dict(platform.counts), f"evictions {evictions}, fullest {platform.fullest:.0%}")
        assert platform.wrong == []
        assert platform.counts["loads"] > SECONDS
        assert evictions > SHAPE["holds"] / 2
        assert platform.counts["no space"] == 0
        assert platform.fullest < 1.0
        eventually(lambda: not server.model_processes())
        assert storage.check(root) == []
        assert "Traceback" not in server.log()

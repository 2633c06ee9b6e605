"""``manymodels status``: finding a server, asking it, showing its answer."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from manymodels.errors import ManyModelsError
from manymodels.status import command as status
from manymodels.status.command import NoStatus, ask, find, run
from manymodels.status.snapshot import Snapshot, Worker
from manymodels.storage import share
from tests.unit.snapshots import MIB, model, snapshot, tally


@contextmanager
def listening(path: Path, *answers: bytes, close: bool = True) -> Iterator[None]:
    """A server that sends an answer to each that connects, and then closes, or else waits.

    An empty answer is for one who only looks whether anybody listens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def serve() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            kept.append(connection)
            with suppress(OSError):  # the asker may have heard enough
                connection.sendall(answer)
            if close:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
        thread.join(10)
    finally:
        for connection in kept:
            connection.close()
        listener.close()


def dead_socket(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))


def encoded(one: Snapshot) -> bytes:
    return one.to_json().encode()


# -- asking ------------------------------------------------------------------------------


def test_the_answer_of_a_server_is_its_snapshot(tmp_path):
    many = snapshot(*(model(f"m{n}", Worker(n, "idle", tally(0.1))) for n in range(2000)))
    with listening(tmp_path / "status", encoded(many)):
        assert ask(tmp_path / "status", 10.0) == many


@pytest.mark.parametrize("answer", [b"", b"hello", b"\x00" * 100_000, encoded(snapshot())[:-1]])
def test_an_answer_that_is_cut_short_or_something_else_is_an_error(tmp_path, answer):
    with listening(tmp_path / "status", answer), pytest.raises(ManyModelsError):
        ask(tmp_path / "status", 10.0)


def test_an_answer_that_does_not_end_in_time_is_an_error(tmp_path):
    started = time.monotonic()
    with (
        listening(tmp_path / "status", encoded(snapshot())[:20], close=False),
        pytest.raises(NoStatus, match=r"no answer within 0\.2 s"),
    ):
        ask(tmp_path / "status", 0.2)
    assert time.monotonic() - started < 5


def test_an_answer_that_trickles_has_no_more_time_than_another(tmp_path):
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "status"))
        listener.listen()

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                while not stop.wait(0.0005):
                    connection.sendall(b" ")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        try:
            with pytest.raises(NoStatus, match="no answer within"):
                ask(tmp_path / "status", 0.3)
        finally:
            stop.set()
            thread.join(10)


def test_a_socket_that_nobody_listens_on_is_an_error_that_names_it(tmp_path):
    dead_socket(tmp_path / "a" / "status")
    with pytest.raises(NoStatus, match=r"a/status: Connection refused"):
        ask(tmp_path / "a" / "status", 1.0)
    with pytest.raises(NoStatus, match="No such file"):
        ask(tmp_path / "none", 1.0)
    with pytest.raises(NoStatus, match="too long"):
        ask(tmp_path / ("x" * 200), 1.0)


def test_an_endless_answer_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "_MOST_BYTES", 1 << 16)
    with (
        listening(tmp_path / "status", b" " * (1 << 17)),
        pytest.raises(NoStatus, match="more than 65536 bytes"),
    ):
        ask(tmp_path / "status", 10.0)


# -- finding -----------------------------------------------------------------------------


def test_the_one_server_that_runs_is_found_beside_what_others_left(tmp_path):
    dead_socket(tmp_path / "manymodels-8080-dead" / "status")
    dead_socket(tmp_path / "manymodels-none-dead" / "status")
    (tmp_path / "manymodels-8081-empty").mkdir()
    (tmp_path / "manymodels-8082-file").write_text("")
    running = tmp_path / "manymodels-8083-x1" / "status"
    with listening(running, b""):
        assert find(None, tmp_path) == running
    with listening(tmp_path / "manymodels-8084-y" / "status", b""):
        assert find(8084, tmp_path).parent.name == "manymodels-8084-y"


def test_several_servers_are_an_error_that_lists_their_ports(tmp_path):
    with (
        listening(tmp_path / "manymodels-9090-a" / "status", b"", b""),
        listening(tmp_path / "manymodels-8080-b" / "status", b""),
    ):
        with pytest.raises(NoStatus, match="choose one by its port: 8080, 9090"):
            find(None, tmp_path)
        assert find(9090, tmp_path).parent.name == "manymodels-9090-a"


def test_several_servers_on_one_port_are_an_error_that_says_where(tmp_path):
    with (
        listening(tmp_path / "manymodels-8080-a" / "status", b""),
        listening(tmp_path / "manymodels-8080-b" / "status", b""),
        pytest.raises(NoStatus, match=r"on port 8080: .*-8080-a, .*-8080-b"),
    ):
        find(8080, tmp_path)


def test_no_server_is_an_error_that_says_so(tmp_path):
    with pytest.raises(NoStatus, match=f"no server is running in {tmp_path}; .*--directory"):
        find(None, tmp_path)
    with (
        listening(tmp_path / "manymodels-9090-a" / "status"),
        pytest.raises(NoStatus, match="no server is running on port 8080"),
    ):
        find(8080, tmp_path)
    with pytest.raises(NoStatus, match="No such file or directory"):
        find(None, tmp_path / "nowhere")


def test_a_server_of_another_user_is_told_from_none(tmp_path, monkeypatch):
    running = tmp_path / "manymodels-8080-a" / "status"
    running.parent.mkdir()

    def refuse(path: Path, timeout: float) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(status, "_connect", refuse)  # root may everything
    with pytest.raises(NoStatus, match="but one that this user may not ask"):
        find(None, tmp_path)


def test_a_server_that_has_much_to_do_is_running(tmp_path):
    path = tmp_path / "manymodels-8080-a" / "status"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        waiting.connect(str(path))
        with waiting:
            assert find(None, tmp_path) == path


# -- the command -------------------------------------------------------------------------


def test_the_command_asks_the_server_that_it_finds(tmp_path):
    held = tmp_path / "model"
    held.mkdir()
    one = snapshot(model("wine", Worker(os.getpid(), "idle", tally(0.1)), path=str(held)))
    path = tmp_path / "manymodels-8080-a" / "status"
    with share(held):
        with listening(path, b"", encoded(one)):
            text = run(None, False, tmp_path)
        path.unlink()
        with listening(path, b"", encoded(one)):
            fields = json.loads(run(8080, True, tmp_path))
    assert text.splitlines()[0].startswith("server   manymodels 0.1.0, port 8080, pid 4711")
    assert re.search(r"^wine .* held$", text, re.MULTILINE)
    shown = fields["models"][0]
    assert (shown["name"], shown["leased"]) == ("wine", True)
    assert shown["directory_bytes"] > 0
    assert shown["workers"][0]["private_bytes"] > MIB
    assert fields["server"]["pid"] == 4711


def test_without_a_directory_the_command_looks_where_servers_make_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(status.tempfile, "tempdir", str(tmp_path))
    with listening(tmp_path / "manymodels-8080-a" / "status", b"", encoded(snapshot())):
        assert run(None, False, None).endswith("no models")


def test_a_server_that_is_gone_when_asked_is_an_error(tmp_path):
    path = tmp_path / "manymodels-8080-a" / "status"
    with listening(path, b"", b""), pytest.raises(NoStatus, match="closed without an answer"):
        run(None, False, tmp_path)

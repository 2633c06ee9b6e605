"""The launcher, run as the frontend runs it, against a socket that stands for the host."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manymodels import backend
from manymodels.backend.launch import Launch, LaunchReceiver
from manymodels.wire import ReplyDecoder

SCRIPT = backend.home() / "mms" / "model_service_worker.py"
SECONDS = 20.0
"""How long anything may take before a test fails; nothing takes near as long."""


class Host:
    """The host's listening socket."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "host")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen()
        self._listener.settimeout(SECONDS)
        self._receivers: list[LaunchReceiver] = []

    def accept(self) -> LaunchReceiver:
        connection, _ = self._listener.accept()
        connection.settimeout(SECONDS)
        self._receivers.append(LaunchReceiver(connection))
        return self._receivers[-1]

    def end(self) -> None:
        """Close all that a process's end would close."""
        self._listener.close()
        for receiver in self._receivers:
            receiver.connection.close()
            for descriptor in receiver.stdio:
                os.close(descriptor)
        self._receivers.clear()


class Launcher:
    """A launcher's process, with pipes for stdio as the frontend makes them."""

    def __init__(
        self,
        directory: Path,
        address: str | None,
        model_name: str | bytes = "m",
        extra: dict[str | bytes, str | bytes] | None = None,
        socket_options: tuple[str, ...] = (),
    ) -> None:
        self.socket_name = str(directory / "model.sock")
        options = socket_options or ("--sock-type", "unix", "--sock-name", self.socket_name)
        command: list[str | bytes] = [sys.executable, "-ISE", str(SCRIPT), *options]
        command += ["--handler", "h.py:handle", "--model-path", str(directory)]
        command += ["--model-name", model_name, "--preload-model", "false"]
        command += ["--tmp-dir", str(directory)]
        environment: dict[str | bytes, str | bytes] = {"PATH": "/usr/bin:/bin", **(extra or {})}
        if address is not None:
            environment["MANYMODELS_HOST"] = address
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    @property
    def name(self) -> str:
        return Path(f"/proc/{self.process.pid}/comm").read_text().strip()

    def first_line(self) -> bytes:
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        assert ready
        return self.process.stdout.readline()

    def clean_up(self) -> None:
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()
        self.process.kill()
        self.process.wait()


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll a condition of another process that nothing announces."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not become true"
        select.select([], [], [], 0.002)


def received(receiver: LaunchReceiver) -> Launch:
    while (launch := receiver.receive()) is None:
        pass
    return launch


@pytest.fixture
def host(tmp_path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.end()


@pytest.fixture
def launch(tmp_path, host) -> Iterator[Callable[..., Launcher]]:
    """Start a launcher that is told of the host."""
    started: list[Launcher] = []

    def start(**options: object) -> Launcher:
        started.append(Launcher(tmp_path, **{"address": host.address, **options}))
        return started[-1]

    yield start
    for launcher in started:
        launcher.clean_up()


@pytest.fixture
def settled(host, launch) -> tuple[Launcher, LaunchReceiver]:
    """A launcher whose launch was taken and acknowledged, and the host's end of it."""
    launcher = launch()
    receiver = host.accept()
    received(receiver)
    receiver.connection.send(b"\x01")
    wait_until(lambda: launcher.name == "cat")
    return launcher, receiver


# -- what the host gets ------------------------------------------------------------------


def test_the_host_gets_the_frontends_arguments_and_the_environment(tmp_path, host, launch):
    launcher = launch(extra={"PYTHONPATH": "/a:/b", "EMPTY": "", "X": "a=b\nc"})
    assert received(host.accept()) == Launch(
        model_name="m",
        model_path=str(tmp_path),
        handler="h.py:handle",
        socket_name=launcher.socket_name,
        port=None,
        tmp_dir=str(tmp_path),
        environment={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": "/a:/b",
            "EMPTY": "",
            "X": "a=b\nc",
            "MANYMODELS_HOST": host.address,
        }
        | locale_of_the_interpreter(),
    )


def locale_of_the_interpreter() -> dict[str, str]:
    """What Python adds to its own environment where there is no locale (PEP 538)."""
    code = "import posix, sys; sys.stdout.write(posix.environ.get(b'LC_CTYPE', b'').decode())"
    added = subprocess.run(
        [sys.executable, "-ISE", "-c", code], env={}, capture_output=True, text=True, check=True
    ).stdout
    return {"LC_CTYPE": added} if added else {}


def test_the_host_gets_bytes_that_are_no_text_as_they_are(host, launch):
    launch(model_name=b"m\xff\xc3\xa9", extra={b"BYTES": b"\xff=\xfe", b"UTF": "é".encode()})
    taken = received(host.accept())
    assert os.fsencode(taken.model_name) == b"m\xff\xc3\xa9"
    assert os.fsencode(taken.environment["BYTES"]) == b"\xff=\xfe"
    assert taken.environment["UTF"] == "é"


def test_the_host_gets_a_large_environment_whole(host, launch):
    extra = {f"V{i}": "x" * 100_000 for i in range(10)}
    launch(extra=extra)
    taken = received(host.accept())
    assert {name: taken.environment[name] for name in extra} == extra


def test_the_host_gets_a_port_where_there_are_no_unix_sockets(host, launch):
    launch(socket_options=("--sock-type", "tcp", "--port", "9001"))
    assert received(host.accept()).port == 9001


def test_the_host_gets_the_pipes_that_the_frontend_made_and_the_process_id(host, launch):
    launcher = launch()
    receiver = host.accept()
    received(receiver)
    process = launcher.process
    assert receiver.pid == process.pid
    theirs = [os.fstat(descriptor).st_ino for descriptor in receiver.stdio]
    ours = [os.fstat(pipe.fileno()).st_ino for pipe in (process.stdin, process.stdout)]
    assert theirs == [*ours, os.fstat(process.stderr.fileno()).st_ino]


def test_nothing_is_printed_before_the_host_has_taken_the_launch(host, launch):
    launcher = launch()
    receiver = host.accept()
    received(receiver)
    os.write(receiver.stdio[1], b"the host speaks first\n")
    assert launcher.first_line() == b"the host speaks first\n"


# -- the placeholder ---------------------------------------------------------------------


def test_after_the_acknowledgement_it_is_a_placeholder(settled):
    launcher, _ = settled
    assert Path(f"/proc/{launcher.process.pid}/cmdline").read_bytes() == b"cat\0"
    assert launcher.process.poll() is None


def test_the_placeholder_takes_well_under_a_megabyte_of_its_own(settled):
    launcher, _ = settled
    rollup = Path(f"/proc/{launcher.process.pid}/smaps_rollup").read_text()
    private = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_")]
    assert 0 < sum(private) < 512


def test_the_placeholder_keeps_none_of_the_frontends_pipes(settled):
    launcher, receiver = settled
    for descriptor in receiver.stdio:
        os.close(descriptor)
    receiver.stdio.clear()
    assert launcher.process.stdout.read() == b""
    assert launcher.process.stderr.read() == b""
    # Nobody reads its stdin any more.
    with pytest.raises(BrokenPipeError):
        os.write(launcher.process.stdin.fileno(), b"x")
    assert launcher.process.poll() is None


def test_the_placeholder_ends_when_the_host_closes_the_connection(settled):
    launcher, receiver = settled
    receiver.connection.close()
    assert launcher.process.wait(SECONDS) == 0


def test_the_end_of_the_placeholder_closes_the_connection(settled):
    launcher, receiver = settled
    launcher.process.kill()
    assert receiver.connection.recv(1) == b""


def test_it_does_not_settle_before_the_host_has_acknowledged(host, launch):
    launcher = launch()
    receiver = host.accept()
    received(receiver)
    assert launcher.name != "cat"
    assert launcher.process.poll() is None
    receiver.connection.send(b"\x01")
    wait_until(lambda: launcher.name == "cat")


# -- where no host takes it --------------------------------------------------------------


def host_closes(host: Host, launch: Callable[..., Launcher], **options: object) -> Launcher:
    launcher = launch(**options)
    received(host.accept())
    host.end()
    return launcher


def host_closes_unread(host: Host, launch: Callable[..., Launcher], **options: object) -> Launcher:
    """It dies with the launch still in its buffer, which resets the connection."""
    launcher = launch(**options)
    connection = host.accept().connection
    assert connection.recv(4, socket.MSG_PEEK)
    host.end()
    return launcher


def host_never_accepts(host: Host, launch: Callable[..., Launcher], **options: object) -> Launcher:
    launcher = launch(**options)
    # In the backlog from here on, wherever its end is in saying what it has to say.
    wait_until(lambda: select.select([host._listener], [], [], 0)[0] != [])
    host.end()
    return launcher


def host_is_not_there(host: Host, launch: Callable[..., Launcher], **options: object) -> Launcher:
    host.end()
    return launch(**options)


def host_says_something_else(
    host: Host, launch: Callable[..., Launcher], **options: object
) -> Launcher:
    launcher = launch(**options)
    receiver = host.accept()
    received(receiver)
    receiver.connection.send(b"\x00")
    host.end()
    return launcher


LOSSES = {
    host_closes: "the host",
    host_closes_unread: "the host",
    host_never_accepts: "the host",
    host_is_not_there: "the host cannot be reached",
    host_says_something_else: "the host",
}


def connect(launcher: Launcher) -> socket.socket:
    """Do as the frontend: wait for the ready line, then connect."""
    assert launcher.first_line() == b"MMS worker started.\n"
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SECONDS)
    connection.connect(launcher.socket_name)
    return connection


def reply_of(connection: socket.socket) -> tuple[int, str]:
    decoder = ReplyDecoder()
    while True:
        data = connection.recv(4096)
        assert data, "the connection ends without a reply"
        decoder.feed(data)
        for reply in decoder.messages():
            assert reply.predictions == []
            return reply.code, reply.message


def is_quiet(connection: socket.socket) -> bool:
    return select.select([connection], [], [], 0.05)[0] == []


@pytest.mark.parametrize("lose", LOSSES)
def test_without_a_host_it_answers_the_load_itself_once_the_frontend_has_seen_it_end(
    host, launch, lose
):
    launcher = lose(host, launch)
    with connect(launcher) as connection:
        connection.sendall(b"L and the rest of a load, which nobody reads")
        # The process that the frontend started ends first, so that the model is not kept.
        assert launcher.process.wait(SECONDS) != 0
        assert is_quiet(connection), "it answers before the frontend can know of its end"
        launcher.process.stdin.close()
        code, message = reply_of(connection)
        assert code == 500
        assert message.startswith(LOSSES[lose])
        assert message.endswith(" [PID]:0")
        # Nothing is left when the frontend hangs up.
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert not os.path.exists(launcher.socket_name)
    assert LOSSES[lose].encode() in launcher.process.stderr.read()


def test_without_a_host_nothing_is_answered_until_the_frontend_connects(host, launch):
    launcher = host_is_not_there(host, launch)
    assert launcher.first_line() == b"MMS worker started.\n"
    assert launcher.process.poll() is None


def test_without_a_host_it_answers_on_a_port_too(host, launch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ("--sock-type", "tcp", "--port", str(port))
    launcher = host_is_not_there(host, launch, socket_options=options)
    assert launcher.first_line() == b"MMS worker started.\n"
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        assert launcher.process.wait(SECONDS) != 0
        launcher.process.stdin.close()
        assert reply_of(connection)[0] == 500


def test_the_frontends_pipes_end_with_the_process_that_it_started(host, launch):
    launcher = host_is_not_there(host, launch)
    with connect(launcher):
        launcher.process.wait(SECONDS)
        assert launcher.process.stdout.read() == b""
        launcher.process.stdin.close()

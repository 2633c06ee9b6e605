"""What the host makes of a launcher's bytes: a launch, or a protocol error."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.backend.launch import Launch, LaunchReceiver, parse
from manymodels.errors import ProtocolError

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""

OPTIONS = {
    "--sock-type": "unix",
    "--sock-name": "/tmp/.mms.sock.9000",
    "--handler": "service.py:handle",
    "--model-path": "/models/m",
    "--model-name": "m",
    "--preload-model": "false",
    "--tmp-dir": "/tmp",
}


def payload(arguments: list[bytes], environment: dict[bytes, bytes] | None = None) -> bytes:
    """Make the launcher's fields as it does."""
    fields = [str(len(arguments)).encode(), *arguments]
    fields += [name + b"=" + value for name, value in (environment or {}).items()]
    return b"\0".join(fields)


def words(**changes: str | None) -> list[bytes]:
    """Return the frontend's arguments; a change of None leaves an option out."""
    changed = {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    options = {**OPTIONS, **changed}
    return [
        os.fsencode(word)
        for option, value in options.items()
        if value is not None
        for word in (option, value)
    ]


# What the kernel can carry in an argument or a variable; argparse takes a dash for an option.
raw = st.binary(max_size=40).map(lambda value: value.replace(b"\0", b""))
values = raw.filter(lambda value: not value.startswith(b"-"))
names = raw.map(lambda name: name.replace(b"=", b"")).filter(bool)


@steady
@given(
    handler=values,
    path=values,
    name=values,
    sock_name=values,
    tmp=values,
    environment=st.dictionaries(names, raw, max_size=5),
)
def test_any_arguments_and_environment_come_through_byte_for_byte(
    handler, path, name, sock_name, tmp, environment
):
    arguments = [b"--sock-type", b"unix", b"--sock-name", sock_name, b"--handler", handler]
    arguments += [b"--model-path", path, b"--model-name", name, b"--tmp-dir", tmp]
    launch = parse(payload(arguments, environment))
    texts = (launch.handler, launch.model_path, launch.model_name, launch.socket_name)
    assert tuple(map(os.fsencode, texts)) == (handler, path, name, sock_name)
    assert os.fsencode(launch.tmp_dir) == tmp
    assert launch.port is None
    assert {os.fsencode(k): os.fsencode(v) for k, v in launch.environment.items()} == environment


def test_the_frontends_command_line_becomes_a_launch():
    assert parse(payload(words(), {b"A": b"b=c", b"EMPTY": b""})) == Launch(
        model_name="m",
        model_path="/models/m",
        handler="service.py:handle",
        socket_name="/tmp/.mms.sock.9000",
        port=None,
        tmp_dir="/tmp",
        environment={"A": "b=c", "EMPTY": ""},
    )


def test_a_tcp_launch_has_a_port_and_no_socket_name():
    launch = parse(payload(words(sock_type="tcp", sock_name=None, port="9001")))
    assert (launch.port, launch.socket_name) == (9001, None)


def test_an_argument_that_looks_like_a_variable_stays_an_argument():
    launch = parse(payload(words(model_name="A=b"), {b"C": b"d"}))
    assert (launch.model_name, launch.environment) == ("A=b", {"C": "d"})


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "required"),
        (words(model_name=None), "--model-name"),
        (words(handler=None), "--handler"),
        (words(sock_type="pigeon"), "pigeon"),
        (words(sock_name=None), "one of --sock-name and --port"),
        (words(port="9000"), "one of --sock-name and --port"),
        (words(sock_name=None, port="many"), "many"),
        ([*words(), b"--unknown", b"x"], "--unknown"),
        ([*words(), b"stray"], "stray"),
        ([*words()[:-1]], "--tmp-dir"),
        ([b"--help"], "required"),
    ],
)
def test_arguments_that_are_not_the_frontends_are_a_protocol_error(capsys, arguments, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        parse(payload(arguments))
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("count", [b"", b"-1", b"x", b"1.0", b" 3", b"99", "²".encode(), b"\xff"])
def test_a_count_that_is_none_or_too_large_is_a_protocol_error(count):
    with pytest.raises(ProtocolError, match="not counted"):
        parse(b"\0".join([count, *words()]))


def test_a_count_of_thousands_of_digits_is_a_protocol_error():
    with pytest.raises(ProtocolError):
        parse(b"9" * 5000 + b"\0x")


@steady
@given(st.binary(max_size=200))
def test_any_bytes_are_a_launch_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        assert isinstance(parse(data), Launch)


@steady
@given(st.lists(st.sampled_from([*words(), b"--", b"-x", b"", b"a=b", b"="]), max_size=20))
def test_any_mixture_of_words_is_a_launch_or_a_protocol_error(mixture):
    with contextlib.suppress(ProtocolError):
        assert isinstance(parse(payload(mixture)), Launch)


class Launcher:
    """A connected pair of sockets: a launcher's, and a receiver on the host's."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self.receiver = LaunchReceiver(theirs)

    def close(self) -> None:
        self.ours.close()
        self.receiver.connection.close()
        for descriptor in self.receiver.stdio:
            os.close(descriptor)


@pytest.fixture
def launcher():
    launcher = Launcher()
    yield launcher
    launcher.close()


def message(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def test_a_launch_sent_byte_by_byte_comes_out_whole_and_once(launcher):
    raw_message = message(payload(words(), {b"A": b"b"}))
    socket.send_fds(launcher.ours, [raw_message[:1]], [0, 1, 2])
    assert launcher.receiver.receive() is None
    for position in range(1, len(raw_message)):
        launcher.ours.send(raw_message[position : position + 1])
        launch = launcher.receiver.receive()
        assert (launch is None) == (position < len(raw_message) - 1)
    assert launch.environment == {"A": "b"}
    assert len(launcher.receiver.stdio) == 3


def test_a_large_environment_comes_in_several_reads(launcher):
    body = payload(words(), {f"V{i}".encode(): b"x" * 1000 for i in range(1000)})
    rest, launch = message(body), None
    launcher.ours.setblocking(False)
    sent = socket.send_fds(launcher.ours, [rest[:1000]], [0, 1, 2])
    rest = rest[sent:]
    while launch is None:
        if rest:
            rest = rest[launcher.ours.send(rest[:65536]) :]
        launch = launcher.receiver.receive()
    assert len(launch.environment) == 1000


def test_the_launchers_process_id_is_what_the_kernel_says(launcher):
    assert launcher.receiver.pid == os.getpid()


def test_a_launcher_that_says_nothing_only_looked_whether_anybody_listens(launcher):
    launcher.ours.close()
    with pytest.raises(EOFError):
        launcher.receiver.receive()


@pytest.mark.parametrize("size", [1, 3, 4, 20])
def test_a_launcher_that_goes_away_halfway_is_a_protocol_error(launcher, size):
    socket.send_fds(launcher.ours, [message(payload(words()))[:size]], [0, 1, 2])
    assert launcher.receiver.receive() is None
    launcher.ours.close()
    with pytest.raises(ProtocolError, match="went away"):
        launcher.receiver.receive()


@pytest.mark.parametrize("size", [4 * 1024 * 1024 + 1, 2**32 - 1])
def test_a_huge_length_is_a_protocol_error_at_once(launcher, size):
    socket.send_fds(launcher.ours, [size.to_bytes(4, "big")], [0, 1, 2])
    with pytest.raises(ProtocolError, match=f"{size} bytes"):
        launcher.receiver.receive()


@pytest.mark.parametrize("descriptors", [[], [0], [0, 1]])
def test_a_launch_without_all_of_its_stdio_is_a_protocol_error(launcher, descriptors):
    socket.send_fds(launcher.ours, [message(payload(words()))], descriptors)
    with pytest.raises(ProtocolError, match="without stdio"):
        launcher.receiver.receive()

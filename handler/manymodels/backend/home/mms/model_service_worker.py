"""The launcher: what the frontend executes, once a model, in place of MMS's Python worker.

It hands its arguments, environment and stdio to the host, waits for one byte that says the
host has them, and becomes a placeholder: ``cat`` on the host's connection, which ends when
the host closes it, and whose own end closes it. The frontend takes this process for the
model's server.

Interpreter start-up is most of a load's latency, so only built-in modules are imported unless
something is out of the ordinary; nothing of manymodels is (``serve`` runs this without ``site``).
"""

from __future__ import annotations

import _socket
import posix
import sys

HOST_VARIABLE = b"MANYMODELS_HOST"
READY = b"MMS worker started.\n"
STDIO = b"".join(descriptor.to_bytes(4, sys.byteorder) for descriptor in range(3))
RIGHTS = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, STDIO)


def main() -> None:
    try:
        connection = hand_over(posix.environ.get(HOST_VARIABLE) or start_host_once())
        taken = connection.recv(1) == b"\x01"
    except OSError as error:
        answer_that_nothing_runs(f"the host cannot be reached: {error}")
        return
    if taken:
        become_placeholder(connection)
    else:
        answer_that_nothing_runs("the host ended before it took the model; its log says why")


def hand_over(address: bytes | str) -> _socket.socket:
    """Send the host all that makes this launch: fields that end in NUL, length first."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(address)
    fields = [str(len(sys.argv) - 1).encode()]
    fields += [encode(argument) for argument in sys.argv[1:]]
    fields += [name + b"=" + value for name, value in posix.environ.items()]
    payload = b"\0".join(fields)
    message = len(payload).to_bytes(4, "big") + payload
    sent = connection.sendmsg([message], [RIGHTS])
    if sent < len(message):
        connection.sendall(message[sent:])
    return connection


def encode(argument: str) -> bytes:
    return argument.encode(sys.getfilesystemencoding(), "surrogateescape")


def become_placeholder(connection: _socket.socket) -> None:
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(connection.fileno(), 0)
    posix.dup2(null, 1)
    posix.dup2(null, 2)
    for directory in ("/bin/", "/usr/bin/"):
        try:
            posix.execve(directory + "cat", ["cat"], {})
        except OSError:
            continue
    while connection.recv(4096):
        pass


def start_host_once() -> str:
    """Return the address of this frontend's host, which the first launch starts."""
    import fcntl

    frontend = posix.getppid()
    tmp = argument_of("--tmp-dir", "/tmp")
    directory = f"{tmp}/.manymodels-{posix.getuid()}-{frontend}"
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        if posix.stat(directory).st_uid != posix.getuid():
            raise PermissionError(f"{directory} belongs to someone else") from None
    address = directory + "/host"
    lock = posix.open(directory, posix.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.connect(address)
    except OSError:
        start_host(address, frontend)
    finally:
        probe.close()
        posix.close(lock)
    return address


def start_host(address: str, frontend: int) -> None:
    try:  # noqa: SIM105 (contextlib would be one more import)
        posix.unlink(address)
    except FileNotFoundError:
        pass
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(128)
    # Twice, so that the host is nobody's child: this process will not wait for it.
    child = posix.fork()
    if child:
        posix.waitpid(child, 0)
        return
    posix.setsid()
    if posix.fork():
        posix._exit(0)
    # The frontend's own stderr: its pipes to this process end with the model.
    for target, source, flags in (
        (0, "/dev/null", posix.O_RDONLY),
        (1, f"/proc/{frontend}/fd/2", posix.O_WRONLY | posix.O_APPEND),
    ):
        try:
            posix.dup2(posix.open(source, flags), target)
        except OSError:
            posix.dup2(posix.open("/dev/null", posix.O_RDWR), target)
    posix.dup2(1, 2)
    # Not the model's directory: its modules are no business of the host.
    posix.chdir(__file__.rpartition("/mms/")[0])
    posix.set_inheritable(listener.fileno(), True)
    arguments = ["-m", "manymodels.backend.host", "--listener", str(listener.fileno())]
    arguments += ["--frontend", str(frontend), "--directory", address.rpartition("/")[0]]
    try:
        posix.execve(sys.executable, [sys.executable, *arguments], environment_of(frontend))
    finally:
        posix._exit(127)


def environment_of(frontend: int) -> dict[bytes, bytes]:
    """The environment the container gave the frontend, before it put the model's paths in."""
    try:
        descriptor = posix.open(f"/proc/{frontend}/environ", posix.O_RDONLY)
    except OSError:
        return {k: v for k, v in posix.environ.items() if k != b"PYTHONPATH"}
    raw = b""
    while chunk := posix.read(descriptor, 65536):
        raw += chunk
    return dict(entry.split(b"=", 1) for entry in raw.split(b"\0") if b"=" in entry)


def argument_of(option: str, default: str = "") -> str:
    position = sys.argv.index(option) + 1 if option in sys.argv else len(sys.argv)
    return sys.argv[position] if position < len(sys.argv) else default


def answer_that_nothing_runs(reason: str) -> None:
    """Report the failure in the load reply.

    An end without a word costs the frontend a minute and leaves the model registered; so does
    a reply while this process lives. So its child replies once the frontend has seen it end,
    which is when the frontend closes this process's stdin.
    """
    posix.write(2, f"manymodels: {reason}\n".encode())
    name = argument_of("--sock-name")
    if name:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        listener.bind(name)
    else:
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", int(argument_of("--port"))))
    listener.listen(1)
    posix.write(1, READY)
    descriptor, _ = listener._accept()  # type: ignore[attr-defined]
    if posix.fork():
        posix._exit(1)
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, 1)
    posix.dup2(null, 2)
    while posix.read(0, 4096):
        pass
    message = (reason + " [PID]:0").encode()
    reply = (500).to_bytes(4, "big") + len(message).to_bytes(4, "big") + message + b"\xff" * 4
    posix.write(descriptor, reply)
    while posix.read(descriptor, 4096):
        pass
    if name:
        posix.unlink(name)


if __name__ == "__main__":
    main()

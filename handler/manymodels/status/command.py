"""``manymodels status``: finds a running server, asks it, and shows what it answers.

The host listens on a Unix stream socket in the server's directory. Whoever connects gets one
snapshot as JSON, and then the end.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from manymodels.errors import ManyModelsError
from manymodels.status.observing import observe
from manymodels.status.snapshot import Snapshot
from manymodels.status.table import table

SOCKET_NAME = "status"
ANSWER_SECONDS = 10.0
_PROBE_SECONDS = 2.0
_AGAIN_SECONDS = 0.01
_MOST_BYTES = 1 << 28
_NARROWEST, _WIDTH_OF_FILES = 100, 120
_DIRECTORY = re.compile(r"manymodels-(\d+)-.+")


class NoStatus(ManyModelsError):
    """No server answers, or it is not clear which is meant."""


def run(port: int | None, as_json: bool, directory: Path | None) -> str:
    """Return what ``manymodels status`` prints, without the last newline.

    Args:
        port: the server's, if several run.
        as_json: everything, in place of the table.
        directory: the TMPDIR of the server, if it is not that of this process.

    Raises:
        ManyModelsError: no server, several of them, or one that does not answer.
    """
    path = find(port, directory or Path(tempfile.gettempdir()))
    observed = observe(ask(path, ANSWER_SECONDS))
    if as_json:
        return observed.to_json(indent=2)
    columns, _ = shutil.get_terminal_size((_WIDTH_OF_FILES, 0))
    return table(observed, time.time(), max(columns, _NARROWEST))


def ask(path: Path, timeout: float) -> Snapshot:
    """Ask the server that listens on a socket.

    Args:
        timeout: seconds for all of it.

    Raises:
        NoStatus: nobody listens, or the answer does not come in time, or ends too early.
        BadSnapshot: the answer is something else.
    """
    until = time.monotonic() + timeout
    try:
        with _connect(path, timeout) as connection:
            answer = b"".join(_received(connection, until))
    except TimeoutError:
        raise NoStatus(f"{path}: no answer within {timeout:g} s") from None
    except OSError as error:
        raise NoStatus(f"{path}: {error.strerror or error}") from None
    if not answer:
        raise NoStatus(f"{path}: closed without an answer")
    return Snapshot.from_json(answer)


def _connect(path: Path, timeout: float) -> socket.socket:
    until = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(str(path))
            return connection
        except BlockingIOError:  # more ask at once than it has room for
            connection.close()
            if time.monotonic() > until:
                raise TimeoutError from None
            time.sleep(_AGAIN_SECONDS)
        except BaseException:
            connection.close()
            raise


def _received(connection: socket.socket, until: float) -> Iterator[bytes]:
    rest = _MOST_BYTES
    while rest > 0:
        seconds = until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        connection.settimeout(seconds)
        data = connection.recv(1 << 18)
        if not data:
            return
        rest -= len(data)
        yield data
    raise OSError(f"more than {_MOST_BYTES} bytes")


def find(port: int | None, directory: Path) -> Path:
    """Find the socket of a running server.

    Args:
        port: the server's; any if None.
        directory: where servers make theirs, ``manymodels-PORT-*``: their TMPDIR.

    Raises:
        NoStatus: there is none, or there are several.
    """
    known = [(p, path) for p, path in _sockets(directory) if port is None or p == port]
    refused = False
    running = []
    for one, path in known:
        try:
            if _listened_to(path):
                running.append((one, path))
        except PermissionError:
            refused = True
    if len(running) == 1:
        return running[0][1]
    if not running:
        which = "" if port is None else f" on port {port}"
        raise NoStatus(f"no server is running{which} in {directory}{_hint(refused)}")
    ports = sorted({one for one, _ in running})
    if len(ports) > 1:
        listed = ", ".join(map(str, ports))
        raise NoStatus(f"several servers are running; choose one by its port: {listed}")
    paths = ", ".join(sorted(str(path.parent) for _, path in running))
    raise NoStatus(f"several servers are running on port {ports[0]}: {paths}")


def _hint(refused: bool) -> str:
    if refused:
        return ", but one that this user may not ask"
    return "; one with another TMPDIR is found with --directory"


def _sockets(directory: Path) -> Iterator[tuple[int, Path]]:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise NoStatus(f"{directory}: {error.strerror}") from None
    for entry in entries:
        if match := _DIRECTORY.fullmatch(entry.name):
            yield int(match[1]), entry / SOCKET_NAME


def _listened_to(path: Path) -> bool:
    """Whether a server is there; PermissionError where this user may not know."""
    try:
        _connect(path, _PROBE_SECONDS).close()
    except PermissionError:
        raise
    except TimeoutError:  # it is, and has much to do
        return True
    except OSError:
        return False
    return True

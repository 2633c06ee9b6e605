"""The process that the frontend started for a model, as the host holds it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket


class Placeholder:
    """A launcher that has become ``cat`` on ``connection``: either end takes the other along.

    ``stdio`` are the launcher's pipes: the frontend reads stdout and stderr, and closes stdin
    once it knows that the process has ended.
    """

    def __init__(self, connection: socket.socket, pid: int, stdio: list[int]) -> None:
        self._connection: socket.socket | None = connection
        self._pid = pid
        self._stdio = dict(enumerate(stdio))

    @property
    def alive(self) -> bool:
        return self._connection is not None

    @property
    def descriptor(self) -> int:
        """The connection's descriptor, -1 when the placeholder has ended."""
        return -1 if self._connection is None else self._connection.fileno()

    @property
    def stdin(self) -> int | None:
        return self._stdio.get(0)

    @property
    def output(self) -> tuple[int, int]:
        """The pipes on which the frontend reads the model's stdout and stderr."""
        return self._stdio[1], self._stdio[2]

    def announce_ready(self) -> None:
        """Tell the frontend that the backend listens, and the launcher that it may settle."""
        assert self._connection is not None
        os.write(self._stdio[1], f"[PID] {self._pid}\nMMS worker started.\n".encode())
        self._connection.send(b"\x01")

    def end(self) -> None:
        """End the process, if it has not ended."""
        if self._connection is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._connection.close()
            self._connection = None

    def close_output(self) -> None:
        """Let the frontend's two threads go that read the launcher's stdout and stderr."""
        for number in (1, 2):
            if number in self._stdio:
                os.close(self._stdio.pop(number))

    def close_stdin(self) -> None:
        if 0 in self._stdio:
            os.close(self._stdio.pop(0))

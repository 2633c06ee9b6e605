"""One of the frontend's workers, as the host holds it: a connection, and who serves it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass, field

from manymodels.backend.slots import Slot
from manymodels.wire import Load, RequestDecoder


@dataclass(eq=False)
class Process:
    """A model process: a fork of the zygote, or of a sibling (then its pid comes later)."""

    connection: Connection
    slot: Slot
    control: socket.socket
    pid: int | None = None
    refusing: bool = False
    """Whether it loads nothing, and only says why."""
    loaded: bool = False
    failed: str | None = None

    def kill(self) -> None:
        """End the process and all that it started."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


@dataclass(eq=False)
class Connection:
    """One of the frontend's workers: a connection, and the process that serves it."""

    socket: socket.socket
    decoder: RequestDecoder = field(default_factory=RequestDecoder)
    load: Load | None = None
    process: Process | None = None
    open: bool = True
    deaths: int = 0
    """Processes in a row that ended before they had loaded the model."""


def describe_exit(status: int) -> str:
    """Say how a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"

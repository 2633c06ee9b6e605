"""One of the frontend's workers, as the host holds it: a connection, and who serves it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field

from manymodels.backend.guard import Reservation
from manymodels.backend.slots import Slot
from manymodels.status.tally import Tally
from manymodels.wire import Load, RequestDecoder


@dataclass(eq=False)
class Process:
    """A model process: a fork of the zygote, or of a sibling (then its pid comes later)."""

    connection: Connection
    slot: Slot
    control: socket.socket
    pid: int | None = None
    reply: bool = False
    """Whether the frontend waits for it to answer a load, where it is a sibling's fork."""
    refusing: bool = False
    """Whether it loads nothing, and only says why."""
    loaded: bool = False
    recycled: bool = False
    """Whether it has come to a limit of its own, and ends so that another takes its place."""
    failed: str | None = None
    reservation: Reservation | None = None
    """The memory that it is expected to take, while it loads."""

    def kill(self) -> None:
        """End the process and all that it started."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def release(self) -> None:
        """It is not loading any more. A second time does nothing."""
        if self.reservation is not None:
            self.reservation.release()
            self.reservation = None


@dataclass
class History:
    """What a model has been through.

    ``launched`` is a monotonic clock's, ``loaded_at`` seconds since 1970.
    """

    launched: float = field(default_factory=time.monotonic)
    loaded_at: float | None = None
    load_ms: float | None = None
    restarts: int = 0
    past: Tally = field(default_factory=Tally)
    """What processes counted that have ended."""

    def add(self, tally: Tally) -> None:
        self.past += tally

    def note_loaded(self) -> None:
        """The first of its processes has loaded it."""
        if self.loaded_at is None:
            self.loaded_at = time.time()
            self.load_ms = 1000 * (time.monotonic() - self.launched)


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

    def has_ended(self) -> bool:
        """Whether the frontend has closed it, and sent nothing before that."""
        if not self.open:
            return True
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True


def describe_exit(status: int) -> str:
    """Say how a process ended, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was ended by signal {number} ({signal.Signals(number).name})"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"

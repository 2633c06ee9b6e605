"""How a load that failed is answered, so that nothing of its model stays in the frontend.

Left alone, the frontend's thread that takes a failed load's reply answers the client first, then
takes the model off its list, and while it does that it interrupts itself and another thread. If
the process that was started for the model still runs, the first interrupt leaves the model on the
list; if that has ended, the second one hits a thread that may already have another model's load,
which then hangs for a minute. So the thread is held up, by a file that it opens before it acts on a
reply, until a DELETE by another thread has taken the model off the list in the regular way. Then it
goes on, finds nothing to clean up, and answers.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import threading
from urllib.parse import quote

_TIMEOUT_SECONDS = 10.0


class HeldFile:
    """A file that whoever opens it waits for, until it is released: it is on a lease.

    The kernel makes an opener wait while another process has a write lease on the file, for up to
    /proc/sys/fs/lease-break-time (45 s).
    """

    def __init__(self, path: str) -> None:
        """Put such a file in the place of whatever is at a path.

        Raises:
            OSError: there can be none here.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            # Nobody is to be sent a signal when somebody comes.
            fcntl.fcntl(self._descriptor, fcntl.F_SETOWN, 0)
        except OSError:
            self.release()
            raise

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for it."""
        return fcntl.fcntl(self._descriptor, fcntl.F_GETLEASE) != fcntl.F_WRLCK

    def release(self) -> None:
        """Let whoever waits go on. A second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Unregistering:
    """A DELETE of a model, under way in a thread of its own."""

    def __init__(self, port: int, name: str) -> None:
        """Send it to the frontend on a port of this machine."""
        self._thread = threading.Thread(target=_delete, args=(port, name), daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it was answered, or cannot be."""
        return not self._thread.is_alive()


def _delete(port: int, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("DELETE", f"/models/{quote(name, safe='')}")
        connection.getresponse().read()
    connection.close()

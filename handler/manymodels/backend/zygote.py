"""The zygote: imports and warms up once what models need, and forks a process a model.

It does nothing else, for two reasons. It must have one thread for ever, as a fork carries only
one. And every page it writes after a fork becomes a private page of that fork, so it touches as
little as it can; the host does all the rest.
"""

from __future__ import annotations

# First of all: what is imported below registers hooks.
from manymodels.backend import fork_hooks, home

fork_hooks.defer()

import argparse
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from manymodels.backend import linux, output, process
from manymodels.backend.host import end_frontend
from manymodels.backend.preload import StartsThreads, preload
from manymodels.backend.process import Assignment, ModelProcess, Surroundings
from manymodels.backend.slots import SlotTable
from manymodels.settings import BackendSettings

_PACKET_BYTES = 1 << 18
_DESCRIPTOR_BYTES = socket.CMSG_SPACE(4 * 4)
logger = logging.getLogger("manymodels.zygote")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the host hands the zygote by its command line."""

    forks: int
    exits: int
    slots: int
    frontend: int | None


class Zygote:
    """The loop: a packet on ``forks`` is a process; one that ends is a packet on ``exits``."""

    def __init__(self, wiring: Wiring, settings: BackendSettings) -> None:
        self._forks = socket.socket(fileno=wiring.forks)
        self._exits = socket.socket(fileno=wiring.exits)
        self._frontend = wiring.frontend
        self._surroundings = Surroundings(
            [entry for entry in sys.path if entry not in ("", str(home()))],
            os.getpid(),
            SlotTable(wiring.slots),
            settings,
        )
        self._wake, self._wake_writer = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_writer.setblocking(False)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._poller = select.poll()
        self._poller.register(self._forks, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)

    def run(self) -> None:
        """Fork until the host says stop, or is gone."""
        self._exits.send(b"ready")
        try:
            self._loop()
        finally:
            # Models end after this, and their signals find the socket closed.
            signal.set_wakeup_fd(-1)

    def _loop(self) -> None:
        wake = self._wake.fileno()
        while True:
            for descriptor, _ in self._poller.poll():
                if descriptor == wake:
                    self._wake.recv(4096)
                    self._reap()
                    continue
                packet, ancillary, _, _ = self._forks.recvmsg(
                    _PACKET_BYTES, _DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC
                )
                if not ancillary:
                    self._end(packet)
                    return
                self._forks.send(self._fork(packet, ancillary[0][2]))

    def _fork(self, packet: bytes, rights: bytes) -> bytes:
        """Return the new process's pid, or why there is none."""
        descriptors = memoryview(rights).cast("i").tolist()
        threads = linux.thread_count()
        if threads != 1:
            answer = b"threads: %d" % threads
        else:
            try:
                pid = os.fork()
            except OSError as error:
                answer = (error.strerror or "fork failed").encode()
            else:
                if pid == 0:
                    self._become_model(packet, descriptors)
                answer = b"%d" % pid
        for descriptor in descriptors:
            os.close(descriptor)
        return answer

    def _become_model(self, packet: bytes, descriptors: Sequence[int]) -> None:
        """Turn this fork into a model process. Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            for ours in (self._forks, self._exits, self._wake, self._wake_writer):
                ours.close()
            connection, control, out, err = descriptors
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            process.run(
                ModelProcess(
                    Assignment.from_packet(packet),
                    self._surroundings,
                    socket.socket(fileno=connection),
                    socket.socket(fileno=control),
                )
            )
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._exits.send(b"%d %d" % (pid, status))

    def _end(self, packet: bytes) -> None:
        """The models end with this process."""
        if packet != b"stop":
            logger.error("the host is gone")
            if self._frontend is not None:
                end_frontend(self._frontend)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the zygote until the host ends it."""
    wiring = _parse(arguments)
    settings = BackendSettings.from_environment(os.environ)
    if wiring.frontend is not None:
        settings = replace(settings, log=replace(settings.log, metrics=True))
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    output.configure(settings.log, leveled=wiring.frontend is None)
    faulthandler.enable()
    linux.name_process("manymodels-zygote")
    linux.adopt_orphans()
    gc.disable()
    _preload(settings)
    Zygote(wiring, settings).run()


def _parse(arguments: Sequence[str] | None) -> Wiring:
    parser = argparse.ArgumentParser(prog="manymodels.backend.zygote")
    for name in ("forks", "exits", "slots", "frontend"):
        parser.add_argument(f"--{name}", type=int, required=name != "frontend")
    return Wiring(**vars(parser.parse_args(arguments)))


def _preload(settings: BackendSettings) -> None:
    """Import what settings name; a library that starts threads has this process start anew."""
    started = time.monotonic()
    try:
        imported = preload(settings.preload, safe=settings.safe)
    except StartsThreads as error:
        logger.warning("%s starts threads; models that need it import it themselves", error)
        remaining = [name for name in settings.preload if name != error.library]
        environment = {**os.environ, "MANYMODELS_PRELOAD": ",".join(remaining) or "none"}
        command = [sys.executable, "-m", "manymodels.backend.zygote", *sys.argv[1:]]
        os.execve(sys.executable, command, environment)
    seconds = time.monotonic() - started
    logger.debug("preloaded %s in %.2f s", ", ".join(imported) or "nothing", seconds)


if __name__ == "__main__":
    main()

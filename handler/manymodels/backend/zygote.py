"""The zygote: imports and warms up once what models need, and forks a process a model.

``python -m manymodels.backend.zygote`` is started by ``serve``, or by the first launcher where
the frontend runs without it. It has one thread for ever (a fork carries only one), takes launches
on a listening socket, and is the parent of every model process.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import heapq
import itertools
import logging
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from manymodels.backend import channel, linux, output, process
from manymodels.backend.hosting import Connection, Model, Process
from manymodels.backend.launch import LaunchReceiver
from manymodels.backend.preload import StartsThreads, preload
from manymodels.backend.process import Assignment, ModelProcess, Surroundings
from manymodels.backend.slots import Slot, SlotTable
from manymodels.errors import ManyModelsError
from manymodels.settings import BackendSettings

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
_HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_FRONTEND_POLL_SECONDS = 2.0
logger = logging.getLogger("manymodels.zygote")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the zygote's parent hands it by its command line; None where there is no ``serve``."""

    listener: int
    slots: int | None
    serve: int | None
    frontend: int | None
    directory: str | None


class Zygote:
    """The event loop. Callbacks run one at a time; one that raises is logged, not fatal."""

    def __init__(self, wiring: Wiring, settings: BackendSettings) -> None:
        self._listener = socket.socket(fileno=wiring.listener)
        self._serve = None if wiring.serve is None else socket.socket(fileno=wiring.serve)
        self._slots = SlotTable(wiring.slots)
        self._settings = settings
        self._base_path = [entry for entry in sys.path if entry]
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._models: set[Model] = set()
        self._processes: dict[int, tuple[Model, Process]] = {}
        self._unknown_exits: dict[int, int] = {}
        self._highest_descriptor = wiring.listener
        self._running = True
        self.watch(wiring.listener, self._accept)
        self._watch_signals()
        if wiring.frontend is not None:
            self._watch_frontend(wiring.frontend)

    def run(self) -> None:
        """Serve until told to stop, then end every model."""
        if self._serve is not None:
            channel.send(self._serve, {"event": "ready"})
        while self._running:
            self._run_once()
        for model in list(self._models):
            model.end()
        for pid in list(self._processes):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _run_once(self) -> None:
        timeout = -1.0
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for descriptor, _ in self._epoll.poll(timeout):
            callback = self._callbacks.get(descriptor)
            if callback is not None:
                self._guard(callback)
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._guard(heapq.heappop(self._timers)[2])

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            logger.exception("an event could not be handled")

    # -- what models need of the loop (hosting.Loop) -------------------------------------

    def watch(self, descriptor: int, callback: Callable[[], None], read: bool = True) -> None:
        self._epoll.register(descriptor, select.EPOLLIN | _HANG_UP if read else _HANG_UP)
        self._callbacks[descriptor] = callback
        self._highest_descriptor = max(self._highest_descriptor, descriptor)

    def unwatch(self, descriptor: int) -> None:
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def acquire_slot(self) -> Slot:
        return self._slots.acquire()

    def release_slot(self, slot: Slot) -> None:
        self._slots.release(slot)

    def forget(self, model: Model) -> None:
        self._models.discard(model)

    def announce(self, event: str, model: Model, **details: str | int) -> None:
        if self._serve is not None:
            channel.send(self._serve, {"event": event, "model": model.name, **details})

    def adopt(self, adopted: Process) -> None:
        pid = adopted.pid
        assert pid is not None
        model = next(m for m in self._models if adopted.connection in m.connections)
        self._processes[pid] = model, adopted
        if pid in self._unknown_exits:
            self._bury(pid, self._unknown_exits.pop(pid))

    def fork(self, model: Model, connection: Connection, assignment: Assignment) -> Process:
        threads = linux.thread_count()
        if threads != 1:
            raise RuntimeError(f"the zygote has {threads} threads; it must not fork")
        slot = self._slots.acquire()
        ours, theirs = channel.pair()
        ours.setblocking(False)
        try:
            pid = os.fork()
        except OSError:
            self._slots.release(slot)
            raise
        if pid == 0:
            self._become_model(model, connection, assignment, theirs, slot)
        theirs.close()
        forked = Process(connection, slot, ours, pid)
        self._processes[pid] = model, forked
        model.watch_control(forked)
        if self._serve is not None:
            model.close_output()
        return forked

    # -- in the child --------------------------------------------------------------------

    def _become_model(
        self,
        model: Model,
        connection: Connection,
        assignment: Assignment,
        control: socket.socket,
        slot: Slot,
    ) -> None:
        """Turn this fork into a model process. Never returns."""
        try:
            zygote = os.getppid()
            process.reset_signals()
            self._redirect(model)
            kept = [connection.socket, control]
            log = self._serve
            kept += [log] if log is not None else []
            process.keep_only([s.fileno() for s in kept], self._highest_descriptor + 64)
            connection.socket.setblocking(True)
            environment = dict(model.launch.environment)
            around = Surroundings(
                environment, self._base_path, zygote, self._slots, self._settings, log
            )
            process.run(ModelProcess(assignment, around, connection.socket, control, slot))
        finally:
            os._exit(1)

    def _redirect(self, model: Model) -> None:
        """Read nothing, and write where the frontend reads, until ``serve`` takes the output."""
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        if model.output is not None and self._serve is None:
            os.dup2(model.output[0], 1)
            os.dup2(model.output[1], 2)

    # -- events --------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        receiver = LaunchReceiver(connection)
        self.watch(connection.fileno(), lambda: self._receive_launch(receiver))

    def _receive_launch(self, receiver: LaunchReceiver) -> None:
        connection = receiver.connection
        model: Model | None = None
        try:
            launch = receiver.receive()
            if launch is None:
                return
            self.unwatch(connection.fileno())
            model = Model(self, launch, connection, receiver.pid, receiver.stdio)
            self._models.add(model)
            model.announce_ready()
        except (ManyModelsError, OSError) as error:
            logger.error("a launch failed: %s", error)
            if model is not None:
                model.end()
            else:
                self._refuse_launch(receiver)

    def _refuse_launch(self, receiver: LaunchReceiver) -> None:
        """Close all that the launcher sent; it then answers the frontend itself."""
        self.unwatch(receiver.connection.fileno())
        receiver.connection.close()
        for descriptor in receiver.stdio:
            os.close(descriptor)

    def _watch_signals(self) -> None:
        """Wake the loop on signals; their handlers do nothing but be there."""
        self._wake, writer = socket.socketpair()
        self._wake.setblocking(False)
        writer.setblocking(False)
        self._wake_writer = writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.watch(self._wake.fileno(), self._take_signals)

    def _take_signals(self) -> None:
        if signal.SIGTERM in self._wake.recv(4096):
            self._running = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._bury(pid, status)

    def _bury(self, pid: int, status: int) -> None:
        known = self._processes.pop(pid, None)
        if known is not None:
            model, ended = known
            self._guard(lambda: model.process_ended(ended, status))
            return
        # An orphan that a model left, or a sibling's fork that has not reported yet.
        self._unknown_exits[pid] = status
        while len(self._unknown_exits) > 64:
            self._unknown_exits.pop(next(iter(self._unknown_exits)))

    def _watch_frontend(self, pid: int) -> None:
        """End with the frontend, where nobody else sees to it."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._running = False
        except OSError:  # before Linux 5.3
            self._poll_frontend(pid)
        else:
            self.watch(descriptor, self._stop)

    def _poll_frontend(self, pid: int) -> None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self._running = False
        self.call_later(_FRONTEND_POLL_SECONDS, lambda: self._poll_frontend(pid))

    def _stop(self) -> None:
        self._running = False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the zygote until its frontend, or SIGTERM, ends it."""
    wiring = _parse(arguments)
    settings = BackendSettings.from_environment(os.environ)
    if wiring.serve is None:
        settings = replace(settings, log=replace(settings.log, metrics=True))
        _guard_frontend(wiring)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    output.configure(settings.log, direct=wiring.serve is not None)
    faulthandler.enable()
    linux.name_process("manymodels")
    linux.adopt_orphans()
    _raise_descriptor_limit()
    gc.disable()
    settings = _preload(settings)
    zygote = Zygote(wiring, settings)
    try:
        zygote.run()
    finally:
        if wiring.directory is not None:
            shutil.rmtree(wiring.directory, ignore_errors=True)


def _parse(arguments: Sequence[str] | None) -> Wiring:
    parser = argparse.ArgumentParser(prog="manymodels.backend.zygote")
    for name in ("listener", "slots", "serve", "frontend"):
        parser.add_argument(f"--{name}", type=int, required=name == "listener")
    parser.add_argument("--directory")
    return Wiring(**vars(parser.parse_args(arguments)))


def _preload(settings: BackendSettings) -> BackendSettings:
    """Import what settings name; a library that starts threads has this process start anew.

    The variables hold native thread pools to the one thread there is.
    """
    if any(os.environ.get(name) != "1" for name in THREAD_VARIABLES):
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        started = time.monotonic()
        imported = preload(settings.preload)
    except StartsThreads as error:
        logger.warning("%s starts threads; models that need it import it themselves", error)
        remaining = [name for name in settings.preload if name != error.library]
        os.environ["MANYMODELS_PRELOAD"] = ",".join(remaining) or "none"
        arguments = [sys.executable, "-m", "manymodels.backend.zygote", *sys.argv[1:]]
        os.execve(sys.executable, arguments, os.environ)
    seconds = time.monotonic() - started
    logger.debug("preloaded %s in %.2f s", ", ".join(imported) or "nothing", seconds)
    return settings


def _guard_frontend(wiring: Wiring) -> None:
    """Without ``serve``: leave a process behind that ends the frontend if the zygote dies.

    Its models die with it, and the frontend would answer ping with 200 and requests not at all.
    """
    zygote = os.fork()
    if zygote == 0:
        linux.die_with_parent(os.getppid())
        return
    linux.name_process("manymodels-keep")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(zygote, signal.SIGTERM))
    os.close(wiring.listener)
    _, status = os.waitpid(zygote, 0)
    if status != 0 and wiring.frontend is not None:
        print(
            f"manymodels: the zygote ended (wait status {status}); ending the frontend",
            file=sys.stderr,
            flush=True,
        )
        with contextlib.suppress(ProcessLookupError):
            os.kill(wiring.frontend, signal.SIGTERM)
        if wiring.directory is not None:
            shutil.rmtree(wiring.directory, ignore_errors=True)
    os._exit(0)


def _raise_descriptor_limit() -> None:
    """A model takes about seven descriptors here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()

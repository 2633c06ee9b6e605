"""The host: the parent of everything behind the frontend but the model processes themselves.

``python -m manymodels.backend.host`` is started by ``serve``, or by the first launcher where the
frontend runs without it. It takes launches on a listening socket, keeps each model's connections,
and has the zygote, which it starts, fork their processes. It stays out of the zygote because
every page that a process writes after a fork becomes a private page of the fork.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import heapq
import itertools
import logging
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from manymodels.backend import channel, linux, output
from manymodels.backend.guard import Reservation
from manymodels.backend.hosting import Model
from manymodels.backend.launch import LaunchReceiver
from manymodels.backend.ledger import Ledger
from manymodels.backend.placeholder import Placeholder
from manymodels.backend.process import Assignment
from manymodels.backend.slots import Slot, SlotTable
from manymodels.backend.workers import Connection, Process
from manymodels.errors import ManyModelsError, ServeError
from manymodels.settings import BackendSettings
from manymodels.status.command import SOCKET_NAME, ask
from manymodels.status.observing import MemoryObserver
from manymodels.status.snapshot import Snapshot
from manymodels.storage import Watchdog

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    # pyarrow, which pandas imports where it is installed, has an allocator with a thread.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MXNET_ENGINE_TYPE": "NaiveEngine",
}
"""Hold native libraries to the one thread that the zygote may have."""
_HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_FRONTEND_POLL_SECONDS = 2.0
STATUS_SECONDS = 5.0
"""How long who asks for the status may take to listen."""
logger = logging.getLogger("manymodels.host")


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the host's parent hands it by its command line; None where there is no ``serve``."""

    listener: int
    slots: int | None
    serve: int | None
    frontend: int | None
    port: int | None
    directory: str | None


class ZygoteHandle:
    """The host's end of the zygote."""

    def __init__(self, wiring: Wiring, slots: SlotTable) -> None:
        self._forks, forks = channel.pair()
        self.exits, exits = channel.pair()
        descriptors = {
            "forks": forks.fileno(),
            "exits": exits.fileno(),
            "slots": slots.descriptor,
        }
        words = [word for name, fd in descriptors.items() for word in (f"--{name}", str(fd))]
        if wiring.frontend is not None:
            words += ["--frontend", str(wiring.frontend)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "manymodels.backend.zygote", *words],
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(descriptors.values()),
            env={**os.environ, **ONE_THREAD},
        )
        forks.close()
        exits.close()

    def fork(self, assignment: Assignment, descriptors: Sequence[int]) -> int:
        """Have a model process made with these descriptors; return its pid.

        Raises:
            OSError: the zygote is gone, or the system has no room for a process.
            RuntimeError: the zygote has more than one thread.
        """
        socket.send_fds(self._forks, [assignment.packet()], list(descriptors))
        answer = self._forks.recv(4096).decode()
        if answer.isdigit():
            return int(answer)
        if answer.startswith("threads"):
            raise RuntimeError(f"the zygote has several {answer}; it must not fork")
        raise OSError(answer or "the zygote is gone")

    def stop(self) -> None:
        """End the zygote, and with it what is left of the models."""
        with contextlib.suppress(OSError):
            self._forks.send(b"stop")
        self._process.wait()

    def kill(self) -> None:
        """End the zygote at once, whatever it does."""
        self._process.kill()
        self._process.wait()

    def obituary(self) -> str:
        """Say how the zygote ended."""
        code = self._process.wait()
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        return f"the zygote, pid {self._process.pid}, {how}"


class Host:
    """The event loop. Callbacks run one at a time; one that raises is logged, not fatal."""

    def __init__(self, wiring: Wiring, settings: BackendSettings) -> None:
        self._wiring = wiring
        self._settings = settings
        self._listener = socket.socket(fileno=wiring.listener)
        self._serve = None if wiring.serve is None else socket.socket(fileno=wiring.serve)
        self.has_serve = wiring.serve is not None
        self._slots = SlotTable(wiring.slots)
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._models: set[Model] = set()
        self._processes: dict[int, tuple[Model, Process]] = {}
        self._unknown_exits: dict[int, int] = {}
        self._running = True
        self._fatal: str | None = None
        self._zygote = ZygoteHandle(wiring, self._slots)
        self._watchdog = Watchdog(settings.storage)
        port = wiring.port
        self._ledger = Ledger(settings, port, os.getppid() if port else wiring.frontend or 1)
        self._listen_for_status()
        self.watch(wiring.listener, self._accept)
        self.watch(self._zygote.exits.fileno(), self._hear_zygote)
        self._watch_signals()
        if wiring.frontend is not None:
            self._watch_frontend(wiring.frontend)

    def run(self) -> int:
        """Serve until told to stop (0) or until the zygote dies (1); then end every model.

        Also 1: the metrics cannot be shown where settings say.
        """
        try:
            self._show_metrics()
        except ServeError as error:
            self._fatal, self._running = str(error), False
        else:
            self._start_watchdog()
        while self._running:
            self._run_once()
        for model in list(self._models):
            model.end()
        if self._fatal is None:
            self._zygote.stop()
            return 0
        self._zygote.kill()
        if self._serve is None:
            logger.error("%s", self._fatal)
        self._tell_serve("fatal", reason=self._fatal)
        if self._wiring.frontend is not None:
            end_frontend(self._wiring.frontend)
        return 1

    def _start_watchdog(self) -> None:
        # It may be killed at any moment, so nobody waits for its end.
        threading.Thread(target=self._watchdog.run, args=(threading.Event(),), daemon=True).start()

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
        self._ledger.note_end(model)

    def admit(self, model: Model) -> Reservation:
        return self._ledger.admit(model, self._models)

    def some_are_ending(self) -> bool:
        return any(not process.connection.open for _, process in self._processes.values())

    def note_refused(self) -> None:
        self._ledger.refused += 1

    def note_loaded(self, model: Model, process: Process) -> None:
        self._ledger.note_loaded(model, process)

    def note_death(self, model: Model, process: Process, status: int) -> str:
        return self._ledger.note_death(model, process, status)

    def log(self, level: int, message: str, model: Model) -> None:
        if self._serve is None:
            logger.log(level, "%s", message)
        else:
            self._tell_serve("line", level=level, message=message, model=model.name)

    def announce(self, event: str, model: Model, **details: str | int) -> None:
        if event == "failed":
            self._ledger.note_failure(int(details["status"]))
        self._tell_serve(event, model=model.name, **details)

    def adopt(self, adopted: Process) -> None:
        pid = adopted.pid
        assert pid is not None
        model = next(m for m in self._models if adopted.connection in m.connections)
        self._processes[pid] = model, adopted
        if pid in self._unknown_exits:
            self._bury(pid, self._unknown_exits.pop(pid))

    def fork(self, model: Model, connection: Connection, assignment: Assignment) -> Process:
        ours, theirs = channel.pair()
        ours.setblocking(False)
        out, err = self._output(model)
        try:
            descriptors = [connection.socket.fileno(), theirs.fileno(), out, err]
            pid = self._zygote.fork(assignment, descriptors)
        finally:
            theirs.close()
            if self._serve is not None:
                os.close(out)
        forked = Process(connection, self._slots[assignment.slot], ours, pid)
        self._processes[pid] = model, forked
        model.watch_control(forked)
        return forked

    def _output(self, model: Model) -> tuple[int, int]:
        """Where a model process writes: to ``serve``, or where the frontend reads."""
        if self._serve is None:
            return model.placeholder.output
        model.placeholder.close_output()
        reader, writer = os.pipe()
        channel.send(self._serve, {"event": "log", "model": model.name}, [reader])
        os.close(reader)
        return writer, writer

    def _tell_serve(self, event: str, **details: str | int) -> None:
        if self._serve is not None:
            with contextlib.suppress(OSError):
                channel.send(self._serve, {"event": event, **details})

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
            placeholder = Placeholder(connection, receiver.pid, receiver.stdio)
            model = Model(self, launch, placeholder)
            self._models.add(model)
            placeholder.announce_ready()
        except EOFError:
            self._refuse_launch(receiver)
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

    def _listen_for_status(self) -> None:
        """Answer whoever connects with a snapshot, on a socket beside the one for launches."""
        self._status = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        directory = os.path.dirname(self._listener.getsockname())
        self._status.bind(os.path.join(directory, SOCKET_NAME))
        self._status.listen(16)
        self._status.setblocking(False)
        self.watch(self._status.fileno(), self._answer_status)

    def _answer_status(self) -> None:
        with contextlib.suppress(BlockingIOError):
            connection, _ = self._status.accept()
            answer = self._ledger.snapshot(self._models, self._watchdog.watch).to_json().encode()
            # Whoever asks may be slow to listen.
            threading.Thread(target=_send, args=(connection, answer), daemon=True).start()

    def _show_metrics(self) -> None:
        """Serve or write metrics, in threads, where settings say so."""
        settings = self._settings.metrics
        if settings.port is None and settings.file is None:
            return
        # Takes a library that nobody else needs.
        from manymodels.status import metrics

        observer = MemoryObserver()

        def source() -> Snapshot:
            asked = ask(Path(self._status.getsockname()), STATUS_SECONDS)
            return observer.observe(asked, time.monotonic())

        if settings.port is not None:
            if settings.port == self._wiring.port:
                raise ServeError(f"no metrics on port {settings.port}: it is the server's own")
            metrics.serve_metrics(settings.port, source)
        if settings.file is not None:
            metrics.keep_writing(settings.file, source)

    def _hear_zygote(self) -> None:
        packet = self._zygote.exits.recv(4096)
        if packet == b"ready":
            self._tell_serve("ready")
        elif packet:
            pid, status = packet.split()
            self._bury(int(pid), int(status))
        else:
            self._fatal = self._zygote.obituary()
            self._running = False

    def _bury(self, pid: int, status: int) -> None:
        known = self._processes.pop(pid, None)
        self._ledger.note_change()
        if known is not None:
            model, ended = known
            self._guard(lambda: model.process_ended(ended, status))
            return
        # An orphan that a model left, or a sibling's fork that has not reported yet.
        self._unknown_exits[pid] = status
        while len(self._unknown_exits) > 64:
            self._unknown_exits.pop(next(iter(self._unknown_exits)))

    def _watch_signals(self) -> None:
        """Wake the loop on SIGTERM; its handler does nothing but be there."""
        wake, writer = socket.socketpair()
        writer.setblocking(False)
        self._wake = wake, writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.watch(wake.fileno(), self._stop)

    def _watch_frontend(self, pid: int) -> None:
        """End with the frontend, where nobody else sees to it."""
        try:
            self._frontend = os.pidfd_open(pid)
        except ProcessLookupError:
            self._running = False
        except OSError:  # before Linux 5.3
            self._poll_frontend(pid)
        else:
            self.watch(self._frontend, self._stop)

    def _poll_frontend(self, pid: int) -> None:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self._running = False
        self.call_later(_FRONTEND_POLL_SECONDS, lambda: self._poll_frontend(pid))

    def _stop(self) -> None:
        self._running = False


def _send(connection: socket.socket, answer: bytes) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(STATUS_SECONDS)
        connection.sendall(answer)


def end_frontend(pid: int) -> None:
    """End a frontend whose models are gone: it would answer ping with 200, requests not at all."""
    print("manymodels: the backend is gone; ending the frontend", file=sys.stderr, flush=True)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the host until its frontend, or SIGTERM, ends it."""
    wiring = _parse(arguments)
    settings = BackendSettings.from_environment(os.environ)
    output.configure(settings.log, leveled=wiring.serve is not None)
    faulthandler.enable()
    linux.name_process("manymodels-host")
    _raise_descriptor_limit()
    try:
        sys.exit(Host(wiring, settings).run())
    finally:
        if wiring.directory is not None:
            shutil.rmtree(wiring.directory, ignore_errors=True)


def _parse(arguments: Sequence[str] | None) -> Wiring:
    parser = argparse.ArgumentParser(prog="manymodels.backend.host")
    for name in ("listener", "slots", "serve", "frontend", "port"):
        parser.add_argument(f"--{name}", type=int, required=name == "listener")
    parser.add_argument("--directory")
    return Wiring(**vars(parser.parse_args(arguments)))


def _raise_descriptor_limit() -> None:
    """A model takes about seven descriptors here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()

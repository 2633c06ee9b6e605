"""One model as the host sees it: its placeholder, its connections, its processes.

The frontend trusts its backend more than it should (it never replaces one, and takes a failed
one for loaded), so this is where its flaws end: a process that dies is replaced on the same
connection, its request answered; a load that fails takes the placeholder with it first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol

from manymodels.backend import channel
from manymodels.backend.demand import Demand
from manymodels.backend.guard import Reservation
from manymodels.backend.inference import refusal
from manymodels.backend.launch import Launch
from manymodels.backend.placeholder import Placeholder
from manymodels.backend.process import Assignment
from manymodels.backend.slots import Slot, State
from manymodels.backend.workers import Connection, History, Process
from manymodels.errors import OutOfMemory, ProtocolError
from manymodels.wire import (
    Load,
    Predict,
    Request,
    encode_load_reply,
    encode_reply,
)

FAREWELL_SECONDS = 5.0
"""How long the frontend has to notice that a placeholder ended, and to hang up after that."""
GRACE_SECONDS = 0.25
"""Between the frontend's hanging up and its killing the placeholder, or the other way round."""
SETTLE_SECONDS = 0.05
"""How soon the next request comes, where requests follow each other."""
MOST_DELAY_SECONDS = 30.0
ROOM_SECONDS = 1.0
"""How long a load waits for the memory of processes that are ending."""
RETRY_SECONDS = 0.005


class Loop(Protocol):
    """What a model needs of the host's event loop.

    ``has_serve`` says whether the frontend was started by ``serve``, which reads its log.
    """

    has_serve: bool

    def watch(self, descriptor: int, callback: Callable[[], None], read: bool = True) -> None:
        """Call back when there is something to read, or else when the other end hangs up."""

    def unwatch(self, descriptor: int) -> None: ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def fork(self, model: Model, connection: Connection, assignment: Assignment) -> Process:
        """Start a process for a connection; OSError or RuntimeError when none can be."""

    def adopt(self, process: Process) -> None:
        """Take on a process that a sibling has forked."""

    def acquire_slot(self) -> Slot: ...

    def release_slot(self, slot: Slot) -> None: ...

    def forget(self, model: Model) -> None: ...

    def admit(self, model: Model) -> Reservation:
        """Reserve memory for a process that is to load a model; OutOfMemory if there is none."""

    def some_are_ending(self) -> bool:
        """Whether processes have been told to end and are still there."""

    def note_refused(self) -> None:
        """A load is refused for lack of memory."""

    def note_loaded(self, model: Model, process: Process) -> None:
        """A process has loaded its model: what it took tells of the next load."""

    def note_death(self, model: Model, process: Process, status: int) -> str:
        """A process has ended by itself or was killed; return how."""

    def log(self, level: int, message: str, model: Model) -> None:
        """Write a line of log under the model's name."""

    def announce(self, event: str, model: Model, **details: str | int) -> None: ...


class Model:
    """A launched model, until nothing of it is left."""

    def __init__(self, loop: Loop, launch: Launch, placeholder: Placeholder) -> None:
        self.loop = loop
        self.launch = launch
        self.placeholder = placeholder
        self.loaded = False
        self.history = History()
        self.demand: Demand | None = None
        """What its last load was expected to need."""
        self._room_by: float | None = None
        self.connections: list[Connection] = []
        self._failure: tuple[int, str] | None = None
        self._ended = False
        self._listener = _listen(launch)
        loop.watch(self._listener.fileno(), self._accept)
        loop.watch(placeholder.descriptor, self._placeholder_ended)

    @property
    def name(self) -> str:
        return self.launch.model_name

    @property
    def processes(self) -> list[Process]:
        """Those that serve its connections."""
        return [c.process for c in self.connections if c.process is not None]

    @property
    def has_answered(self) -> bool:
        """Whether it has had a request."""
        return bool(self.history.past.requests) or any(
            process.slot.tally().requests for process in self.processes
        )

    def _log(self, level: int, message: str) -> None:
        self.loop.log(level, f"model {self.name}{message}", self)

    # -- connections ---------------------------------------------------------------------

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        connection = Connection(accepted)
        self.connections.append(connection)
        self.loop.watch(accepted.fileno(), lambda: self._read_load(connection))

    def _read_load(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16, socket.MSG_DONTWAIT)
            connection.decoder.feed(data)
            message = connection.decoder.next_message()
        except (ProtocolError, OSError) as error:
            self._log(logging.ERROR, f": the frontend's load cannot be read: {error}")
            self._hang_up(connection)
            return
        if isinstance(message, Load):
            connection.load = message
            self.loop.unwatch(connection.socket.fileno())
            self.loop.watch(
                connection.socket.fileno(), lambda: self._frontend_hung_up(connection), read=False
            )
            self._make_output_files(message)
            self._start(connection, reply=True)
        elif isinstance(message, Predict) or not data:
            self._hang_up(connection)

    def _make_output_files(self, load: Load) -> None:
        """Give the frontend the two files it opens after a load: nothing comes on them.

        The model's output takes another way, so two of the frontend's threads end at once.
        """
        for path in self._output_files(load):
            with contextlib.suppress(FileExistsError):
                os.symlink(os.devnull, path)

    def _output_files(self, load: Load) -> list[str]:
        return [f"{self.launch.tmp_dir}/{load.io_fd}-{kind}" for kind in ("stdout", "stderr")]

    def _frontend_hung_up(self, connection: Connection) -> None:
        """Its worker gave up waiting, or the model is being unloaded."""
        self._hang_up(connection)
        process = connection.process
        if process is None:
            return
        if process.slot.state is State.IDLE:
            # It sees the end of the connection itself.
            self.loop.call_later(GRACE_SECONDS, process.kill)
        else:
            process.kill()

    def _hang_up(self, connection: Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        self.loop.unwatch(connection.socket.fileno())
        # A process that still has it keeps it open for the frontend otherwise.
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.socket.close()
        if connection.load is not None:
            for path in self._output_files(connection.load):
                _remove(path)
        self.connections.remove(connection)
        self._end_if_done()

    # -- processes -----------------------------------------------------------------------

    def _start(
        self, connection: Connection, reply: bool, refuse: str | None = None, anew: bool = False
    ) -> None:
        """Give a connection a process: forked from one that has the model, or from the zygote.

        With ``anew`` it is from the zygote: what one process has heaped up, its sibling may have.
        """
        if not connection.open or self._failure is not None:
            return
        assert connection.load is not None
        sibling = self._sibling() if refuse is None and not anew else None
        if sibling is not None:
            self._share(sibling, connection, reply)
            return
        self._fork(connection, connection.load, reply, refuse)

    def _fork(
        self, connection: Connection, load: Load, reply: bool, refuse: str | None = None
    ) -> None:
        environment, first = self.launch.environment, not self.loaded
        slot: Slot | None = None
        reservation: Reservation | None = None
        try:
            if refuse is None:
                reservation = self.loop.admit(self)
            slot = self.loop.acquire_slot()
            assignment = Assignment(load, environment, slot.index, first, reply, refuse)
            connection.process = self.loop.fork(self, connection, assignment)
            connection.process.refusing = refuse is not None
            connection.process.reservation = reservation
            if reservation is not None:
                reservation.pid = connection.process.pid
        except OutOfMemory as error:
            self._no_memory(connection, load, reply, error.message)
        except (OSError, RuntimeError) as error:
            if reservation is not None:
                reservation.release()
            if slot is not None:
                self.loop.release_slot(slot)
            self._log(logging.ERROR, f": no process can be started: {error}")
            status = 507 if isinstance(error, OSError) else 500
            self._no_process(connection, status, f"no process can be started: {error}")

    def _no_memory(self, connection: Connection, load: Load, reply: bool, reason: str) -> None:
        """Refuse a load; what was loaded before says so to each request, until there is memory."""
        now = time.monotonic()
        self._room_by = self._room_by or now + ROOM_SECONDS
        if self.loop.some_are_ending() and now < self._room_by:
            # What was unloaded a moment ago has not quite given back its memory.
            self.loop.call_later(RETRY_SECONDS, lambda: self._start(connection, reply))
            return
        self._room_by = None
        if not self.loaded:
            self.loop.note_refused()
            self._fail(507, reason)
            return
        if connection.deaths == 0:  # the tries that follow each other say it once
            self._log(logging.ERROR, f": its process is not replaced yet: {reason}")
        connection.deaths += 1
        self._fork(connection, load, reply, refuse=reason)

    def _no_process(self, connection: Connection, status: int, reason: str) -> None:
        if not self.loaded:
            self._fail(status, reason)
        else:
            self._hang_up(connection)

    def _sibling(self) -> Process | None:
        """A process that has the model, or will have it, and is free to fork."""
        for connection in self.connections:
            process = connection.process
            if process is None or process.pid is None or process.failed is not None:
                continue
            if process.slot.state in (State.LOADING, State.IDLE):
                return process
        return None

    def _share(self, sibling: Process, connection: Connection, reply: bool) -> None:
        ours, theirs = channel.pair()
        ours.setblocking(False)
        process = Process(connection, self.loop.acquire_slot(), ours, reply=reply)
        connection.process = process
        order = {"slot": process.slot.index, "reply": reply}
        try:
            channel.send(sibling.control, order, [connection.socket.fileno(), theirs.fileno()])
        except OSError:  # it has ended, and is not buried yet
            self._discard(process)
            assert connection.load is not None
            self._fork(connection, connection.load, reply)
        else:
            self.watch_control(process)
        finally:
            theirs.close()

    def watch_control(self, process: Process) -> None:
        """Hear what a process reports."""
        self.loop.watch(process.control.fileno(), lambda: self._hear(process))

    def _hear(self, process: Process) -> None:
        if not self._take_report(process):
            self.loop.unwatch(process.control.fileno())
            if process.pid is None:
                self._never_forked(process)

    def _take_report(self, process: Process) -> bool:
        """Take one report of a process; false if there is none."""
        try:
            received = channel.receive(process.control)
        except OSError:
            received = None
        if received is None:
            return False
        report, _ = received
        connection = process.connection
        if report["event"] == "forked":
            process.pid = report["pid"]
            self.loop.adopt(process)
        elif report["event"] == "loaded":
            process.loaded = self.loaded = True
            connection.deaths = 0
            self.loop.note_loaded(self, process)
            self.loop.announce("loaded", self)
        elif report["event"] == "recycled":
            process.recycled = True
            self._log(logging.INFO, f": its process {process.pid} is replaced: {report['reason']}")
        elif report["event"] == "declined":
            self._declined(report["slot"])
        elif report["event"] == "failed":
            process.failed = report["reason"]
            connection.deaths += 1
            if not self.loaded:
                self._fail(report["status"], report["reason"])
        return True

    def _declined(self, slot: int) -> None:
        """A sibling cannot fork; its connection gets a process from the zygote."""
        for connection in self.connections:
            process = connection.process
            if process is not None and process.slot.index == slot and process.pid is None:
                self._discard(process)
                assert connection.load is not None
                self._fork(connection, connection.load, process.reply)

    def _never_forked(self, process: Process) -> None:
        """The sibling that was to fork this one is gone."""
        if process.connection.process is process:
            self._discard(process)
            self._start(process.connection, process.reply)

    def _discard(self, process: Process) -> None:
        self.loop.unwatch(process.control.fileno())
        process.control.close()
        self.history.add(process.slot.tally())
        process.release()
        self.loop.release_slot(process.slot)
        if process.connection.process is process:
            process.connection.process = None

    def process_ended(self, process: Process, status: int) -> None:
        """Answer for a process that has ended, and replace it."""
        while self._take_report(process):
            pass
        connection, state, ids = process.connection, process.slot.state, process.slot.request_ids
        if connection.has_ended():
            # The process saw that before this one did.
            self._hang_up(connection)
        how = self.loop.note_death(self, process, status)
        self._discard(process)
        process.kill()  # what it started is in its process group
        if not connection.open:
            self._end_if_done()
            return
        if process.failed is None and not process.recycled and not process.refusing:
            self._log(logging.WARNING, f": its process {process.pid} {how}")
        if not self.loaded:
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self._fail(507 if killed else 500, process.failed or f"its process {how} while loading")
            return
        self.history.restarts += not process.refusing
        self._replace(connection, process, state, ids, how)

    def _replace(
        self, connection: Connection, process: Process, state: State, ids: list[str], how: str
    ) -> None:
        if state is State.LOADING:
            self._load_died(connection, process, how)
        elif state is State.IDLE:
            self._start(connection, reply=False, anew=process.recycled)
        elif state is State.PREDICTING and ids:
            self._answer_for_the_dead(connection, ids, how)
            self._start(connection, reply=False)
        elif state is State.REPLYING:
            self.loop.call_later(SETTLE_SECONDS, lambda: self._settle_reply(connection))
        else:
            # Part of a message is lost with it: only a new connection starts clean.
            self._hang_up(connection)

    def _settle_reply(self, connection: Connection) -> None:
        """Find out whether the reply arrived that a process died in: if so, requests follow."""
        if not connection.open:
            return
        try:
            connection.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._hang_up(connection)
        else:
            self._start(connection, reply=False)

    def _load_died(self, connection: Connection, process: Process, how: str) -> None:
        """Try again, ever more slowly; meanwhile another process says why nothing answers."""
        connection.deaths += 1
        if connection.deaths == 1:
            self._start(connection, reply=False)
            return
        delay = min(2.0 ** min(connection.deaths - 2, 10), MOST_DELAY_SECONDS)
        if process.refusing:  # not even that could live
            self.loop.call_later(delay, lambda: self._start(connection, reply=False))
            return
        self._start(connection, reply=False, refuse=f"its process {how} while loading")
        if connection.process is not None:
            self.loop.call_later(delay, connection.process.kill)

    def _answer_for_the_dead(self, connection: Connection, ids: list[str], how: str) -> None:
        requests = [Request(request_id, [], []) for request_id in ids]
        reason = f"the model's process {how} during this request; it is being replaced"
        predictions = refusal(requests, 500, "ModelProcessDied", reason)
        try:
            connection.socket.sendall(encode_reply(predictions))
        except OSError:
            self._hang_up(connection)

    # -- the end -------------------------------------------------------------------------

    def _fail(self, status: int, reason: str) -> None:
        """End the model because it cannot be loaded, so that nothing of it stays registered.

        The frontend has two threads a model: one waits for the process that it started, one for
        the reply. The second unregisters a model whose load fails, and interrupts the first. If
        that has ended by then, its thread may already have another model's load, which then hangs
        for a minute. So the process stays until the frontend itself ends it.
        """
        if self._failure is not None:
            return
        self._failure = status, reason
        self._log(logging.ERROR, f" failed to load ({status}): {reason}")
        self.loop.announce("failed", self, status=status, reason=reason, port=self.launch.number)
        self.placeholder.close_output()
        self.loop.call_later(FAREWELL_SECONDS, self.end)
        if status != 507:
            # No reply at all counts as a failed load, too, with 500.
            for connection in list(self.connections):
                self._hang_up(connection)
        elif self.loop.has_serve or self.placeholder.stdin is None:
            self._reply_failure()
        else:
            self._end_placeholder()
            self.loop.watch(self.placeholder.stdin, self._placeholder_buried, read=False)

    def _placeholder_buried(self) -> None:
        """The frontend has closed the stdin of the process that it started, knowing its end."""
        self._close_stdin()
        self._reply_failure()

    def _reply_failure(self) -> None:
        """Say 507, the one status that needs a reply.

        Having had one, the frontend's thread interrupts itself, and so leaves the model on its list
        if the process still runs. ``serve`` takes it off; where there is none the process has to
        be ended first, at the risk above.
        """
        assert self._failure is not None
        for connection in list(self.connections):
            try:
                connection.socket.sendall(encode_load_reply(*self._failure, 0))
            except OSError:
                self._hang_up(connection)

    def _close_stdin(self) -> None:
        if self.placeholder.stdin is not None:
            self.loop.unwatch(self.placeholder.stdin)
            self.placeholder.close_stdin()

    def _end_placeholder(self) -> None:
        if self.placeholder.alive:
            self.loop.unwatch(self.placeholder.descriptor)
            self.placeholder.end()

    def _placeholder_ended(self) -> None:
        """The frontend unloads the model, or someone else has killed the placeholder."""
        self._end_placeholder()
        if self.connections:
            self.loop.call_later(GRACE_SECONDS, self._outlive_placeholder)
        else:
            self._end_if_done()

    def _outlive_placeholder(self) -> None:
        """The frontend still has its connections, so it has not unloaded the model.

        The processes end with their placeholder, as they always do; new ones take over.
        """
        if self._ended or not self.connections or self._failure is not None:
            return
        self._log(logging.WARNING, ": its placeholder was killed; it is loaded again")
        for connection in self.connections:
            if connection.process is not None:
                connection.process.kill()

    def _end_if_done(self) -> None:
        if not self.placeholder.alive and not self.connections:
            self.end()

    def end(self) -> None:
        """End everything that is left of the model."""
        if self._ended:
            return
        self._ended = True
        self._end_placeholder()
        self.loop.unwatch(self._listener.fileno())
        self._listener.close()
        if self.launch.socket_name is not None:
            _remove(self.launch.socket_name)
        for connection in list(self.connections):
            if connection.process is not None:
                connection.process.kill()
            self._hang_up(connection)
        self.placeholder.close_output()
        self._close_stdin()
        self.loop.forget(self)


def _listen(launch: Launch) -> socket.socket:
    if launch.socket_name is not None:
        _remove(launch.socket_name)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(launch.socket_name)
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", launch.port or 0))
    listener.listen(128)
    return listener


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)

"""A model process: what a fork of the zygote becomes.

It sheds what it inherited, takes on its model's directory, environment and path, loads the model
and serves the frontend's connection until that ends. What must be a process's own (cwd, path,
stdio, limits) is set up here once; the loop below is written for any number of connections.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import random
import resource
import select
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manymodels.backend import channel, fork_hooks, handlers, linux, output, process_memory
from manymodels.backend.inference import Inference, refusal
from manymodels.backend.slots import Slot, SlotTable, State
from manymodels.errors import (
    DirectoryGone,
    DirectoryInUse,
    ManyModelsError,
    OutOfMemory,
    ProtocolError,
)
from manymodels.settings import DEFAULT_HANDLER, MIB, BackendSettings, Environment
from manymodels.storage import Holding, hold
from manymodels.wire import (
    Load,
    Predict,
    Prediction,
    RequestDecoder,
    encode_load_reply,
    encode_reply,
)

LEASE_SECONDS = 5.0
"""How long a load waits for a directory that is being filled or removed."""
WEIGH_SECONDS = 1.0
"""How often a process looks at its memory, where that has a limit: 2 ms each time."""
WEIGH_PART = 1 / 8
"""By how much of that limit it may have grown since: then it looks at once."""
REFUSAL_SECONDS = 5.0
"""How long a process whose model could not be loaded again answers before a new one tries."""
_RECEIVE_BYTES = 1 << 18
logger = logging.getLogger("manymodels.model")


@dataclass(frozen=True)
class Assignment:
    """What the zygote gives a model process.

    ``first`` is the load that decides whether the model is there at all: the zygote answers it
    when it fails. ``reply`` is false for a replacement on a connection whose load was answered.
    ``refuse`` holds the reason why nothing is loaded, only answered.
    """

    load: Load
    environment: dict[str, str]
    slot: int
    first: bool
    reply: bool
    refuse: str | None = None

    def packet(self) -> bytes:
        """Return the bytes that carry it to the zygote's fork."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields).encode()

    @classmethod
    def from_packet(cls, packet: bytes) -> Assignment:
        fields = json.loads(packet)
        return cls(**{**fields, "load": Load(*fields["load"])})


@dataclass(frozen=True)
class Surroundings:
    """What all model processes have from the zygote."""

    base_path: list[str]
    zygote: int
    slots: SlotTable
    settings: BackendSettings


class EndOfConnection(Exception):
    """The frontend has closed the connection."""


@dataclass
class Session:
    """One connection of the frontend, and how far its bytes have come."""

    connection: socket.socket
    slot: Slot
    decoder: RequestDecoder
    answer: Callable[[Predict], list[Prediction]]

    def serve_readable(self) -> int:
        """Take the batch that has come and answer it; return how many requests it had."""
        self.slot.state = State.READING
        while (message := self.decoder.next_message()) is None:
            data = self.connection.recv(_RECEIVE_BYTES)
            if not data:
                raise EndOfConnection
            self.decoder.feed(data)
        if not isinstance(message, Predict):
            raise ProtocolError("a second load on one connection")
        self.slot.take(request.request_id for request in message.requests)
        began = time.perf_counter()
        predictions = self.answer(message)
        seconds = time.perf_counter() - began
        self.slot.count([prediction.status for prediction in predictions], seconds, time.time())
        self.slot.state = State.REPLYING
        self.connection.sendall(encode_reply(predictions))
        self.slot.state = State.IDLE
        return len(predictions)


class ModelProcess:
    """The life of a model process, from the fork to its end."""

    def __init__(
        self,
        assignment: Assignment,
        surroundings: Surroundings,
        connection: socket.socket,
        control: socket.socket,
    ) -> None:
        self._assignment = assignment
        self._surroundings = surroundings
        self._connection = connection
        self._control = control
        self._slot = surroundings.slots[assignment.slot]
        self._inference: Inference | None = None
        self._holding: Holding | None = None
        self._until = float("inf")
        self._answered = 0
        self._weigh_at = self._weigh_above = float("-inf")

    def run(self) -> None:
        """Load and serve; returns when the process has nothing left to do."""
        os.setsid()
        linux.die_with_parent(self._surroundings.zygote)
        linux.name_process(self._assignment.load.model_name)
        linux.go_first_when_memory_is_short()
        gc.enable()
        if self._load():
            self._serve()

    def _settle(self) -> None:
        """Take on what is the model's: environment, directory, path, randomness, threads."""
        around, load = self._surroundings, self._assignment.load
        environment, threads = self._assignment.environment, around.settings.threads
        self._lease(LEASE_SECONDS)
        os.chdir(load.model_path)
        if around.settings.safe:
            environment = _safe_environment(environment, load.model_path)
        _take_on_environment(environment, threads)
        inherited = environment.get("PYTHONPATH", "")
        sys.path[:] = handlers.search_path(
            load.handler,
            load.model_path,
            inherited,
            around.base_path,
            safe=around.settings.safe,
        )
        sys.argv[:] = [load.handler]
        fork_hooks.restore()
        _reseed()
        _limit_threads(threads)

    def _lease(self, seconds: float) -> None:
        """Hold the model's directory, for as long as this process lives."""
        root = self._surroundings.settings.storage.root
        self._holding = hold(Path(self._assignment.load.model_path), root, seconds)
        self._holding.note_use()

    def _load(self) -> bool:
        """Load the model and report; returns whether there is anything to serve."""
        if self._assignment.refuse is not None:
            with contextlib.suppress(ManyModelsError):
                self._lease(0.0)
            self._refuse_for_a_while()
            return True
        try:
            self._settle()
            handler = handlers.load(self._assignment.load, self._handlers())
        except BaseException as error:
            return self._load_failed(error)
        settings = self._surroundings.settings
        environment = Environment(self._assignment.environment)
        decode = environment.text("MMS_DECODE_INPUT_REQUEST") in (None, "true")
        self._inference = Inference(handler, decode, settings.response_bytes)
        self._slot.state = State.IDLE
        if self._assignment.reply:
            self._reply(200, f"loaded model {self._assignment.load.model_name}.")
        self._report(event="loaded")
        return True

    def _handlers(self) -> tuple[str, ...] | None:
        """The handlers that may be run: any, but in safe mode ours and the operator's."""
        settings = self._surroundings.settings
        return tuple({DEFAULT_HANDLER: 0, settings.handler: 0}) if settings.safe else None

    def _load_failed(self, error: BaseException) -> bool:
        name = self._assignment.load.model_name
        short = isinstance(error, MemoryError | OutOfMemory | DirectoryInUse | DirectoryGone)
        status = 507 if short else 500
        reason = "".join(traceback.format_exception_only(error)).strip()
        # Of these the host's line says it all.
        if not isinstance(error, handlers.HandlerRefused | DirectoryInUse | DirectoryGone):
            logger.error("model %s failed to load", name, exc_info=error)
        output.flush()
        self._report(event="failed", status=status, reason=reason)
        if self._assignment.first:
            return False
        if self._assignment.reply:
            self._reply(status, reason)
        self._assignment = replace(self._assignment, refuse=reason)
        self._refuse_for_a_while()
        return True

    def _refuse_for_a_while(self) -> None:
        self._until = time.monotonic() + REFUSAL_SECONDS
        self._slot.state = State.IDLE

    def _reply(self, code: int, message: str) -> None:
        self._connection.sendall(encode_load_reply(code, message, os.getpid()))

    def _report(self, **event: Any) -> None:
        channel.send(self._control, event)

    def _serve(self) -> None:
        sessions = {self._connection.fileno(): self._session(self._connection, self._slot)}
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        poller.register(self._control, select.POLLIN)
        control = self._control.fileno()
        while (rest := self._until - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(None if rest == float("inf") else rest * 1000):
                if descriptor != control:
                    requests = sessions[descriptor].serve_readable()
                    self._emit_metrics()
                    if (reason := self._spent(requests)) is not None:
                        self._report(event="recycled", reason=reason)
                        return
                elif not self._obey():
                    return

    def _session(self, connection: socket.socket, slot: Slot) -> Session:
        return Session(connection, slot, RequestDecoder(), self._answer)

    def _answer(self, message: Predict) -> list[Prediction]:
        if self._holding is not None:
            self._holding.note_use()
        if self._inference is None:
            reason = f"the model could not be loaded again: {self._assignment.refuse}"
            return refusal(message.requests, 503, "ModelLoadError", reason)
        return self._inference.predict(message.requests)

    def _spent(self, requests: int) -> str | None:
        """Why another process should take over, now that a batch of requests is answered."""
        if self._inference is None:
            # It only says why there is no model, and has a time of its own to do so.
            return None
        guard = self._surroundings.settings.guard
        first = self._answered == 0
        self._answered += requests
        if guard.model_requests is not None and self._answered >= guard.model_requests:
            return f"it has answered {self._answered} requests"
        if guard.model_bytes is None:
            return None
        now, peak = time.monotonic(), _peak()
        if now < self._weigh_at and peak < self._weigh_above:
            return None
        self._weigh_at = now + WEIGH_SECONDS
        self._weigh_above = peak + WEIGH_PART * guard.model_bytes
        taken = process_memory.of(os.getpid()).private
        if taken <= guard.model_bytes:
            return None
        sizes = f"{taken / MIB:.0f} MiB of memory, more than {guard.model_bytes / MIB:.0f} MiB"
        if first:
            # Its successor would, too: that would be a load a request.
            self._weigh_at = self._weigh_above = float("inf")
            logger.warning("the first request already leaves it with %s", sizes)
            return None
        return f"it has {sizes}"

    def _emit_metrics(self) -> None:
        """Print the handler's metrics where the frontend reads them."""
        if self._inference is None or not self._surroundings.settings.log.metrics:
            return
        for metric in self._inference.context.metrics.store:
            print(f"[METRICS]{metric}", flush=True)

    def _obey(self) -> bool:
        """Do what the zygote asks: share the loaded model with one more connection."""
        received = channel.receive(self._control)
        if received is None:
            return False
        order, (connection, control) = received
        if linux.thread_count() > 1 or self._inference is None:
            # A fork would carry one of the threads; the zygote starts a process of its own.
            self._report(event="declined", slot=order["slot"])
        elif self._forks_sibling():
            self._become(order, connection, control)
            return True
        os.close(connection)
        os.close(control)
        return True

    def _forks_sibling(self) -> bool:
        """Fork twice, so that the zygote is the parent; true in the new process."""
        output.flush()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return False
        if os.fork():
            os._exit(0)
        return True

    def _become(self, order: dict[str, Any], connection: int, control: int) -> None:
        """Go on as the process of another connection."""
        while os.getppid() != self._surroundings.zygote:
            time.sleep(0.0002)
        os.setsid()
        linux.die_with_parent(self._surroundings.zygote)
        self._connection.close()
        self._control.close()
        self._connection = socket.socket(fileno=connection)
        self._connection.setblocking(True)
        self._control = socket.socket(fileno=control)
        self._slot = self._surroundings.slots[order["slot"]]
        self._slot.state = State.IDLE
        self._report(event="forked", pid=os.getpid())
        if order["reply"]:
            self._reply(200, f"loaded model {self._assignment.load.model_name}.")
        self._report(event="loaded")
        self._serve()
        end(0)


def run(process: ModelProcess) -> None:
    """Run a model process to its end. Never returns."""
    try:
        process.run()
    except EndOfConnection:
        end(0)
    except (ProtocolError, OSError):
        logger.exception("the connection to the frontend is lost")
        end(1)
    except BaseException:
        logger.exception("the model process ends")
        end(1)
    end(0)


def end(status: int) -> None:
    """End without running what the zygote set up for its own end."""
    output.flush()
    os._exit(status)


def _take_on_environment(environment: dict[str, str], threads: int) -> None:
    """Make os.environ the model's. Most of it is the zygote's already, so only that changes."""
    wanted = {**environment, "OMP_NUM_THREADS": str(threads)}
    for name in os.environ.keys() - wanted.keys():
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _safe_environment(environment: dict[str, str], model_path: str) -> dict[str, str]:
    """Keep the model's directory off the path of Python processes that this one starts."""
    inherited = environment.get("PYTHONPATH", "").split(os.pathsep)
    kept = os.pathsep.join(handlers.outside(inherited, model_path))
    return {**environment, "PYTHONPATH": kept, "PYTHONSAFEPATH": "1"}


def _peak() -> int:
    """Return the most bytes that this process had resident, shared ones too: in a microsecond."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _reseed() -> None:
    """Forks share the zygote's random state."""
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Four bytes go the short way; no seed at all would build a SeedSequence in each process.
        numpy.random.seed(int.from_bytes(os.urandom(4), "little"))


def _limit_threads(threads: int) -> None:
    if threads > 1:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)

"""``serve``: starts the host and the JVM, and is their keeper until both have ended.

Being the container's first process, it also reaps whatever is left to it and turns SIGTERM into
an orderly end: requests in flight are answered, then everything stops.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from manymodels.backend import cgroup, channel, home, linux
from manymodels.backend.slots import SlotTable
from manymodels.errors import ServeError
from manymodels.frontend import configuration
from manymodels.frontend.ghosts import Ghosts
from manymodels.frontend.java import find_jar, find_java
from manymodels.frontend.logs import Log, Source
from manymodels.settings import BackendSettings, ServeSettings

DRAIN_SECONDS = 18.0
"""The longest wait for requests in flight; SageMaker kills 30 s after SIGTERM."""
QUIET_SECONDS = 0.3
"""How long no model may be busy for a drain to be over: queued requests follow each other."""
STOP_SECONDS = 3.0
_LONGEST_SOCKET_PATH = 107
_TICK_SECONDS = 0.05


class Supervisor:
    """The running server: two processes, their pipes, and the loop over them."""

    def __init__(self, settings: ServeSettings, environment: dict[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._log = Log(settings.log)
        self._ghosts = Ghosts(settings.port, self._log.write)
        self._selector = selectors.DefaultSelector()
        self._slots = SlotTable()
        self._children: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
        self._sources: set[Source] = set()
        self._failure: str | None = None
        self._stopping = False
        self._awaited = {"ready"} if settings.multi_model else {"ready", "loaded"}

    def run(self) -> int:
        """Serve until SIGTERM (0) or until a part dies (1)."""
        started = time.monotonic()
        settings = self._settings
        java, jar = find_java(settings.java_home), find_jar()
        self._check()
        directory = _make_directory(settings.port)
        try:
            self._watch_signals()
            resources = configuration.Resources(cgroup.memory_bytes(), cgroup.processors())
            configuration.write_files(settings, directory)
            self._start_host(directory)
            command = configuration.command(settings, resources, java, jar, directory)
            self._start_frontend(command, directory)
            self._loop_until_ready(started)
            self._loop_until(lambda: self._stopping)
            if self._failure is None:
                self._drain()
            self._stop()
        finally:
            self._kill()
            shutil.rmtree(directory, ignore_errors=True)
        if self._failure is not None:
            self._log.error(f"serve ends: {self._failure}")
            return 1
        self._log.info("serve has stopped")
        return 0

    def _check(self) -> None:
        """Find out now what would otherwise end a start halfway.

        Raises:
            ServeError: the port is taken, or there is no model to serve.
        """
        settings = self._settings
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", settings.port))
            except OSError as error:
                raise ServeError(f"port {settings.port} cannot be had: {error.strerror}") from None
        if settings.multi_model:
            return
        if not settings.model_dir.is_dir():
            raise ServeError(
                f"no model to serve: {settings.model_dir} is no directory (SM_MODEL_DIR); "
                "set SAGEMAKER_MULTI_MODEL=true to have models loaded by POST /models"
            )
        if "," in str(settings.model_dir) or ".." in settings.model_dir.parts:
            raise ServeError(
                f"the frontend takes no model path with ',' or '..': {settings.model_dir}"
            )

    # -- the two processes ---------------------------------------------------------------

    def _start_host(self, directory: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = str(directory / "host")
        listener.bind(address)
        listener.listen(128)
        self._environment["MANYMODELS_HOST"] = address
        ours, theirs = channel.pair()
        self._watch(ours.fileno(), lambda: self._hear(ours))
        descriptors = {
            "listener": listener.fileno(),
            "slots": self._slots.descriptor,
            "serve": theirs.fileno(),
        }
        numbers = {**descriptors, "port": self._settings.port}
        options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
        command = [sys.executable, "-m", "manymodels.backend.host", *options]
        environment = {
            **self._environment,
            "MMS_MAX_RESPONSE_SIZE": str(self._settings.response_bytes),
        }
        self._start("the host", command, environment, tuple(descriptors.values()), home())
        listener.close()
        theirs.close()

    def _start_frontend(self, command: list[str], directory: Path) -> None:
        launchers = directory / "bin"
        configuration.link_launchers(launchers)
        path = self._environment.get("PATH", os.defpath)
        environment = {
            **self._environment,
            "PATH": f"{launchers}{os.pathsep}{path}",
            "MANYMODELS_PATH": path,
            "MODEL_SERVER_HOME": str(home()),
            "MANYMODELS_PYTHON": sys.executable,
        }
        # Where it is, the frontend reads this file instead of ours.
        environment.pop("MMS_CONFIG_FILE", None)
        self._start("the frontend (JVM)", command, environment, (), directory, self._ghosts.read)

    def _start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        keep: tuple[int, ...],
        directory: Path,
        reader: Callable[[str], bool] | None = None,
    ) -> None:
        """Start a part in ``directory``: Python looks for modules where it is started."""
        parent = os.getpid()
        read_end, writer = os.pipe()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=environment,
                cwd=directory,
                pass_fds=keep,
                preexec_fn=lambda: linux.die_with_parent(parent),
                start_new_session=True,
            )
        except OSError as error:
            os.close(read_end)
            raise ServeError(f"{name} cannot be started: {error}") from error
        finally:
            os.close(writer)
        self._children[process.pid] = name, process
        self._add_source(Source(read_end, self._log, reader=reader))

    # -- events --------------------------------------------------------------------------

    def _watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._selector.register(descriptor, selectors.EVENT_READ, callback)

    def _add_source(self, source: Source) -> None:
        self._sources.add(source)
        self._watch(source.descriptor, lambda: self._pump(source))

    def _pump(self, source: Source) -> None:
        if not source.pump():
            self._selector.unregister(source.descriptor)
            self._sources.remove(source)
            source.close()

    def _watch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wake = reader, writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._watch(reader.fileno(), self._take_signals)

    def _take_signals(self) -> None:
        received = self._wake[0].recv(4096)
        if signal.SIGTERM in received or signal.SIGINT in received:
            self._stopping = True
        self._reap()

    def _reap(self) -> None:
        """Bury whoever has ended: our children, and orphans left to a container's first process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name, process = self._children.pop(pid, (None, None))
            if process is not None:
                process.returncode = os.waitstatus_to_exitcode(status)
                self._child_ended(f"{name}, pid {pid},", process.returncode)

    def _child_ended(self, who: str, code: int) -> None:
        if self._stopping:
            return
        if code < 0:
            how = f"was ended by signal {-code} ({signal.Signals(-code).name})"
        else:
            how = f"exited with status {code}"
        self._fail(f"{who} {how}")

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._failure = reason
        self._stopping = True

    def _hear(self, host: socket.socket) -> None:
        received = channel.receive(host)
        if received is None:
            self._selector.unregister(host.fileno())
            return
        event, descriptors = received
        for descriptor in descriptors:
            self._add_source(Source(descriptor, self._log, event["model"]))
        if event["event"] == "line":
            self._log.write(event["level"], event["message"], event["model"])
        if event["event"] == "failed" and event["status"] == http.client.INSUFFICIENT_STORAGE:
            self._ghosts.note_refused(event["port"], event["model"])
        if event["event"] == "fatal":
            self._fail(event["reason"])
        elif event["event"] == "failed" and "loaded" in self._awaited:
            self._fail(f"the model in {self._settings.model_dir} does not load: {event['reason']}")
        self._awaited.discard(event["event"])

    def _loop_until(self, done: Callable[[], bool], seconds: float = float("inf")) -> bool:
        """Handle events until ``done``, or until the time is over (then false)."""
        deadline = time.monotonic() + seconds
        while not done():
            rest = deadline - time.monotonic()
            if rest <= 0:
                return False
            for key, _ in self._selector.select(min(rest, 3600.0)):
                key.data()
        return True

    def _loop_until_ready(self, started: float) -> None:
        while not self._stopping:
            if not self._awaited and self._pings():
                seconds = time.monotonic() - started
                self._log.info(f"serving on port {self._settings.port}, ready in {seconds:.2f} s")
                return
            self._loop_until(lambda: self._stopping, _TICK_SECONDS)

    def _pings(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._settings.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # -- the end -------------------------------------------------------------------------

    def _drain(self) -> None:
        """Wait until no model has had a request for a moment."""
        deadline = time.monotonic() + DRAIN_SECONDS
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            self._loop_until(lambda: False, _TICK_SECONDS)
            if time.monotonic() > deadline:
                self._log.write(logging.WARNING, f"requests still run after {DRAIN_SECONDS:.0f} s")
                return
            if self._slots.busy():
                quiet_since = time.monotonic()

    def _stop(self) -> None:
        """Stop the JVM, then the host and with it the models."""
        for _, process in reversed(self._children.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        self._loop_until(lambda: not self._children, STOP_SECONDS)

    def _kill(self) -> None:
        for _, process in self._children.values():
            process.kill()
        for _, process in self._children.values():
            process.wait()
        for source in self._sources:
            source.close()


def serve(settings: ServeSettings, environment: dict[str, str]) -> int:
    """Run the server and return its exit status.

    Raises:
        ServeError: it cannot be started here.
        SettingsError: a setting of the backend has no meaning.
    """
    storage = BackendSettings.from_environment(environment).storage
    if environment.get("MANYMODELS_MODEL_ROOT", "").strip() and storage.mode != "off":
        storage.check_root()
    return Supervisor(settings, environment).run()


def _make_directory(port: int) -> Path:
    """Make this server's own directory, for what the frontend and the zygote must find."""
    try:
        directory = Path(tempfile.mkdtemp(prefix=f"manymodels-{port}-"))
    except OSError as error:
        raise ServeError(f"no temporary directory can be made (TMPDIR): {error}") from None
    if len(str(directory)) + len("/.mms.sock.2147483647") > _LONGEST_SOCKET_PATH:
        directory.rmdir()
        raise ServeError(f"the path of {directory} is too long for sockets in it; set TMPDIR")
    return directory

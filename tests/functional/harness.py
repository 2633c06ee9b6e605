"""A real ``serve`` (JVM and all) to test against, and a look at its processes."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

START_SECONDS = 60.0
_ports = itertools.count(random.Random(os.getpid()).randrange(12000, 30000))


def free_port() -> int:
    """Return a port that the frontend takes (below 32767) and nobody has."""
    while True:
        port = 10240 + next(_ports) % 22000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def eventually(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Return the condition's value once it is true; fail after the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        time.sleep(0.01)
    return value


@dataclass
class Answer:
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """The contract's requests to a server on ``port``."""

    port: int

    def pings(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/ping", timeout=2).status == 200
        return False

    def request(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def load(self, name: str, directory: Path, **fields: Any) -> Answer:
        body = json.dumps({"model_name": name, "url": str(directory), **fields})
        return self.request("POST", "/models", body, {"Content-Type": "application/json"})

    def invoke(
        self, name: str, body: bytes | str = b"", content_type: str = "text/csv", **kwargs: Any
    ) -> Answer:
        headers = {"Content-Type": content_type, **kwargs.pop("headers", {})}
        return self.request("POST", f"/models/{name}/invoke", body, headers, **kwargs)

    def describe(self, name: str) -> Answer:
        return self.request("GET", f"/models/{name}")

    def unload(self, name: str) -> Answer:
        return self.request("DELETE", f"/models/{name}")

    def unload_all(self) -> None:
        for model in self.request("GET", "/models").json()["models"]:
            self.unload(model["modelName"])


@dataclass
class Server(Client):
    """A running server. ``directory`` is its TMPDIR: what it leaves behind is there."""

    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = (sys.executable, "-m", "manymodels.cli", "serve")
    port: int = field(default_factory=free_port)
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="mmt-")))

    def start(self, ready: bool = True) -> Server:
        self.log_path = self.directory / "log"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SAGEMAKER_", "MANYMODELS_", "SM_", "MMS_"))
        }
        self.process = subprocess.Popen(
            self.command,
            env={
                **inherited,
                "TMPDIR": str(self.directory),
                "SAGEMAKER_MULTI_MODEL": "true",
                "SAGEMAKER_BIND_TO_PORT": str(self.port),
                **self.environment,
            },
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=self.log_path.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended: {self.log()}")
            return f"serving on port {self.port}" in self.log()

        eventually(ready, START_SECONDS, "serve is ready")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, seconds: float = 25.0) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        """End whatever is left, and remove the directory."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self.process.pid).children(recursive=True)
            for member in [*family, psutil.Process(self.process.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- processes -----------------------------------------------------------------------

    def _descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def _running(self, module: str) -> psutil.Process:
        for process in self._descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = process.cmdline()
                if module in command and process.parent().cmdline() != command:
                    return process
        raise AssertionError(f"no process runs {module}")

    def host(self) -> psutil.Process:
        return self._running("manymodels.backend.host")

    def zygote(self) -> psutil.Process:
        return self._running("manymodels.backend.zygote")

    def jvm(self) -> psutil.Process:
        return self._running("com.amazonaws.ml.mms.ModelServer")

    def model_processes(self) -> list[psutil.Process]:
        """Return the live children of the zygote."""
        found = []
        for child in self.zygote().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        return found

    def placeholders(self) -> list[psutil.Process]:
        found = []
        for process in self.jvm().children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == "cat":
                    found.append(process)
        return found

    def left_behind(self) -> list[str]:
        """Return what is in the server's directories beyond what a fresh one has."""
        fresh = {"config.properties", "log4j2.xml", "bin", "python2", "python3"}
        fresh |= {"host", "status", "log"}
        return [
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if path.name not in fresh and not path.name.startswith(("manymodels-", ".manymodels-"))
        ]

    def assert_nothing_left(self) -> None:
        """Fail unless no model has a process, a socket or a file any more."""
        eventually(lambda: not self.model_processes(), what="no model process is left")
        eventually(lambda: not self.placeholders(), what="no placeholder is left")
        eventually(lambda: not self.left_behind(), what=f"no file is left: {self.left_behind()}")


@contextlib.contextmanager
def serving(**environment: str) -> Iterator[Server]:
    """Run a server with these variables for the time of the block."""
    server = Server(environment)
    try:
        yield server.start()
    finally:
        server.close()


def assert_gone(server: Server, name: str) -> None:
    """The frontend answers a failed load a moment before it takes the model off its list."""
    eventually(lambda: server.describe(name).status == 404, 2, "the model is not registered")


def load_when_gone(server: Client, name: str, directory: Path, **fields: Any) -> Answer:
    """Load a model again that has just failed: until it is off the list, that is 409."""
    deadline = time.monotonic() + 2
    while True:
        answer = server.load(name, directory, **fields)
        if answer.status != 409 or time.monotonic() > deadline:
            return answer


def write_handler(directory: Path, source: str, name: str = "custom") -> Path:
    """Make a model directory that holds one handler module."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.py").write_text(textwrap.dedent(source))
    return directory

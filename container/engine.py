"""The program that builds and runs images: docker, podman or buildah.

Only the part of their command lines that all of them share is used; where they differ, it says so
here. Nothing but the standard library is needed, so `make image` runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ENGINES = ("docker", "podman", "buildah")
BUILDX = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
"""With attestations docker makes an index of manifests, which SageMaker refuses."""


class EngineError(Exception):
    """No engine is here, or its command failed; the message is for a person."""


class BuildError(EngineError):
    """An image could not be built; the engine has said why."""


@dataclass(frozen=True)
class Engine:
    """One of ENGINES. ``environment`` is added to that of this process."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    build_options: Sequence[str] = ()

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output, whatever its status."""
        return subprocess.run(
            [self.name, *arguments],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def output(self, *arguments: str, timeout: float = 120) -> str:
        """Return what a command prints, without the last newline; EngineError if it fails."""
        ended = self.command(*arguments, timeout=timeout)
        if ended.returncode:
            said = (ended.stderr or ended.stdout).strip()
            raise EngineError(f"{self.name} {' '.join(arguments)}: {said}")
        return ended.stdout.rstrip("\n")

    def works(self) -> bool:
        """Whether it is installed and answers; docker's client does only with its daemon."""
        return shutil.which(self.name) is not None and not self.command("info").returncode

    def has_image(self, image: str) -> bool:
        """Whether the image is here already."""
        return not self.command("inspect", "--type", "image", image).returncode

    def build(
        self,
        dockerfile: Path,
        context: Path,
        tag: str,
        *,
        target: str | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> None:
        """Build an image, with the engine's own progress; BuildError if that fails."""
        print(f"\n=== {self.name} builds {tag}\n", flush=True)
        with _secrets() as secrets:
            command = [self.name, "build", "--file", str(dockerfile), "--tag", tag, *secrets]
            if self.name != "docker":
                # docker does this by itself. SageMaker wants a manifest of docker's format.
                command += ["--layers", "--format", "docker"]
            command += ["--target", target] if target else []
            for name, value in (arguments or {}).items():
                command += ["--build-arg", f"{name}={value}"]
            ended = subprocess.run(
                [*command, *self.build_options, str(context)],
                env={**os.environ, **BUILDX, **self.environment},
                stdin=subprocess.DEVNULL,
            )
        if ended.returncode:
            raise BuildError(f"{self.name} could not build {tag}: status {ended.returncode}")


@contextmanager
def _secrets() -> Iterator[list[str]]:
    """Pass PIP_CERT, the certificates of a proxy that opens TLS, to builds but not to images."""
    certificates = os.environ.get("PIP_CERT")
    if not certificates:
        yield []
        return
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory, "pip.conf")
        configuration.write_text("[global]\ncert = /run/ca.crt\n")
        yield [f"--secret=id=pip,src={configuration}", f"--secret=id=ca,src={certificates}"]


def find(name: str | None = None, among: Sequence[str] = ENGINES) -> Engine:
    """Return the named engine, or else the first that works; EngineError if there is none."""
    for candidate in [name] if name else among:
        engine = Engine(candidate)
        if engine.works():
            return engine
    raise EngineError(
        f"{name} is not installed, or does not answer"
        if name
        else f"none of {', '.join(among)} is installed and answers"
    )


def private_podman(directory: Path) -> Engine:
    """Return a podman with images, containers and configuration of its own in ``directory``.

    It touches no image of the user's, and runs where there is no systemd to make cgroups.
    """
    directory.mkdir(parents=True, exist_ok=True)
    storage = directory / "storage.conf"
    storage.write_text(
        '[storage]\ndriver = "overlay"\n'
        f'runroot = "{directory / "run"}"\ngraphroot = "{directory / "graph"}"\n'
    )
    runtime = "runc" if shutil.which("runc") else "crun"
    configuration = directory / "containers.conf"
    configuration.write_text(
        '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=16384:16384"]\n'
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        '[network]\nnetwork_backend = "netavark"\n'
    )
    return Engine(
        "podman",
        {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(configuration)},
        # A build reaches package registries the way this machine does.
        build_options=("--network=host",),
    )

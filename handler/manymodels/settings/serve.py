"""What ``serve`` goes by."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manymodels.errors import SettingsError
from manymodels.settings.environment import (
    DEFAULT_HANDLER,
    FRONTEND_RESPONSE_BYTES,
    MIB,
    Environment,
    first,
)
from manymodels.settings.log import LogSettings

DEFAULT_REQUEST_BYTES = 6 * MIB
HIGHEST_PORT = 32766
"""The frontend refuses 32767 and up."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What ``serve`` goes by: the container's contract with SageMaker."""

    port: int = 8080
    multi_model: bool = False
    model_dir: Path = Path("/opt/ml/model")
    handler: str = DEFAULT_HANDLER
    workers_per_model: int = 1
    response_timeout_seconds: int = 3600
    job_queue_size: int = 100
    request_bytes: int = DEFAULT_REQUEST_BYTES
    heap_bytes: int | None = None
    direct_memory_bytes: int | None = None
    vmargs: tuple[str, ...] = ()
    allow_url_archives: bool = False
    java_home: Path | None = None
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def response_bytes(self) -> int:
        """The frontend measures one field of a reply; leave room as SageMaker's limits do."""
        return max(self.request_bytes, FRONTEND_RESPONSE_BYTES)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> ServeSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        java_home = environment.text("JAVA_HOME")
        return cls(
            port=_port(environment),
            multi_model=environment.flag("SAGEMAKER_MULTI_MODEL") or False,
            model_dir=Path(environment.text("SM_MODEL_DIR") or "/opt/ml/model").absolute(),
            handler=environment.text("SAGEMAKER_HANDLER") or DEFAULT_HANDLER,
            workers_per_model=first(
                environment.integer("SAGEMAKER_MODEL_SERVER_WORKERS", 1, 1024),
                environment.integer("SAGEMAKER_NUM_MODEL_WORKERS", 1, 1024),
                1,
            ),
            response_timeout_seconds=_response_timeout(environment),
            job_queue_size=environment.integer("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", 1, 1_000_000)
            or 100,
            request_bytes=_request_bytes(environment),
            heap_bytes=environment.size("SAGEMAKER_MAX_HEAP_SIZE", 2 * MIB),
            direct_memory_bytes=environment.size("SAGEMAKER_MAX_DIRECT_MEMORY_SIZE", 2 * MIB),
            vmargs=_vmargs(environment),
            allow_url_archives=environment.flag("MANYMODELS_ALLOW_URL_ARCHIVES") or False,
            java_home=Path(java_home) if java_home else None,
            log=LogSettings.from_environment(environment),
        )


def _port(environment: Environment) -> int:
    name = "SAGEMAKER_BIND_TO_PORT"
    try:
        return environment.integer(name, 1, HIGHEST_PORT) or 8080
    except SettingsError as error:
        raise SettingsError(f"{error}; the frontend takes no port above {HIGHEST_PORT}") from None


def _response_timeout(environment: Environment) -> int:
    """Return seconds. The first variable is in minutes, as the frontend has always read it."""
    seconds = environment.integer("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", 1, 2**31 - 1)
    minutes = environment.integer("SAGEMAKER_MODEL_SERVER_TIMEOUT", 1, 35_000_000)
    return seconds if seconds is not None else 60 * (minutes if minutes is not None else 60)


def _request_bytes(environment: Environment) -> int:
    megabytes = environment.integer("SAGEMAKER_MAX_PAYLOAD_IN_MB", 1, 1024)
    size = environment.integer("SAGEMAKER_MAX_REQUEST_SIZE", 1, 2**30)
    return size or (megabytes * MIB if megabytes is not None else DEFAULT_REQUEST_BYTES)


def _vmargs(environment: Environment) -> tuple[str, ...]:
    name = "SAGEMAKER_MODEL_SERVER_VMARGS"
    value = environment.text(name) or ""
    try:
        arguments = tuple(shlex.split(value))
    except ValueError as error:
        raise SettingsError(f"{name}={value!r}: {error}") from None
    for argument in arguments:
        if not argument.startswith("-"):
            raise SettingsError(f"{name}={value!r}: {argument!r} is no option of the JVM")
    return arguments

"""Settings, as frozen dataclasses. The only reader of the environment.

A bad value raises SettingsError with one line that names the variable, its value and what it
may be. docs/settings.md has the table.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from manymodels.errors import SettingsError

MIB = 1024 * 1024
DEFAULT_HANDLER = "manymodels.service:handle"
DEFAULT_PRELOAD = (
    "numpy",
    "scipy",
    "pandas",
    "joblib",
    "sklearn",
    "xgboost",
    "lightgbm",
    "mxnet",
    "skops",
)
DEFAULT_REQUEST_BYTES = 6 * MIB
FRONTEND_RESPONSE_BYTES = 6_553_500
"""The frontend's own default for both directions."""
HIGHEST_PORT = 32766
"""The frontend refuses 32767 and up."""

REQUIREMENTS_CACHE = "~/.cache/manymodels/requirements"

_FALSE, _TRUE = ("0", "false", "no", "off"), ("1", "true", "yes", "on")


class Environment:
    """Typed look-ups in an environment; a variable set to nothing counts as absent."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def text(self, name: str) -> str | None:
        value = self._variables.get(name, "").strip()
        return value or None

    def integer(self, name: str, low: int, high: int) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise SettingsError(f"{name}={value!r}: must be a whole number from {low} to {high}")
        return number

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in _FALSE + _TRUE:
            raise SettingsError(f"{name}={value!r}: must be true or false")
        return value.lower() in _TRUE

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value.lower() not in choices:
            raise SettingsError(f"{name}={value!r}: must be one of {', '.join(choices)}")
        return value.lower() if value else None


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What the container says, and how."""

    level: int = logging.INFO
    json: bool = False
    access: bool = False
    metrics: bool = False

    @classmethod
    def from_environment(cls, environment: Environment) -> LogSettings:
        return cls(
            level=_log_level(environment),
            json=environment.choice("MANYMODELS_LOG_FORMAT", ("text", "json")) == "json",
            access=environment.flag("MANYMODELS_LOG_ACCESS") or False,
            metrics=environment.flag("MANYMODELS_LOG_METRICS") or False,
        )


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What the zygote and the model processes go by."""

    preload: tuple[str, ...] = DEFAULT_PRELOAD
    threads: int = 1
    response_bytes: int = FRONTEND_RESPONSE_BYTES
    safe: bool = False
    handler: str = DEFAULT_HANDLER
    log: LogSettings = field(default_factory=LogSettings)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> BackendSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        preload = environment.text("MANYMODELS_PRELOAD")
        return cls(
            preload=DEFAULT_PRELOAD
            if preload is None
            else tuple(
                name.strip() for name in preload.split(",") if name.strip() not in ("", "none")
            ),
            threads=environment.integer("MANYMODELS_THREADS", 1, 1024) or 1,
            response_bytes=environment.integer("MMS_MAX_RESPONSE_SIZE", 1, 2**31 - 1)
            or FRONTEND_RESPONSE_BYTES,
            safe=_safe(environment),
            handler=environment.text("SAGEMAKER_HANDLER") or DEFAULT_HANDLER,
            log=LogSettings.from_environment(environment),
        )


def _safe(environment: Environment) -> bool:
    return environment.choice("MANYMODELS_ARTIFACTS", ("any", "safe")) == "safe"


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """What the generic handler goes by, in whatever worker it runs."""

    program: str = "inference.py"
    submit_directory: Path | None = None
    default_accept: str = "application/json"
    outputs: str | None = None
    ensemble: bool = False
    lines: bool = False
    safe: bool = False
    install_requirements: bool = False
    requirements_cache: Path = Path(REQUIREMENTS_CACHE)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> HandlerSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        submitted = environment.text("SAGEMAKER_SUBMIT_DIRECTORY")
        cache = environment.text("MANYMODELS_REQUIREMENTS_CACHE") or REQUIREMENTS_CACHE
        return cls(
            program=environment.text("SAGEMAKER_PROGRAM") or "inference.py",
            submit_directory=Path(submitted) if submitted and os.path.isdir(submitted) else None,
            default_accept=environment.text("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT")
            or "application/json",
            outputs=environment.text("SAGEMAKER_INFERENCE_OUTPUT"),
            ensemble=environment.flag("SAGEMAKER_INFERENCE_ENSEMBLE") or False,
            lines=environment.flag("SAGEMAKER_BATCH") or False,
            safe=_safe(environment),
            install_requirements=environment.flag("MANYMODELS_INSTALL_REQUIREMENTS") or False,
            requirements_cache=Path(os.path.abspath(os.path.expanduser(cache))),
        )


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
            workers_per_model=_first(
                environment.integer("SAGEMAKER_MODEL_SERVER_WORKERS", 1, 1024),
                environment.integer("SAGEMAKER_NUM_MODEL_WORKERS", 1, 1024),
                1,
            ),
            response_timeout_seconds=_response_timeout(environment),
            job_queue_size=environment.integer("SAGEMAKER_MODEL_JOB_QUEUE_SIZE", 1, 1_000_000)
            or 100,
            request_bytes=_request_bytes(environment),
            heap_bytes=_java_size(environment, "SAGEMAKER_MAX_HEAP_SIZE"),
            direct_memory_bytes=_java_size(environment, "SAGEMAKER_MAX_DIRECT_MEMORY_SIZE"),
            vmargs=_vmargs(environment),
            allow_url_archives=environment.flag("MANYMODELS_ALLOW_URL_ARCHIVES") or False,
            java_home=Path(java_home) if java_home else None,
            log=LogSettings.from_environment(environment),
        )


def _first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def _port(environment: Environment) -> int:
    name = "SAGEMAKER_BIND_TO_PORT"
    try:
        return environment.integer(name, 1, HIGHEST_PORT) or 8080
    except SettingsError as error:
        raise SettingsError(f"{error}; the frontend takes no port above {HIGHEST_PORT}") from None


def _log_level(environment: Environment) -> int:
    """Return the level of SAGEMAKER_CONTAINER_LOG_LEVEL: Python's number, or its name."""
    name = "SAGEMAKER_CONTAINER_LOG_LEVEL"
    value = environment.text(name)
    if value is None:
        return logging.INFO
    if re.fullmatch(r"[0-9]{1,2}", value) and int(value) <= logging.CRITICAL:
        return int(value)
    names = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    if value.upper() in names:
        return int(logging.getLevelName(value.upper()))
    raise SettingsError(
        f"{name}={value!r}: must be a number from 0 to 50 or one of {', '.join(names)}"
    )


def _response_timeout(environment: Environment) -> int:
    """Return seconds. The first variable is in minutes, as the frontend has always read it."""
    seconds = environment.integer("SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS", 1, 2**31 - 1)
    minutes = environment.integer("SAGEMAKER_MODEL_SERVER_TIMEOUT", 1, 35_000_000)
    return seconds if seconds is not None else 60 * (minutes if minutes is not None else 60)


def _request_bytes(environment: Environment) -> int:
    megabytes = environment.integer("SAGEMAKER_MAX_PAYLOAD_IN_MB", 1, 1024)
    size = environment.integer("SAGEMAKER_MAX_REQUEST_SIZE", 1, 2**30)
    return size or (megabytes * MIB if megabytes is not None else DEFAULT_REQUEST_BYTES)


def _java_size(environment: Environment, name: str) -> int | None:
    """Return bytes from a size as Java writes it: 512m, 2g, 1048576."""
    value = environment.text(name)
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", value.lower())
    factors = {"": 1, "k": 1024, "m": MIB, "g": 1024 * MIB}
    size = int(match[1]) * factors[match[2]] if match else 0
    if size < 2 * MIB:
        raise SettingsError(f"{name}={value!r}: must be a size of at least 2m, as 512m or 2g")
    return size


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

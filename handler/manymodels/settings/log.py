"""What the container says, and how."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from manymodels.errors import SettingsError
from manymodels.settings.environment import Environment


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

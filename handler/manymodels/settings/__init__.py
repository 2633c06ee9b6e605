"""Settings, as frozen dataclasses. The only reader of the environment.

A bad value raises SettingsError with one line that names the variable, its value and what it
may be. docs/settings.md has the table.
"""

from manymodels.settings.backend import DEFAULT_PRELOAD, BackendSettings
from manymodels.settings.environment import (
    DEFAULT_HANDLER,
    FRONTEND_RESPONSE_BYTES,
    MIB,
    Amount,
    Environment,
)
from manymodels.settings.handler import HandlerSettings
from manymodels.settings.log import LogSettings
from manymodels.settings.resources import (
    MODEL_ROOT,
    STORAGE_MODES,
    GuardSettings,
    MetricsSettings,
    StorageSettings,
)
from manymodels.settings.serve import HIGHEST_PORT, ServeSettings

__all__ = [
    "DEFAULT_HANDLER",
    "DEFAULT_PRELOAD",
    "FRONTEND_RESPONSE_BYTES",
    "HIGHEST_PORT",
    "MIB",
    "MODEL_ROOT",
    "STORAGE_MODES",
    "Amount",
    "BackendSettings",
    "Environment",
    "GuardSettings",
    "HandlerSettings",
    "LogSettings",
    "MetricsSettings",
    "ServeSettings",
    "StorageSettings",
]

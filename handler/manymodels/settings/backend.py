"""What the host, the zygote and the model processes go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from manymodels.settings.environment import (
    DEFAULT_HANDLER,
    FRONTEND_RESPONSE_BYTES,
    Environment,
    safe_artifacts,
)
from manymodels.settings.log import LogSettings
from manymodels.settings.resources import GuardSettings, MetricsSettings, StorageSettings

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


@dataclass(frozen=True, slots=True)
class BackendSettings:
    """What the zygote and the model processes go by."""

    preload: tuple[str, ...] = DEFAULT_PRELOAD
    threads: int = 1
    response_bytes: int = FRONTEND_RESPONSE_BYTES
    safe: bool = False
    handler: str = DEFAULT_HANDLER
    storage: StorageSettings = field(default_factory=StorageSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
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
            safe=safe_artifacts(environment),
            handler=environment.text("SAGEMAKER_HANDLER") or DEFAULT_HANDLER,
            storage=StorageSettings.from_environment(variables),
            guard=GuardSettings.from_environment(variables),
            metrics=MetricsSettings.from_environment(variables),
            log=LogSettings.from_environment(environment),
        )

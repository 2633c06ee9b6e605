"""What watches the volume and the memory goes by, and where it shows what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manymodels.errors import SettingsError
from manymodels.settings.environment import MIB, Amount, Environment, first

MODEL_ROOT = "/opt/ml/models"
"""Where SageMaker puts the models of a multi-model endpoint."""
STORAGE_MODES = ("evict", "report", "off")
HIGH, LOW = Amount(share=0.95), Amount(share=0.90)
"""On SageMaker the platform deletes models long before."""


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """What the storage watchdog goes by.

    Attributes:
        root: where the platform puts models, each in a directory of its own.
        mode: ``evict`` unused directories, only ``report`` that it is time to, or ``off``.
        high: how full may be before anything is done about it, of the volume or of the budget.
        low: how full it is afterwards.
        budget: bytes that the root may hold, where it shares its volume with others; then the
            marks are of these. None for the whole volume.
        settle_seconds: for how long after its last change a directory may still be arriving.
    """

    root: Path = Path(MODEL_ROOT)
    mode: str = "evict"
    high: Amount = HIGH
    low: Amount = LOW
    budget: int | None = None
    settle_seconds: int = 60

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> StorageSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        high = environment.amount("MANYMODELS_STORAGE_HIGH", MIB) or HIGH
        if high.share == 0:
            value = environment.text("MANYMODELS_STORAGE_HIGH")
            raise SettingsError(f"MANYMODELS_STORAGE_HIGH={value!r}: must be more than nothing")
        budget = environment.size("MANYMODELS_STORAGE_BUDGET", MIB)
        settings = cls(
            root=Path(environment.text("MANYMODELS_MODEL_ROOT") or MODEL_ROOT).absolute(),
            mode=environment.choice("MANYMODELS_STORAGE", STORAGE_MODES) or "evict",
            high=high,
            low=environment.amount("MANYMODELS_STORAGE_LOW", MIB) or _low(high, budget),
            budget=budget,
            settle_seconds=first(
                environment.integer("MANYMODELS_STORAGE_SETTLE_SECONDS", 0, 86_400), 60
            ),
        )
        settings.check()
        return settings

    def check_root(self) -> None:
        """Raise SettingsError if the root is no directory."""
        if not self.root.is_dir():
            raise SettingsError(f"MANYMODELS_MODEL_ROOT={str(self.root)!r}: is no directory")

    def check(self) -> None:
        """Raise SettingsError if the marks cannot be meant, as far as can be told."""
        high, low, whole = self.high, self.low, self.budget
        if whole is not None and high.of(whole) > whole:
            raise SettingsError(
                f"MANYMODELS_STORAGE_HIGH={high}: must not be above "
                f"MANYMODELS_STORAGE_BUDGET={whole} bytes"
            )
        same = (high.size is None) == (low.size is None)
        if whole is None and not same:
            return
        if low.of(whole or 1 << 40) > high.of(whole or 1 << 40):
            raise SettingsError(
                f"MANYMODELS_STORAGE_LOW={low}: must not be above MANYMODELS_STORAGE_HIGH={high}"
            )


def _low(high: Amount, budget: int | None) -> Amount:
    """Return the low mark where only the high one is said: the default, but never above it."""
    comparable = high.share is not None or budget is not None
    whole = budget or 1 << 40
    return high if comparable and high.of(whole) < LOW.of(whole) else LOW


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What the memory guard goes by.

    Attributes:
        active: whether loads are refused at all for lack of memory.
        limit: bytes that all processes of the server may take, if fewer than the container's.
        floor: what a load must leave; None for a default that depends on the limit.
        model_bytes: private memory at which a model's process is replaced between requests.
        model_requests: requests after which it is.
    """

    active: bool = True
    limit: int | None = None
    floor: Amount | None = None
    model_bytes: int | None = None
    model_requests: int | None = None

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> GuardSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        active = environment.flag("MANYMODELS_MEMORY_GUARD")
        limit = environment.size("MANYMODELS_MEMORY_LIMIT", 64 * MIB)
        floor = environment.amount("MANYMODELS_MEMORY_FLOOR")
        if floor is not None and floor.of(limit or 1 << 50) >= (limit or 1 << 50):
            value = environment.text("MANYMODELS_MEMORY_FLOOR")
            raise SettingsError(
                f"MANYMODELS_MEMORY_FLOOR={value!r}: must leave something of the limit for models"
            )
        return cls(
            active=True if active is None else active,
            limit=limit,
            floor=floor,
            model_bytes=environment.size("MANYMODELS_MODEL_MEMORY_LIMIT", MIB),
            model_requests=environment.integer("MANYMODELS_MODEL_REQUESTS_LIMIT", 1, 2**31 - 1),
        )


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Where the metrics go that Prometheus reads: nowhere unless one of these is said."""

    port: int | None = None
    file: Path | None = None

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> MetricsSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        file = environment.text("MANYMODELS_METRICS_FILE")
        return cls(
            port=environment.integer("MANYMODELS_METRICS_PORT", 1, 65535),
            file=Path(file).absolute() if file else None,
        )

"""Typed look-ups in the environment, and what a value may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from manymodels.errors import SettingsError

MIB = 1024 * 1024
DEFAULT_HANDLER = "manymodels.service:handle"
FRONTEND_RESPONSE_BYTES = 6_553_500
"""The frontend's own default for both directions."""
_UNITS = {"": 1, "k": 1024, "m": MIB, "g": 1024 * MIB, "t": 1024 * 1024 * MIB}
_FALSE, _TRUE = ("0", "false", "no", "off"), ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Amount:
    """A part of a whole: a share of it, or bytes."""

    share: float | None = None
    size: int | None = None

    def of(self, whole: int) -> int:
        """Return the bytes, given those of the whole."""
        return int(whole * (self.share or 0.0)) if self.size is None else self.size

    def __str__(self) -> str:
        return f"{100 * (self.share or 0.0):g} %" if self.size is None else f"{self.size} bytes"


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

    def size(self, name: str, low: int = 0) -> int | None:
        """Return bytes from a size with an optional unit: 1048576, 512m, 20g."""
        value = self.text(name)
        if value is None:
            return None
        match = re.fullmatch(r"([0-9]{1,15})([kmgt]?)", value.lower())
        size = int(match[1]) * _UNITS[match[2]] if match else -1
        if size < low:
            least = f" of at least {low // MIB}m" if low else ""
            raise SettingsError(f"{name}={value!r}: must be a size{least}, as 512m or 2g")
        return size

    def amount(self, name: str, least: int = 0) -> Amount | None:
        """Return a share of something, from 90%, or a size of at least so many bytes, from 20g."""
        value = self.text(name)
        if value is None:
            return None
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", value)
        if match and float(match[1]) <= 100:
            return Amount(share=float(match[1]) / 100)
        try:
            return Amount(size=self.size(name, least))
        except SettingsError:
            raise SettingsError(
                f"{name}={value!r}: must be a share, as 90%, or a size, as 512m or 20g"
            ) from None

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(name)
        if value is not None and value.lower() not in choices:
            raise SettingsError(f"{name}={value!r}: must be one of {', '.join(choices)}")
        return value.lower() if value else None


def first(*values: int | None) -> int:
    return next(value for value in values if value is not None)


def safe_artifacts(environment: Environment) -> bool:
    """Whether only artifacts that cannot run code are admitted."""
    return environment.choice("MANYMODELS_ARTIFACTS", ("any", "safe")) == "safe"

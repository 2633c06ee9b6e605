"""skops files: estimators that are put together from types that were agreed upon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from manymodels.errors import ModelLoadError

_SHOWN = 20


def read_skops(path: Path, trusted: Sequence[str] = (), *, safe: bool = False) -> Any:
    """Return the object in a .skops file.

    Raises ModelLoadError when it holds types that neither skops nor ``trusted`` trusts, before
    any of them is imported: the message names them.
    """
    from skops import io

    try:
        untrusted = [name for name in io.get_untrusted_types(file=path) if name not in trusted]
    except BadZipFile as error:
        raise ModelLoadError(f"{path.name} does not load: it is no skops file: {error}") from error
    if untrusted:
        raise ModelLoadError(
            f"{path.name} holds types that are not trusted: {_listed(untrusted)}; {_advice(safe)}"
        )
    return io.load(path, trusted=list(trusted))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _advice(safe: bool) -> str:
    if safe:
        return "MANYMODELS_ARTIFACTS=safe loads what skops itself trusts, and nothing else"
    return 'if you trust them, name them in manymodels.json as "trusted_types"'

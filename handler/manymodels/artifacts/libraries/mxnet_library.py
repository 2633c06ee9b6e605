"""MXNet itself: how it is imported, and what its errors mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manymodels.errors import ModelLoadError

_INSTALL = "pip install 'manymodels[mxnet]', on Python 3.10 or 3.11"
_ENGINE = "MXNET_ENGINE_TYPE"
_NO_MEMORY = ("Failed to allocate", "bad_alloc", "Memory allocation failed")


def import_mxnet() -> Any:
    """Return the package ``mxnet``; ModelLoadError says what it lacks."""
    try:
        import mxnet as mx
    except ModuleNotFoundError as error:
        if error.name != "mxnet":
            raise
        raise ModelLoadError(f"an MXNet model needs MXNet, which is not here: {_INSTALL}") from None
    except AttributeError as error:
        # MXNet 1.9.1 uses names such as np.bool, which numpy has dropped since.
        raise ModelLoadError(
            f"MXNet does not work with numpy {np.__version__}, but with 1.23.5: {_INSTALL}"
        ) from error
    except OSError as error:
        raise ModelLoadError(
            f"MXNet lacks a library of the system: {error}; on Debian: "
            "apt-get install libgomp1 libquadmath0"
        ) from error
    _choose_engine(mx)
    return mx


def _choose_engine(mx: Any) -> None:
    """Have MXNet compute on the caller's thread, unless the environment says otherwise.

    The engine starts with the first array, so this comes in time. To run out of memory on a
    thread of the usual engine can end the process; on the caller's it is an exception.
    """
    if mx.util.getenv(_ENGINE) is None:
        mx.util.setenv(_ENGINE, "NaiveEngine")


@contextlib.contextmanager
def loading(mx: Any, path: Path) -> Iterator[None]:
    """Turn MXNet's errors into a ModelLoadError that names the file, or MemoryError."""
    try:
        yield
    except (mx.MXNetError, UnicodeDecodeError) as error:  # the latter from a message it quotes
        raise ModelLoadError(f"{path.name} does not load: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return the line of an error's message that says what is wrong.

    Raises MemoryError if that is that there is no memory: MXNet has no error of its own for it.
    """
    text = str(error)
    lines = [line for line in text.splitlines() if line and not line.startswith(("Traceback", " "))]
    found = (lines or [type(error).__name__])[0].removeprefix("MXNetError: ")
    if any(sign in text for sign in _NO_MEMORY):
        raise MemoryError(found) from error
    return found

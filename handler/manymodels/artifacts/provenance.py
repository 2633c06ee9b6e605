"""Which versions wrote a file: found in its bytes, and in what libraries warn of."""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TypeVar

logger = logging.getLogger(__name__)

_Loaded = TypeVar("_Loaded")
_BLOCK = 1 << 16
_MOST_BYTES = 1 << 28
_OVERLAP = 256
# A key of the pickled state, what the pickler memoized it as, and the beginning of its value: a
# text after its length, or before protocol 1 a line.
_SKLEARN = re.compile(
    rb"_sklearn_version(?:\x94|q.|r.{4}|\np\d+\n|\n)?(?:\x8c(.)|X(.)\0{3}|V)(\d[\w.+]*)", re.S
)
_XGBOOST_JSON = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]')
_XGBOOST_UBJSON = re.compile(rb"\x07version\[#L\0{7}\x03(?:[iU](.))(?:[iU](.))(?:[iU](.))", re.S)
_DISTRIBUTIONS = {"xgboost": ("xgboost", "xgboost-cpu"), "onnxruntime": ("onnxruntime",)}


@lru_cache(maxsize=32)
def running(library: str, distribution: str | None = None) -> str:
    """Return a library's name with the version that is here, such as ``scikit-learn 1.9.1``.

    To look it up reads files and writes to a megabyte of memory: a zygote does it once for all.
    """
    from importlib.metadata import PackageNotFoundError, version

    for name in _DISTRIBUTIONS.get(library, (distribution or library,)):
        try:
            return f"{library} {version(name)}"
        except PackageNotFoundError:
            continue
    return library


def written_by(path: Path) -> str | None:
    """Return what pickled ``path``, such as ``scikit-learn 1.3.0``; None if it does not say.

    Nothing is unpickled. Costs a read of the file, of its first 256 MiB if it is larger.
    """
    tail = b""
    xgboost = None
    try:
        for block in _blocks(path):
            window = tail + block
            if found := _SKLEARN.search(window):
                length = (found[1] or found[2] or b"\xff")[0]
                return f"scikit-learn {found[3][:length].decode()}"
            xgboost = xgboost or xgboost_version(window)
            tail = window[-_OVERLAP:]
    except (OSError, EOFError, ValueError, zlib.error):
        return None  # cut short or not compressed after all: whoever loads it says so
    return xgboost and f"xgboost {xgboost}"


def xgboost_version(content: bytes) -> str | None:
    """Return the version that XGBoost wrote into a model, such as ``3.2.0``."""
    if found := _XGBOOST_JSON.search(content):
        return ".".join(part.decode() for part in found.groups())
    if found := _XGBOOST_UBJSON.search(content):
        return ".".join(str(part[0]) for part in found.groups())
    return None


def load_noting(path: Path, load: Callable[[Path], _Loaded]) -> tuple[_Loaded, dict[str, str]]:
    """Return what ``load`` returns, and of which versions it is, for `Model.origin`.

    A mismatch is logged in one line, however many parts of the model warn of it.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = load(path)
    origin: dict[str, str] = {}
    for warning in caught:
        original = getattr(warning.message, "original_sklearn_version", None)
        if original is not None:
            origin = origin or mismatch(path, f"scikit-learn {original}", "scikit-learn")
        elif "older version of XGBoost" in str(warning.message):
            # XGBoost says so of newer ones too.
            wrote = written_by(path) or "another version of xgboost"
            origin = origin or mismatch(path, wrote, "xgboost")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return loaded, origin


def mismatch(path: Path, wrote: str, library: str) -> dict[str, str]:
    """Log that a file is of another version than the library here; return it for `Model.origin`."""
    here = running(library)
    warning = f"written by {wrote}, read by {here}: predictions may differ or fail"
    logger.warning("%s: %s", path.name, warning)
    return {"written_by": wrote, "running": here, "warning": warning}


def _blocks(path: Path) -> Iterator[bytes]:
    """The file's content in blocks, inflated where it is compressed, up to a limit."""
    with path.open("rb") as file:
        total = 0
        for block in _inflated(file):
            yield block
            total += len(block)
            if total >= _MOST_BYTES:
                return


def _inflated(file: IO[bytes]) -> Iterator[bytes]:
    magic = file.read(3)
    file.seek(0)
    if magic[:1] == b"x" or magic[:2] == b"\x1f\x8b":
        inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        return (inflate.decompress(block) for block in _read(file))
    if magic == b"BZh":
        import bz2

        return _read(bz2.open(file))
    if magic in (b"\xfd7z", b"\x5d\0\0"):
        import lzma

        return _until(lzma.LZMAError, _read(lzma.open(file)))
    return _read(file)


def _until(failure: type[Exception], blocks: Iterator[bytes]) -> Iterator[bytes]:
    """What there is of the blocks before a failure."""
    with suppress(failure):
        yield from blocks


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block

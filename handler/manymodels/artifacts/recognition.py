"""What kind of model a file is: by its first bytes, and by its name where they do not tell.

No file is read further than its first block, so that what is large and no model costs nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path, PurePath

HEAD = 4096
_PEEK = 64


class Format(Enum):
    """Formats of model files; the value is how messages call it."""

    PICKLE = "pickle"
    SKOPS = "skops"
    XGBOOST_JSON = "XGBoost JSON"
    XGBOOST_UBJSON = "XGBoost UBJSON"
    XGBOOST_BINARY = "XGBoost's old binary format"
    XGBOOST_UNKNOWN = "unknown format"
    LIGHTGBM = "LightGBM text"
    ONNX = "ONNX"
    MXNET = "MXNet symbol and parameters"


SAFE_FORMATS = (
    Format.XGBOOST_JSON,
    Format.XGBOOST_UBJSON,
    Format.SKOPS,
    Format.ONNX,
    Format.LIGHTGBM,
)
"""Formats that cannot run code when they are read."""

_PICKLES = (".joblib", ".pkl", ".pickle")
_COMPRESSED = (".gz", ".z", ".bz2", ".xz", ".lzma", ".lz4")
_BY_NAME: Mapping[str, Format] = {
    **dict.fromkeys(_PICKLES, Format.PICKLE),
    ".skops": Format.SKOPS,
    ".ubj": Format.XGBOOST_UBJSON,
    ".bst": Format.XGBOOST_UNKNOWN,
    ".xgb": Format.XGBOOST_UNKNOWN,
    ".lgb": Format.LIGHTGBM,
    ".lgbm": Format.LIGHTGBM,
    ".onnx": Format.ONNX,
}
"""A file of such a name is meant as a model, whatever is in it."""
CONTENT_DECIDES = (".json", ".txt", ".bin", ".model")
"""A file of such a name is a model if it holds one."""
MODEL_NAMES = (*(f"*{suffix}" for suffix in _BY_NAME), "xgboost-model")

# A booster is an object of "learner" and "version", in either order; only XGBoost writes one.
_JSON = re.compile(rb'\s*\{\s*(?:"version"\s*:\s*\[[\d\s,]*\]\s*,\s*)?"learner"\s*:\s*\{')
_UBJSON = re.compile(rb"\{(?:[iU]|I\0|l\0{3}|L\0{7})\x07(?:learner|version)")
_LIGHTGBM = re.compile(rb"tree\r?\nversion=")
# Protocol 2 and later say so; the earlier ones begin with the class of what they hold.
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[A-Za-z_][\w.]*\n[A-Za-z_]\w*\n(?:p\d+\n|q.|[().])", re.S)
# After the parameters, 136 bytes: the names of objective and booster, each after its length.
_OLD_BOOSTER = re.compile(
    rb"(?:binf)?.{136}[\x01-\x40]\0{7}[\w:]{1,64}[\x04-\x08]\0{7}(?:gbtree|gblinear|dart)", re.S
)
_XZ, _LZMA = b"\xfd7zXZ\0", b"\x5d\0\0"


def recognize(path: Path) -> Format | None:
    """Return the format of a file, None if it is no model; what is in it decides."""
    return by_content(_head(path)) or by_name(path.name)


def by_name(name: str) -> Format | None:
    """Return what a file of such a name is meant to be, whatever is in it."""
    if _is_plain_xgboost(name):
        return Format.XGBOOST_UNKNOWN
    return _BY_NAME.get(_suffix(name))


def named_as_model(name: str) -> bool:
    """Say whether a file of such a name is a model if its content agrees."""
    return by_name(name) is not None or _suffix(name) in CONTENT_DECIDES


def by_content(head: bytes) -> Format | None:
    """Return the format that a file's first bytes show, None if they show none."""
    if _JSON.match(head):
        return Format.XGBOOST_JSON
    if _UBJSON.match(head):
        return Format.XGBOOST_UBJSON
    if _LIGHTGBM.match(head):
        return Format.LIGHTGBM
    if _PICKLE.match(head) or _PICKLE.match(_inflated(head)):
        return Format.PICKLE
    if _OLD_BOOSTER.match(head) or head.startswith(b"bs64"):
        return Format.XGBOOST_BINARY
    return None


def _suffix(name: str) -> str:
    """The last suffix; the one before it where joblib has compressed a pickle."""
    path = PurePath(name.lower())
    if path.suffix in _COMPRESSED and PurePath(path.stem).suffix in _PICKLES:
        return PurePath(path.stem).suffix
    return path.suffix


def _is_plain_xgboost(name: str) -> bool:
    # What SageMaker's training writes: one file, or one a fold (xgboost-model-0).
    return re.fullmatch(r"xgboost-model(?:-\d+)?", name) is not None


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""  # its name decides; whoever loads it says why it cannot be read


def _inflated(head: bytes) -> bytes:
    """Return the first bytes of what joblib compressed, nothing if it did not."""
    if head[:1] == b"x" or head[:2] == b"\x1f\x8b":
        try:
            return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head, _PEEK)
        except zlib.error:
            return b""
    if head.startswith((_XZ, _LZMA)):
        import lzma

        try:
            return lzma.LZMADecompressor().decompress(head, _PEEK)
        except lzma.LZMAError:
            return b""
    return b""

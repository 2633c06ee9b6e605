"""How much memory a model file takes once it is loaded, at a first guess.

The factors were measured in forks of a zygote that has the libraries imported (Python 3.11,
scikit-learn 1.9, XGBoost 3.2, LightGBM 4.7, ONNX Runtime 1.32): the peak of private
memory while the generic handler loads, less what any model process takes, over the file's bytes.
They are guesses for files not loaded before; what a load took is learned.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from manymodels.settings import MIB

HEAD_BYTES = 64 * 1024
"""What is read of a file to tell its kind, and how well it was compressed."""
_PIECE_BYTES = 16 * 1024
_MOST_INFLATED = MIB // 2
_MOST_RATIO = 12.0
"""Forests compress to a tenth; what seems better than this is not all of the file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What files of a kind take: ``fixed`` bytes whatever their size, and a factor of it."""

    name: str
    factor: float
    fixed: int = 0


# Forests 1.5 to 2.0 (the nodes once more as the generic handler walks them), arrays 0.8 to 1.0,
# text vectorizers 7: the floor takes their vocabulary.
PICKLE = Kind("pickle", 2.0)
# A booster within a pickle: 4.8 of an XGBClassifier's UBJSON.
PICKLED_XGBOOST = Kind("pickled XGBoost", 5.0)
PICKLED_LIGHTGBM = Kind("pickled LightGBM", 2.6)
# Each array is read whole and copied: 1.9 to 2.8.
SKOPS = Kind("skops", 2.8)
# The parsed document beside the trees: 8 of 1 MiB, 11.2 of 20 and 60 MiB.
XGBOOST_JSON = Kind("XGBoost JSON", 11.5)
# 3.5 of 12 MiB, 3.7 of 34 MiB.
XGBOOST_BINARY = Kind("XGBoost", 3.8)
# 2.3 of 10 MiB, 2.5 of 18 MiB: the text beside the trees.
LIGHTGBM = Kind("LightGBM", 2.6)
# The runtime cannot be preloaded, as it starts threads: 41 MiB with a model of nothing. Tree
# ensembles 12.2 to 12.6 beyond that, networks 3.1.
ONNX = Kind("ONNX", 3.2, 34 * MIB)
ONNX_TREES = Kind("ONNX trees", 12.5, 34 * MIB)
# Not measured: parameters are read whole and copied.
MXNET = Kind("MXNet", 2.0)
# What the model's own code may read as it is, and what it will hardly read all of: its packages.
OTHER = Kind("other", 1.0)
BELOW = Kind("below", 0.5)

_BY_SUFFIX: Mapping[str, Kind] = {
    **dict.fromkeys((".joblib", ".pkl", ".pickle"), PICKLE),
    **dict.fromkeys((".ubj", ".bst", ".xgb"), XGBOOST_BINARY),
    **dict.fromkeys((".lgb", ".lgbm"), LIGHTGBM),
    ".skops": SKOPS,
    ".onnx": ONNX,
    ".params": MXNET,
}
_COMPRESSED = (".gz", ".z", ".bz2", ".xz", ".lzma", ".lz4")
_PLAIN_XGBOOST = re.compile(r"xgboost-model(?:-\d+)?")
_OPAQUE = (b"\x04\x22\x4d\x18", b"BZh")
"""LZ4, which Python does not read, and bzip2, which gives nothing before it has a large block."""
_OPAQUE_RATIO = 4.0


def by_name(name: str, top: bool) -> Kind:
    """Return what a file's name says; ``top`` if it is at the top level of the model."""
    path = PurePath(name.lower())
    suffix = PurePath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    if _PLAIN_XGBOOST.fullmatch(name):
        return XGBOOST_BINARY
    return _BY_SUFFIX.get(suffix, OTHER if top else BELOW)


def by_head(named: Kind, head: bytes) -> tuple[Kind, float]:
    """Return the kind that a file's first bytes show, and how much larger it is uncompressed."""
    ratio, plain = _inflated(head)
    return _shown(named, plain), ratio


def _shown(named: Kind, plain: bytes) -> Kind:
    start = plain[:256]
    if re.match(rb"\x80[\x02-\x05]", start):
        if b"xgboost" in start:
            return PICKLED_XGBOOST
        return PICKLED_LIGHTGBM if b"lightgbm" in start else PICKLE
    if start.startswith(b"{") and re.search(rb"learner|version", start):
        return XGBOOST_JSON if start.lstrip(b"{ \r\n\t").startswith(b'"') else XGBOOST_BINARY
    if start.startswith((b"tree\n", b"tree\r\n")):
        return LIGHTGBM
    if named is ONNX and b"TreeEnsemble" in plain:
        return ONNX_TREES
    return named


def _inflated(head: bytes) -> tuple[float, bytes]:
    """Return the ratio of compression and the uncompressed start; 1 and the bytes if plain."""
    if head.startswith(_OPAQUE):
        return _OPAQUE_RATIO, b""
    for magic, decompressor in _DECOMPRESSORS.items():
        if head.startswith(magic):
            try:
                return _sampled(head, decompressor())
            except Exception:  # not compressed after all, or by what this Python cannot read
                break
    return 1.0, head


def _sampled(head: bytes, decompressor: Any) -> tuple[float, bytes]:
    """Return the ratio of all but the first piece, which may be of what is not like the rest.

    Labels, say, which compress to nothing, before the features, which do not.
    """
    plain, first, pieces = b"", 0, 0
    while len(plain) < _MOST_INFLATED and pieces * _PIECE_BYTES < len(head):
        piece = head[pieces * _PIECE_BYTES : (pieces + 1) * _PIECE_BYTES]
        plain += decompressor.decompress(piece, _MOST_INFLATED)
        pieces += 1
        first = first or len(plain)
    if pieces > 1:
        ratio = (len(plain) - first) / (min(pieces * _PIECE_BYTES, len(head)) - _PIECE_BYTES)
    else:
        ratio = len(plain) / max(1, len(head[:_PIECE_BYTES]))
    return min(_MOST_RATIO, max(1.0, ratio)), plain


def _zlib() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # with a gzip header, or without


def _lzma() -> Any:
    import lzma

    return lzma.LZMADecompressor()


_DECOMPRESSORS: Mapping[bytes, Callable[[], Any]] = {
    b"x": _zlib,
    b"\x1f\x8b": _zlib,
    b"\xfd7zXZ\0": _lzma,
    b"\x5d\0\0": _lzma,
}

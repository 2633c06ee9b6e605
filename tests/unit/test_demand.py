"""What a model's directory tells of the memory that its load will need."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels.backend import artifact_kinds as kinds
from manymodels.backend.demand import BASE_BYTES, MOST_DEPTH, MOST_ENTRIES, Demand
from manymodels.settings import MIB

PICKLE = b"\x80\x04\x95" + b"\x00" * 100
UNCOMPRESSIBLE = random.Random(0).randbytes(MIB)


def model(directory: Path, **files: bytes) -> Path:
    """Write a model's files; in a name ``_dot_`` stands for a dot and ``__`` for a slash."""
    for name, content in files.items():
        path = directory / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def padded(start: bytes, size: int = MIB) -> bytes:
    return start + UNCOMPRESSIBLE[: size - len(start)]


@pytest.mark.parametrize(
    ("name", "start", "kind"),
    [
        ("model.pkl", PICKLE, kinds.PICKLE),
        ("model.joblib", PICKLE + b"xgboost.sklearn", kinds.PICKLED_XGBOOST),
        ("model.joblib", PICKLE + b"lightgbm.basic", kinds.PICKLED_LIGHTGBM),
        ("model.skops", b"PK\x03\x04", kinds.SKOPS),
        ("model.json", b'{"learner":{', kinds.XGBOOST_JSON),
        ("model.json", b'{"version":[3,0,0],"learner":{', kinds.XGBOOST_JSON),
        ("model.json", b'{"words":{', kinds.OTHER),
        ("model.ubj", b"{L\0\0\0\0\0\0\0\x07learner", kinds.XGBOOST_BINARY),
        ("xgboost-model", b"{L\0\0\0\0\0\0\0\x07learner", kinds.XGBOOST_BINARY),
        ("xgboost-model", b'{"learner":{', kinds.XGBOOST_JSON),
        ("xgboost-model-3", PICKLE + b"xgboost.core", kinds.PICKLED_XGBOOST),
        ("xgboost-model", b"binf", kinds.XGBOOST_BINARY),
        ("model.txt", b"tree\nversion=v4", kinds.LIGHTGBM),
        ("model.txt", b"notes", kinds.OTHER),
        ("model.LGBM", b"tree\r\nversion=v4", kinds.LIGHTGBM),
        ("model.onnx", b"\x08\x08", kinds.ONNX),
        ("model.onnx", b"\x08\x08" + b"\0" * 99 + b"TreeEnsembleClassifier", kinds.ONNX_TREES),
        ("net-0000.params", b"\x12\x01", kinds.MXNET),
        ("weights.bin", b"\x00", kinds.OTHER),
        ("weights.bin", PICKLE, kinds.PICKLE),
    ],
)
def test_a_files_kind_is_told_by_its_name_and_its_first_bytes(tmp_path, name, start, kind):
    (tmp_path / name).write_bytes(padded(start))
    demand = Demand.of(tmp_path)
    assert (demand.kind, demand.fixed) == (kind.name, kind.fixed)
    assert demand.expected == int(kind.factor * MIB)


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl.gz", "model.joblib.xz", "model.pkl.z"])
@pytest.mark.parametrize(
    "compress",
    [zlib.compress, gzip.compress, lzma.compress],
    ids=lambda f: f.__module__,
)
def test_a_compressed_pickle_counts_with_what_it_is_uncompressed(tmp_path, name, compress):
    rows = random.Random(1)
    plain = PICKLE + b"".join(rows.randbytes(1) * 8 for _ in range(2 * MIB // 8))
    (tmp_path / name).write_bytes(compress(plain))
    demand = Demand.of(tmp_path)
    assert demand.kind == "pickle"
    assert 0.6 * 4 * MIB < demand.expected < 1.7 * 4 * MIB


def test_a_compressed_pickle_does_not_go_by_a_beginning_that_is_not_like_the_rest(tmp_path):
    labels = random.Random(2).choices((bytes(8), b"\1" + bytes(7)), k=40_000)
    plain = PICKLE + b"".join(labels) + UNCOMPRESSIBLE
    (tmp_path / "model.joblib").write_bytes(zlib.compress(plain))
    assert Demand.of(tmp_path).expected < 1.1 * kinds.PICKLE.factor * MIB


def test_a_compressed_pickle_that_shows_nothing_counts_with_what_is_usual(tmp_path):
    (tmp_path / "model.pkl.bz2").write_bytes(bz2.compress(UNCOMPRESSIBLE))
    assert 8 * MIB < Demand.of(tmp_path).expected < 8.1 * MIB


@pytest.mark.parametrize("start", [b"x\x9c", b"\x1f\x8b", b"\xfd7zXZ\0", b"\x5d\0\0"])
def test_a_file_that_only_begins_as_a_compressed_one_counts_as_it_is(tmp_path, start):
    (tmp_path / "model.pkl").write_bytes(padded(start + b"no"))
    assert Demand.of(tmp_path).expected == int(kinds.PICKLE.factor * MIB)


def test_a_bomb_is_not_inflated(tmp_path):
    (tmp_path / "model.pkl.gz").write_bytes(gzip.compress(bytes(200 * MIB)))
    size = (tmp_path / "model.pkl.gz").stat().st_size
    assert Demand.of(tmp_path).expected <= 12 * 2 * size


@given(
    st.binary(max_size=400), st.sampled_from(["a.pkl", "a.json", "a.onnx", "a", "xgboost-model"])
)
def test_no_bytes_are_too_strange_to_tell_a_kind(head, name):
    kind, ratio = kinds.by_head(kinds.by_name(name, top=True), head)
    assert kind.factor > 0
    assert 1 <= ratio <= 12


def test_all_files_count_and_the_heaviest_gives_the_kind(tmp_path):
    model(tmp_path, a_dot_pkl=padded(PICKLE), b_dot_json=padded(b'{"learner":{'), c=b"1" * MIB)
    demand = Demand.of(tmp_path)
    assert demand.kind == "XGBoost JSON"
    assert demand.expected == int((2.0 + 11.5 + 1.0) * MIB)


def test_a_model_with_code_is_of_another_kind_than_one_without(tmp_path):
    model(tmp_path, a_dot_pkl=padded(PICKLE), code__inference_dot_py=b"import torch")
    assert Demand.of(tmp_path).kind == "pickle with code"


def test_what_lies_deeper_weighs_less_as_it_is_mostly_libraries(tmp_path):
    model(tmp_path, code__lib__torch_dot_so=UNCOMPRESSIBLE)
    assert Demand.of(tmp_path).expected == MIB // 2


# -- what names it -------------------------------------------------------------------------------


def test_a_model_that_was_fetched_again_is_the_same_model(tmp_path):
    one = model(tmp_path / "one", a_dot_pkl=padded(PICKLE), code__b_dot_py=b"1")
    two = model(tmp_path / "two", code__b_dot_py=b"2", a_dot_pkl=padded(PICKLE))
    os.utime(two / "a.pkl", (0, 0))
    assert Demand.of(one) == Demand.of(two)


def test_a_file_of_another_size_or_name_makes_another_model(tmp_path):
    one = Demand.of(model(tmp_path / "one", a_dot_pkl=PICKLE))
    longer = Demand.of(model(tmp_path / "two", a_dot_pkl=PICKLE + b"1"))
    renamed = Demand.of(model(tmp_path / "three", b_dot_pkl=PICKLE))
    assert len({one.key, longer.key, renamed.key}) == 3


# -- directories that are not as they should be --------------------------------------------------


@pytest.mark.parametrize("name", ["absent", "file", "nul\0", "loop", "unreadable"])
def test_a_directory_that_cannot_be_read_is_a_demand_of_the_base(tmp_path, name):
    (tmp_path / "file").write_bytes(b"1" * MIB)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "unreadable").mkdir(mode=0)
    assert Demand.of(tmp_path / name).guess == BASE_BYTES


def test_an_empty_directory_is_named_by_its_path(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    assert Demand.of(one).guess == BASE_BYTES
    assert Demand.of(one).key != Demand.of(two).key


def test_links_to_nowhere_and_pipes_have_no_weight_and_are_not_opened(tmp_path):
    (tmp_path / "model.pkl").symlink_to("nowhere")
    os.mkfifo(tmp_path / "model.joblib")
    assert Demand.of(tmp_path).guess == BASE_BYTES


def test_a_link_to_a_file_counts_and_a_link_to_a_directory_does_not(tmp_path):
    outside = model(tmp_path / "outside", a_dot_pkl=padded(PICKLE))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "all").symlink_to(outside)
    assert Demand.of(inside).expected == 0
    (inside / "model.pkl").symlink_to(outside / "a.pkl")
    assert Demand.of(inside).expected == 2 * MIB


def test_a_name_that_is_no_text_is_read_as_any_other(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"model\xff.pkl"), "wb") as file:
        file.write(padded(PICKLE))
    assert Demand.of(tmp_path).expected == 2 * MIB


def test_only_so_many_entries_are_looked_at_and_only_so_deep(tmp_path, monkeypatch):
    looked: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> object:
        looked.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    deep = tmp_path / "deep"
    (deep / "/".join("abcdefgh")).mkdir(parents=True)
    Demand.of(deep)
    assert len(looked) == MOST_DEPTH
    wide = tmp_path / "wide"
    wide.mkdir()
    for number in range(MOST_ENTRIES + 100):
        (wide / f"{number}").write_bytes(b"1" * 1000)
    assert Demand.of(wide).expected == 1000 * MOST_ENTRIES

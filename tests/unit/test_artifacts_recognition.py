"""What kind of model a file is, by its first bytes and its name."""

import bz2
import gzip
import lzma
import pickle
import zlib
from pathlib import Path

import joblib
import lightgbm
import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression

from manymodels.artifacts.recognition import Format, by_content, by_name, recognize

DATA = Path(__file__).parent / "data"
ROWS = np.random.default_rng(0).normal(size=(60, 3))
LABELS = (ROWS[:, 0] > 0).astype(int)
OLD_BOOSTER = (DATA / "xgboost-binary-2.1.4").read_bytes()


@pytest.fixture(scope="module")
def estimator():
    return LogisticRegression().fit(ROWS, LABELS)


@pytest.fixture(scope="module")
def booster():
    return xgboost.train({"nthread": 1}, xgboost.DMatrix(ROWS, LABELS), 2)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", ["xgboost-model", "model.bin", "model.model", "booster.xgb"])
def test_a_pickle_is_told_by_content_whatever_its_protocol(tmp_path, estimator, protocol, name):
    (tmp_path / name).write_bytes(pickle.dumps(estimator, protocol))
    assert recognize(tmp_path / name) is Format.PICKLE


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("xz", 3), ("lzma", 3)])
def test_what_joblib_wrote_is_told_by_content(tmp_path, estimator, compress):
    joblib.dump(estimator, tmp_path / "model", compress=compress)
    assert recognize(tmp_path / "model") is Format.PICKLE


@pytest.mark.parametrize("suffix", [".pkl.gz", ".pkl.z", ".joblib.bz2", ".pickle.xz", ".PKL.GZ"])
def test_a_compressed_pickle_is_told_by_its_name(suffix):
    assert by_name(f"model{suffix}") is Format.PICKLE


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_other_compressed_files_are_no_models(tmp_path, pack):
    (tmp_path / "data.bin").write_bytes(pack(b"a,b\n1,2\n" * 1000))
    assert recognize(tmp_path / "data.bin") is None


@pytest.mark.parametrize("raw", ["json", "ubj"])
@pytest.mark.parametrize("name", ["xgboost-model", "xgboost-model-0", "a.bin", "a.model", "a.pkl"])
def test_a_booster_is_told_by_content_whatever_its_name(tmp_path, booster, raw, name):
    (tmp_path / name).write_bytes(booster.save_raw(raw))
    wanted = Format.XGBOOST_JSON if raw == "json" else Format.XGBOOST_UBJSON
    assert recognize(tmp_path / name) is wanted


@pytest.mark.parametrize("content", [OLD_BOOSTER, OLD_BOOSTER[4:]], ids=["since 1.0", "before"])
def test_the_old_binary_format_is_told_by_content(content):
    assert by_content(content) is Format.XGBOOST_BINARY


def test_a_lightgbm_text_is_told_by_content():
    trained = lightgbm.train(
        {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}, lightgbm.Dataset(ROWS, LABELS), 1
    )
    assert by_content(trained.model_to_string().encode()) is Format.LIGHTGBM


@pytest.mark.parametrize(
    "content",
    [
        b'{"learner":{"x":1}}',
        b'{"version": [3, 2, 0], "learner": {}}',
        b'\n{\n\t"version" : [ 1 ,\n 7, 6 ],\n "learner" : {',
    ],
)
def test_xgboosts_json_is_told_however_it_is_laid_out(content):
    assert by_content(content) is Format.XGBOOST_JSON


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", b"# A model\n"),
        ("labels.txt", b"cat\ndog\n"),
        ("labels.txt", b"tree\nbush\n"),
        ("words.bin", b"cat\ndog\nrat\npig\n"),
        ("requirements.txt", b"numpy\n"),
        ("inference.py", b"class A:\n    pass\n"),
        ("sample.json", b'{"instances": [[1, 2, 3]]}'),
        ("sample.json", b'{"learner": "me"}'),
        ("sample.json", b'{"name": {"learner": {}}}'),
        ("list.json", b'["learner"]'),
        ("empty.json", b""),
        ("empty.txt", b""),
        ("weights.bin", b"\0" * 4096),
        ("weights.bin", bytes(range(256)) * 16),
        ("SHA256SUMS", b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  m\n"),
        ("rows.npy", b"\x93NUMPY\x01\0"),
        ("net-0000.params", b"\x12\x01\0\0\0\0\0\0"),
    ],
)
def test_what_is_no_model_is_not_taken_for_one(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert recognize(tmp_path / name) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("m.pkl", Format.PICKLE),
        ("m.JOBLIB", Format.PICKLE),
        ("m.skops", Format.SKOPS),
        ("m.ubj", Format.XGBOOST_UBJSON),
        ("m.onnx", Format.ONNX),
        ("m.lgb", Format.LIGHTGBM),
        ("xgboost-model", Format.XGBOOST_UNKNOWN),
        ("m.bst", Format.XGBOOST_UNKNOWN),
        ("xgboost-model.txt", None),
    ],
)
def test_a_name_tells_where_the_content_does_not(tmp_path, name, wanted):
    (tmp_path / name).write_bytes(b"garbage")
    assert recognize(tmp_path / name) is wanted


def test_a_large_file_is_read_no_further_than_its_first_block(tmp_path):
    path = tmp_path / "requests.json"
    with path.open("wb") as file:
        file.write(b'{"instances": [')
        file.truncate(1 << 36)  # a hole: only a reader would notice how large it is
    assert recognize(path) is None

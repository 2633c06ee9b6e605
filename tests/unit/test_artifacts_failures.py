"""What does not load says why, what is hostile does no harm, and what cannot be safe is refused."""

import bz2
import gzip
import logging
import lzma
import os
import pickle
import struct
import zlib
from pathlib import Path

import joblib
import numpy as np
import pytest
import sklearn
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from manymodels.artifacts import load
from manymodels.artifacts.failures import explain
from manymodels.artifacts.provenance import load_noting, written_by
from manymodels.errors import ModelLoadError

DATA = Path(__file__).parent / "data"
ROWS = np.random.default_rng(0).normal(size=(60, 3))
BINARY = (ROWS[:, 0] > 0).astype(int)
HERE = sklearn.__version__
ELSEWHERE = "0" + HERE[1:]
"""A version that was never there, as long as the one that is."""


@pytest.fixture(scope="module")
def estimator():
    return LogisticRegression().fit(ROWS, BINARY)


def of_another_version(content):
    """A pickle as another scikit-learn would have written it."""
    assert HERE.encode() in content
    return content.replace(HERE.encode(), ELSEWHERE.encode())


class Stubborn:
    """Pickled with scikit-learn's version in its state, and not to be unpickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return raising, (self.error, {"_sklearn_version": ELSEWHERE})


def raising(error, state):
    raise error


# What is missing.


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"cnot_installed_here.models\nThing\n.",
            "model.pkl needs the module 'not_installed_here', which is not installed: install it, "
            "or put it into the model's code/ or code/lib/",
        ),
        (
            b"c__main__\nTrainedHere\n.",
            "model.pkl needs 'TrainedHere', which the training script itself defined (in "
            "__main__): move it to a module of its own in the model's code/, import it from there "
            "for training, and write the file again",
        ),
        (
            b"csklearn.linear_model\nGoneRegression\n.",
            "model.pkl needs 'GoneRegression' of the module 'sklearn.linear_model', which has none "
            "here",
        ),
        (
            b"csklearn.ensemble._gone\nThing\n.",
            "model.pkl needs the module 'sklearn.ensemble._gone', which sklearn here does not have",
        ),
    ],
)
@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("versioned", [False, True])
def test_what_a_pickle_needs_is_named(tmp_path, content, reason, versioned, protocol):
    if protocol == 4:
        module, name, _ = content[1:].split(b"\n")
        texts = (b"\x8c" + bytes([len(text)]) + text for text in (module, name))
        content = b"\x80\x04" + b"".join(texts) + b"\x93."
    if versioned:
        content = content[:-1] + b"0V_sklearn_version\nV" + ELSEWHERE.encode() + b"\n."
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    version = f"; it was written by scikit-learn {ELSEWHERE}, and scikit-learn {HERE} is here"
    if versioned and "__main__" not in reason:
        head, separator, advice = reason.partition(": install it")
        assert caught.value.message == f"{head}{version}{separator}{advice}"
    else:
        assert caught.value.message == reason


@pytest.mark.parametrize("dump", [pickle.dumps, lambda one: zlib.compress(pickle.dumps(one))])
def test_the_version_that_wrote_a_pickle_is_named_when_it_does_not_load(tmp_path, dump):
    (tmp_path / "model.pkl").write_bytes(dump(Stubborn(ValueError("incompatible dtype"))))
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    assert caught.value.message == (
        "model.pkl does not load: ValueError: incompatible dtype; it was written by scikit-learn "
        f"{ELSEWHERE}, and scikit-learn {HERE} is here"
    )


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'numpy._core'", name="numpy._core"),
        ValueError("<class 'numpy.random._mt19937.MT19937'> is not a known BitGenerator module."),
    ],
)
def test_a_pickle_of_numpy_2_says_so_where_numpy_1_is(monkeypatch, error):
    monkeypatch.setattr(
        "manymodels.artifacts.failures.running", lambda library: f"{library} 1.23.5"
    )
    message = explain(Path("model.pkl"), error)
    assert message == "model.pkl was written with NumPy 2, and numpy 1.23.5 is here"


# Which version wrote it.


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_version_in_a_pickle_is_found_without_unpickling(tmp_path, estimator, protocol):
    (tmp_path / "m").write_bytes(of_another_version(pickle.dumps(estimator, protocol)))
    assert written_by(tmp_path / "m") == f"scikit-learn {ELSEWHERE}"


@pytest.mark.parametrize(
    "pack", [bytes, zlib.compress, gzip.compress, bz2.compress, lzma.compress], ids=lambda f: str(f)
)
@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 200_000])
def test_the_version_is_found_behind_whatever_comes_before(tmp_path, estimator, pack, size):
    content = pickle.dumps([np.zeros(size, np.uint8), estimator])
    (tmp_path / "m").write_bytes(pack(content))
    assert written_by(tmp_path / "m") == f"scikit-learn {HERE}"


def test_the_version_is_found_in_what_joblib_wrote(tmp_path, estimator):
    joblib.dump(estimator, tmp_path / "m")
    assert written_by(tmp_path / "m") == f"scikit-learn {HERE}"


@pytest.mark.parametrize(
    "content", [b"", b"x", b"x\x9c", b"\x1f\x8b", b"BZh91AY", b"\xfd7zXZ\0", b"]\0\0", b"garbage"]
)
def test_a_file_that_says_no_version_says_none(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    assert written_by(tmp_path / "m") is None


@pytest.mark.parametrize("n_estimators", [1, 20])
def test_another_version_is_one_warning_and_is_told_of_the_model(tmp_path, caplog, n_estimators):
    forest = RandomForestClassifier(n_estimators, random_state=0).fit(ROWS, BINARY)
    (tmp_path / "model.pkl").write_bytes(of_another_version(pickle.dumps(forest)))
    with caplog.at_level(logging.WARNING):
        model = load(tmp_path)
    warning = (
        f"written by scikit-learn {ELSEWHERE}, read by scikit-learn {HERE}: predictions may "
        "differ or fail"
    )
    assert [record.getMessage() for record in caplog.records] == [f"model.pkl: {warning}"]
    assert model.origin == {
        "file": "model.pkl",
        "format": "pickle",
        "written_by": f"scikit-learn {ELSEWHERE}",
        "running": f"scikit-learn {HERE}",
        "warning": warning,
    }
    np.testing.assert_array_equal(model.predict(ROWS), forest.predict(ROWS))


def test_the_same_version_is_no_warning(tmp_path, caplog, estimator):
    joblib.dump(estimator, tmp_path / "model.pkl")
    model = load(tmp_path)
    assert caplog.records == []
    assert model.origin["written_by"] == model.origin["running"] == f"scikit-learn {HERE}"


def test_another_xgboost_is_told_by_its_own_warning(tmp_path, caplog):
    import warnings

    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(ROWS, BINARY), 1)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(booster))

    def read(path):
        warnings.warn("generated by an older version of XGBoost, please", stacklevel=1)
        return booster

    _, origin = load_noting(tmp_path / "m.pkl", read)
    assert origin["written_by"] == f"xgboost {xgboost.__version__}"
    assert len(caplog.records) == 1


def test_other_warnings_are_left_to_who_wants_them(tmp_path, caplog):
    import warnings

    with pytest.warns(RuntimeWarning, match="of something else"):
        load_noting(tmp_path, lambda path: warnings.warn("of something else", RuntimeWarning, 1))
    assert caplog.records == []


# Files that are not what they seem.

BOOSTER = xgboost.train({"nthread": 1}, xgboost.DMatrix(ROWS, BINARY), 2)
SUFFIXES = (".pkl", ".joblib", ".pickle", ".ubj", ".skops", ".onnx", ".lgb", ".bst", ".xgb")


@pytest.mark.parametrize("name", [*(f"model{suffix}" for suffix in SUFFIXES), "xgboost-model"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"garbage", b"\x80\x05\x95", b"\xff" * 5000, b"PK\x05\x06" + bytes(18),
     struct.pack("<Q", 2**63), b"{L" + struct.pack(">q", 2**62), b"[" * 3000],
    ids=range(9),
)  # fmt: skip
def test_garbage_by_the_name_of_a_model_is_named_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    assert caught.value.message.startswith(f"{name} does not load: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("kind", ["pickle", "joblib", "zlib"])
def test_a_pickle_that_was_cut_short_is_named(tmp_path, estimator, part, kind):
    path = tmp_path / "model.pkl"
    joblib.dump(estimator, path, compress=3 if kind == "zlib" else 0)
    content = pickle.dumps(estimator) if kind == "pickle" else path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelLoadError, match=r"^model\.pkl does not load: \w+"):
        load(tmp_path)


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_a_pipe_or_directory_by_the_name_of_a_model_is_no_model_and_not_waited_for(
    tmp_path, estimator, make, safe
):
    make(tmp_path / "model.pkl")
    make(tmp_path / "xgboost-model")
    with pytest.raises(ModelLoadError, match=r"found model\.pkl(/| \(no regular file\)), xgboost"):
        load(tmp_path, safe=safe)
    joblib.dump(estimator, tmp_path / "real.joblib")
    assert load(tmp_path).kind == "LogisticRegression"


def test_a_large_file_beside_the_model_is_not_read(tmp_path, estimator, monkeypatch):
    joblib.dump(estimator, tmp_path / "model.pkl")
    for name in ("requests.json", "big.txt", "weights.bin", "archive.dat"):
        with (tmp_path / name).open("wb") as file:
            file.write(b'{"instances": [')
            file.truncate(1 << 36)  # a hole
    monkeypatch.setattr(Path, "read_bytes", None)
    assert load(tmp_path).kind == "LogisticRegression"


def test_a_model_by_any_other_name_is_found_where_no_name_is_a_models(tmp_path, estimator):
    (tmp_path / "README.md").write_text("# Model")
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    joblib.dump(estimator, tmp_path / "estimator.sav", compress=3)
    assert load(tmp_path).origin["file"] == "estimator.sav"
    joblib.dump(estimator, tmp_path / "model.pkl")
    assert load(tmp_path).origin["file"] == "model.pkl"


def test_what_lies_about_is_listed_when_there_is_no_model(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").write_bytes(b"\0" * 10)
    (tmp_path / "gone.pkl").symlink_to("nowhere")
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    assert caught.value.message.endswith(
        "; found gone.pkl (no regular file), inner/, weights.bin (no model by its content)"
    )


def test_no_more_names_are_listed_than_one_can_read(tmp_path):
    for index in range(30):
        (tmp_path / f"{index:02}.md").touch()
    with pytest.raises(ModelLoadError, match=r"18\.md, 19\.md, 10 more$"):
        load(tmp_path)


# What cannot run code.


@pytest.mark.parametrize("name", ["m.json", "m.ubj", "xgboost-model", "m.bin", "m.pkl"])
@pytest.mark.parametrize("raw", ["json", "ubj"])
def test_what_cannot_run_code_is_safe_whatever_its_name(tmp_path, name, raw):
    (tmp_path / name).write_bytes(BOOSTER.save_raw(raw))
    assert load(tmp_path, safe=True).framework == "xgboost"


class Witness:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    "name",
    [*(f"m{suffix}" for suffix in SUFFIXES), "xgboost-model", "m.bin", "m.model", "m", "m.z"],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("compress", [False, True])
def test_a_pickle_is_refused_by_its_content_and_not_read(tmp_path, name, protocol, compress):
    trace = tmp_path / "trace"
    content = pickle.dumps(Witness(str(trace)), protocol)
    (tmp_path / name).write_bytes(zlib.compress(content) if compress else content)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path, safe=True)
    assert not trace.exists()
    if name.endswith((".pkl", ".bin", ".model", "m")):
        assert caught.value.message == (
            f"{name} (pickle) is not loaded with MANYMODELS_ARTIFACTS=safe, which admits XGBoost "
            "JSON, XGBoost UBJSON, skops, ONNX, LightGBM text: what cannot run code"
        )
    with pytest.raises(ModelLoadError):
        load(tmp_path)


def test_the_old_binary_format_is_refused_where_only_safe_ones_load(tmp_path):
    (tmp_path / "xgboost-model").write_bytes((DATA / "xgboost-binary-2.1.4").read_bytes())
    with pytest.raises(ModelLoadError, match=r"old binary format\) is not loaded with MANYMODELS"):
        load(tmp_path, safe=True)


def test_no_pickle_of_an_ensemble_is_read_where_only_safe_ones_load(tmp_path):
    BOOSTER.save_model(tmp_path / "a.ubj")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Witness(str(tmp_path / "trace"))))
    with pytest.raises(ModelLoadError, match=r"b\.pkl \(pickle\) is not loaded"):
        load(tmp_path, safe=True, ensemble=True)
    assert not (tmp_path / "trace").exists()


def test_a_link_out_of_the_directory_is_followed_unless_only_safe_ones_load(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    inside.mkdir()
    BOOSTER.save_model(outside / "model.ubj")
    (inside / "model.ubj").symlink_to(outside / "model.ubj")
    assert load(inside).kind == "Booster"
    with pytest.raises(ModelLoadError, match=r"model\.ubj is a link out of the model's directory"):
        load(inside, safe=True)
    (inside / "weights").symlink_to(outside / "model.ubj")
    for name in ("model.ubj", "weights"):
        (inside / "manymodels.json").write_text(f'{{"model": "{name}"}}')
        with pytest.raises(ModelLoadError, match=f"{name} is a link out of the model's directory"):
            load(inside, safe=True)


def test_other_links_disturb_nothing(tmp_path):
    inside, linked = tmp_path / "model", tmp_path / "linked"
    inside.mkdir()
    (tmp_path / "README.md").write_text("# Model")
    BOOSTER.save_model(inside / "saved.ubj")
    (inside / "README.md").symlink_to(tmp_path / "README.md")
    linked.symlink_to(inside)
    assert load(inside, safe=True).kind == "Booster"
    assert load(linked, safe=True).kind == "Booster"
    (inside / "saved.ubj").rename(inside / "saved")
    (inside / "model.ubj").symlink_to("saved")
    assert load(inside, safe=True).origin["file"] == "model.ubj"


# MXNet's, told apart from XGBoost's; what is in them is tested where MXNet is.


@pytest.fixture
def network(tmp_path):
    nodes = '[{"op": "null", "name": "data", "inputs": []}]'
    (tmp_path / "net-symbol.json").write_text(
        f'{{"nodes": {nodes}, "arg_nodes": [0], "heads": [[0, 0, 0]]}}'
    )
    (tmp_path / "net-0000.params").write_bytes(b"\x12\x01" + bytes(30))
    return tmp_path


def test_a_network_is_told_by_its_files_and_is_not_among_the_safe_ones(network):
    with pytest.raises(ModelLoadError, match=r"net-symbol\.json .*not loaded with MANYMODELS_ARTI"):
        load(network, safe=True)
    BOOSTER.save_model(network / "booster.json")
    with pytest.raises(ModelLoadError, match=r"more than one model .*: net-symbol\.json, booster"):
        load(network)
    (network / "manymodels.json").write_text('{"model": "booster.json"}')
    assert load(network).framework == "xgboost"
    (network / "manymodels.json").write_text('{"model": "net-symbol.json"}')
    with pytest.raises(ModelLoadError, match=r"net-symbol\.json \(MXNet"):
        load(network, safe=True)

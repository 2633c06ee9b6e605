"""skops, LightGBM and ONNX: files that cannot run code, each behind an extra."""

import os.path
import pickle
import subprocess
import sys

import joblib
import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import skops.io
import xgboost
from skl2onnx import to_onnx
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from manymodels.artifacts import adopt, load
from manymodels.errors import BadRequest, ModelLoadError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(120, 3)).astype(np.float32).astype(np.float64)
LABELS = np.array(["high", "low", "mid"])[np.digitize(ROWS[:, 0], [-0.4, 0.4])]
CODES = np.digitize(ROWS[:, 0], [-0.4, 0.4]) + 5
BINARY = (ROWS[:, 0] > 0).astype(int)


# skops.


@pytest.mark.parametrize("safe", [False, True])
def test_a_skops_file_loads_and_answers_as_its_estimator(tmp_path, safe):
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    skops.io.dump(estimator, tmp_path / "model.skops")
    model = load(tmp_path, safe=safe)
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(ROWS))
    assert (model.framework, model.kind, model.columns.count) == ("scikit-learn", "Pipeline", 3)
    assert model.origin["format"] == "skops"


def untrusted(tmp_path):
    step = FunctionTransformer(os.path.basename)
    skops.io.dump(make_pipeline(step, LogisticRegression()), tmp_path / "model.skops")
    return os.path.basename.__module__ + ".basename"


def test_a_type_that_is_not_trusted_is_named_with_the_way_to_trust_it(tmp_path):
    name = untrusted(tmp_path)
    with pytest.raises(ModelLoadError, match=rf"model\.skops .* not trusted: {name}; .*trusted_ty"):
        load(tmp_path)


def test_a_trusted_type_loads_unless_only_safe_ones_do(tmp_path):
    estimator = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(ROWS, BINARY)
    skops.io.dump(estimator, tmp_path / "model.skops")
    trusted = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    description = '{"trusted_types": ["' + '", "'.join(trusted) + '"]}'
    (tmp_path / "manymodels.json").write_text(description)
    np.testing.assert_array_equal(load(tmp_path).predict(ROWS), estimator.predict(ROWS))
    with pytest.raises(ModelLoadError, match=r"xgboost.*MANYMODELS_ARTIFACTS=safe loads what sko"):
        load(tmp_path, safe=True)


@pytest.mark.parametrize("content", [b"garbage", b"PK\x03\x04garbage"])
def test_what_is_no_skops_file_is_named(tmp_path, content):
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"model\.skops does not load: it is no skops file"):
        load(tmp_path)


def test_a_pickle_by_the_name_of_a_skops_file_is_a_pickle(tmp_path):
    joblib.dump(LogisticRegression().fit(ROWS, BINARY), tmp_path / "model.skops")
    assert load(tmp_path).origin["format"] == "pickle"
    with pytest.raises(ModelLoadError, match=r"model\.skops \(pickle\) is not loaded with MANYMOD"):
        load(tmp_path, safe=True)


# LightGBM.


def light(objective="binary", labels=BINARY, rows=ROWS, **parameters):
    parameters = {"objective": objective, "verbose": -1, "num_threads": 1, **parameters}
    return lightgbm.train(parameters, lightgbm.Dataset(rows, labels), 3)


@pytest.mark.parametrize("name", ["model.txt", "model.lgb", "m.model", "xgboost-model", "model"])
def test_a_lightgbm_text_loads_by_its_content(tmp_path, name):
    booster = light()
    (tmp_path / name).write_text(booster.model_to_string())
    (tmp_path / "labels.txt").write_text("tree\nbush\n")
    model = load(tmp_path)
    assert (model.framework, model.kind, model.columns.count) == ("lightgbm", "Booster", 3)
    assert (model.columns.names, model.columns.numbers) == (None, True)
    np.testing.assert_array_equal(model.predict(ROWS), booster.predict(ROWS))
    assert model.origin["objective"] == "binary"


@pytest.mark.parametrize(
    ("objective", "options"),
    [("binary", {}), ("multiclass", {"num_class": 3}), ("multiclassova", {"num_class": 3})],
)
def test_a_classifying_lightgbm_booster_answers_labels_and_probabilities(
    tmp_path, objective, options
):
    booster = light(objective, CODES - 5 if options else BINARY, **options)
    booster.save_model(tmp_path / "model.txt")
    model = load(tmp_path)
    predictions = booster.predict(ROWS)
    wanted = predictions.argmax(axis=1) if options else (predictions > 0.5).astype(int)
    np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted)
    probabilities = model.call(model.probabilities, ROWS)
    assert probabilities.shape == (len(ROWS), 3 if options else 2)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), wanted)
    np.testing.assert_array_equal(
        model.call(model.raw_scores, ROWS), booster.predict(ROWS, raw_score=True)
    )


@pytest.mark.parametrize("objective", ["regression", "poisson", "quantile", "cross_entropy"])
def test_a_lightgbm_booster_that_does_not_classify_has_no_classes(tmp_path, objective):
    booster = light(objective, np.abs(ROWS[:, 0]) / 10)
    booster.save_model(tmp_path / "model.txt")
    model = load(tmp_path)
    np.testing.assert_array_equal(model.predict(ROWS), booster.predict(ROWS))
    assert (model.classes, model.labels, model.probabilities) == (None, None, None)


@pytest.fixture(scope="module")
def frame():
    return pd.DataFrame(
        {
            "size": ROWS[:, 0],
            "colour": pd.Categorical(RNG.choice(["red", "green", "blue"], len(ROWS))),
            "code": pd.Categorical(RNG.choice([10, 20, 30], len(ROWS))),
        }
    )


@pytest.fixture(scope="module")
def coloured(frame):
    labels = np.where((frame.colour == "red") | (frame.code == 20), "yes", "no")
    return lightgbm.LGBMClassifier(n_estimators=4, n_jobs=3, verbose=-1).fit(frame, labels)


@pytest.mark.parametrize("kind", ["saved", "booster", "estimator"])
def test_trained_categories_are_known_again(tmp_path, frame, coloured, kind):
    if kind == "saved":
        coloured.booster_.save_model(tmp_path / "model.txt")
    else:
        joblib.dump(coloured if kind == "estimator" else coloured.booster_, tmp_path / "m.pkl")
    model = load(tmp_path)
    assert model.columns.names == ("size", "colour", "code")
    assert (model.columns.frame, model.columns.text) == (True, {1})
    rows = frame.assign(colour=frame.colour.astype(object), code=frame.code.astype(float))
    wanted = coloured.predict_proba(frame)
    np.testing.assert_array_equal(model.call(model.probabilities, rows), wanted)
    np.testing.assert_array_equal(
        model.call(model.probabilities, rows.iloc[[4]]), coloured.predict_proba(frame.iloc[[4]])
    )
    expected = coloured.predict(frame) if kind == "estimator" else wanted[:, 1]
    np.testing.assert_array_equal(model.predict(rows), expected)
    if kind == "estimator":
        assert model.native.n_jobs == 1


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("kind", [lightgbm.LGBMClassifier, lightgbm.LGBMRegressor])
def test_a_pickled_lightgbm_estimator_answers_as_itself(tmp_path, kind, named):
    rows = pd.DataFrame(ROWS, columns=["a", "b", "c"]) if named else ROWS
    estimator = kind(n_estimators=3, n_jobs=1, verbose=-1).fit(rows, CODES)
    joblib.dump(estimator, tmp_path / "model.pkl")
    model = load(tmp_path)
    assert model.columns.names == (("a", "b", "c") if named else None)
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(rows))
    if kind is lightgbm.LGBMClassifier:
        assert model.classes.tolist() == [5, 6, 7]
        np.testing.assert_array_equal(
            model.call(model.probabilities, ROWS), estimator.predict_proba(rows)
        )


@pytest.mark.parametrize(
    "content", ["tree\nversion=v4\n", "tree\nversion=v4\nnum_class=1\nlabel_index=0\n"]
)
def test_a_lightgbm_text_that_was_cut_short_is_named(tmp_path, content):
    (tmp_path / "model.txt").write_text(content)
    with pytest.raises(ModelLoadError, match=r"model\.txt does not load: LightGBMError"):
        load(tmp_path)


# ONNX.


def converted(tmp_path, estimator, example=None, name="model.onnx", **options):
    if example is None:
        example = ROWS.astype(np.float32)
    given = {"initial_types": example} if isinstance(example, list) else {"X": example}
    (tmp_path / name).write_bytes(to_onnx(estimator, **given, **options).SerializeToString())
    return tmp_path


@pytest.mark.parametrize("labels", [LABELS, CODES], ids=["texts", "integers"])
@pytest.mark.parametrize("zipmap", [True, False, "columns"])
@pytest.mark.parametrize("kind", [LogisticRegression, RandomForestClassifier])
def test_an_onnx_classifier_answers_labels_and_probabilities(tmp_path, labels, zipmap, kind):
    estimator = kind(**({"n_estimators": 5} if kind is RandomForestClassifier else {}))
    estimator.fit(ROWS, labels)
    model = load(converted(tmp_path, estimator, options={"zipmap": zipmap}), safe=True)
    assert (model.framework, model.columns.count, model.columns.numbers) == ("onnx", 3, True)
    assert model.origin["written_by"] == "skl2onnx"
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(ROWS))
    assert model.classes.tolist() == estimator.classes_.tolist()
    np.testing.assert_allclose(
        model.call(model.probabilities, ROWS), estimator.predict_proba(ROWS), atol=1e-5
    )


def test_an_onnx_regressor_answers_one_value_a_row(tmp_path):
    estimator = LinearRegression().fit(ROWS, ROWS[:, 0])
    model = load(converted(tmp_path, estimator))
    assert model.predict(ROWS).shape == (len(ROWS),)
    np.testing.assert_allclose(model.predict(ROWS), estimator.predict(ROWS), atol=1e-5)
    assert model.classes is None


def test_an_onnx_classifier_that_hides_its_labels_gets_them_from_the_description(tmp_path):
    estimator = KNeighborsClassifier().fit(ROWS, CODES - 5)
    converted(tmp_path, estimator, options={"zipmap": False})
    assert load(tmp_path).classes is None
    (tmp_path / "manymodels.json").write_text('{"class_labels": ["x", "y", "z"]}')
    model = load(tmp_path)
    assert model.classes.tolist() == ["x", "y", "z"]
    wanted = np.array(["x", "y", "z"])[estimator.predict(ROWS)]
    np.testing.assert_array_equal(model.predict(ROWS), wanted)


def mixed():
    frame = pd.DataFrame({"n": ROWS[:, 0], "c": np.where(ROWS[:, 1] > 0, "u", "v")})
    columns = make_column_transformer((StandardScaler(), ["n"]), (OneHotEncoder(), ["c"]))
    return frame, make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)


@pytest.mark.parametrize("width", [1, None])
def test_an_onnx_graph_with_an_input_a_column_takes_them_by_name(tmp_path, width):
    frame, pipeline = mixed()
    types = [("n", FloatTensorType([None, 1])), ("c", StringTensorType([None, 1]))]
    model = load(converted(tmp_path, pipeline, types))
    assert model.columns.names == ("n", "c")
    assert (model.columns.frame, model.columns.numbers, model.columns.text) == (True, False, {1})
    rows = frame.iloc[:width]
    np.testing.assert_array_equal(model.predict(rows), pipeline.predict(rows))
    np.testing.assert_allclose(
        model.call(model.probabilities, rows), pipeline.predict_proba(rows), atol=1e-5
    )
    with pytest.raises(BadRequest, match="row 1, column 2: the model takes a text, not nan"):
        model.predict(frame.iloc[:1].assign(c=np.nan))
    with pytest.raises(BadRequest, match="row 1, column 1: 'x' is not a number"):
        model.predict(frame.iloc[:1].assign(n="x"))


def test_columns_of_numbers_alone_are_numbers(tmp_path):
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    pipeline = make_pipeline(
        make_column_transformer((StandardScaler(), ["a", "b", "c"])), LinearRegression()
    ).fit(frame, ROWS[:, 0])
    types = [(name, DoubleTensorType([None, 1])) for name in "abc"]
    model = load(converted(tmp_path, pipeline, types))
    assert (model.columns.names, model.columns.numbers) == (("a", "b", "c"), True)
    np.testing.assert_allclose(model.predict(ROWS), pipeline.predict(frame), atol=1e-6)


def test_whole_numbers_are_checked_where_the_graph_takes_them(tmp_path):
    rows = RNG.integers(0, 5, (50, 2))
    estimator = LinearRegression().fit(rows, rows[:, 0])
    model = load(converted(tmp_path, estimator, [("X", Int64TensorType([None, 2]))]))
    np.testing.assert_allclose(
        model.predict(rows.astype(float)), estimator.predict(rows), atol=1e-5
    )
    with pytest.raises(
        BadRequest, match=r"row 2, column 1: the model takes whole numbers, not 0\.5"
    ):
        model.predict(np.array([[1.0, 2.0], [0.5, 1.0]]))
    with pytest.raises(BadRequest, match="whole numbers, not nan"):
        model.predict(np.array([[np.nan, 2.0]]))


def test_sparse_rows_are_made_dense_for_onnx(tmp_path):
    import scipy.sparse

    estimator = LogisticRegression().fit(ROWS, BINARY)
    model = load(converted(tmp_path, estimator))
    np.testing.assert_array_equal(
        model.predict(scipy.sparse.csr_matrix(ROWS)), estimator.predict(ROWS)
    )


def test_a_graph_that_takes_no_table_says_what_it_takes(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [None, 3, 8, 8])
    same = helper.make_tensor_value_info("same", TensorProto.FLOAT, [None, 3, 8, 8])
    node = helper.make_node("Identity", ["image"], ["same"])
    graph = helper.make_graph([node], "g", [image], [same])
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name=""
    )
    onnx.save(made, tmp_path / "net.onnx")
    with pytest.raises(ModelLoadError, match=r"net\.onnx takes image: tensor\(float\) .*inference"):
        load(tmp_path)


def test_a_networks_scores_are_of_the_classes_that_the_description_names(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 3])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    node = helper.make_node("Softmax", ["rows"], ["scores"])
    graph = helper.make_graph([node], "g", [rows], [scores])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "net.onnx")
    assert load(tmp_path).predict(ROWS).shape == (len(ROWS), 3)
    description = '{"class_labels": ["a", "b", "c"], "task": "classification"}'
    (tmp_path / "manymodels.json").write_text(description)
    model = load(tmp_path)
    wanted = np.array(["a", "b", "c"])[ROWS.argmax(axis=1)]
    np.testing.assert_array_equal(model.predict(ROWS), wanted)
    np.testing.assert_allclose(model.call(model.probabilities, ROWS).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("content", [b"garbage", b"\x08\x08"])
def test_what_is_no_onnx_model_is_named(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelLoadError, match=r"model\.onnx does not load: \w+: ") as caught:
        load(tmp_path)
    assert "\n" not in caught.value.message


def test_sessions_and_boosters_that_users_made_are_adopted(tmp_path):
    estimator = LogisticRegression().fit(ROWS, LABELS)
    converted(tmp_path, estimator)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(adopt(session).predict(ROWS), estimator.predict(ROWS))
    booster = light()
    np.testing.assert_array_equal(adopt(booster).predict(ROWS), booster.predict(ROWS))
    assert adopt(xgboost.train({}, xgboost.DMatrix(ROWS, BINARY), 1)).framework == "xgboost"


# Without their library.


@pytest.mark.parametrize(
    ("module", "extra", "name"),
    [
        ("onnxruntime", "onnx", "model.onnx"),
        ("lightgbm", "lightgbm", "model.txt"),
        ("skops", "skops", "model.skops"),
        ("xgboost", "xgboost", "model.ubj"),
        ("xgboost", "xgboost", "model.pkl"),
    ],
)
def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    tmp_path, monkeypatch, module, extra, name
):
    if name == "model.txt":
        light().save_model(tmp_path / name)
    elif name == "model.pkl":
        estimator = xgboost.XGBClassifier(n_estimators=1, n_jobs=1).fit(ROWS, BINARY)
        (tmp_path / name).write_bytes(pickle.dumps(estimator))
    else:
        (tmp_path / name).write_bytes(b"content")
    for loaded in [*sys.modules]:
        if loaded.partition(".")[0] == module:
            monkeypatch.setitem(sys.modules, loaded, None)
    for ours in ("libraries.booster", "shortcuts.boosting"):
        monkeypatch.delitem(sys.modules, f"manymodels.artifacts.{ours}", raising=False)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    message = caught.value.message
    assert message.startswith(f"{name} needs the module '{module}")
    assert message.endswith(f"which is not installed: pip install 'manymodels[{extra}]'")


def test_an_onnx_model_imports_no_other_library(tmp_path):
    converted(tmp_path, LogisticRegression().fit(ROWS, BINARY))
    code = (
        "import sys, pathlib; from manymodels.artifacts import load\n"
        "load(pathlib.Path(sys.argv[1]))\n"
        "print(*sorted({'onnx', 'sklearn', 'xgboost', 'joblib', 'scipy'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

"""manymodels.json: what it may say, and what a model makes of it."""

import json
import os

import joblib
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import SVC

from manymodels.artifacts import ModelDescription, adopt, describe, load
from manymodels.errors import ModelLoadError

ROWS = np.random.default_rng(0).normal(size=(90, 3))
BINARY = (ROWS[:, 0] > 0).astype(int)
LABELS = np.array(["low", "mid", "high"])[np.digitize(ROWS[:, 0], [-0.5, 0.5])]


def train(objective="binary:logistic", labels=BINARY, **parameters):
    parameters = {"objective": objective, "max_depth": 2, "nthread": 1, **parameters}
    return xgboost.train(parameters, xgboost.DMatrix(ROWS, labels), 3)


@pytest.fixture
def say(tmp_path):
    def write(**keys):
        (tmp_path / "manymodels.json").write_text(json.dumps(keys))
        return tmp_path

    return write


def test_no_file_says_nothing(tmp_path):
    assert describe(tmp_path) == ModelDescription()


def test_every_key_is_read(say, tmp_path):
    (tmp_path / "model.pkl").touch()
    described = describe(
        say(
            model="model.pkl",
            task="classification",
            class_labels=["no", "yes"],
            feature_names=["a", "b"],
            accept="text/csv",
            output=["predicted_label", "probability"],
            threads=2,
            trusted_types=["package.Type"],
        )
    )
    assert described == ModelDescription(
        model="model.pkl",
        task="classification",
        class_labels=("no", "yes"),
        feature_names=("a", "b"),
        accept="text/csv",
        output=("predicted_label", "probability"),
        threads=2,
        trusted_types=("package.Type",),
    )


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("modle", "a", "unknown key 'modle'; there are model, models, task, "),
        ("model", 1, "'model' must be the name of a file in the directory, not 1"),
        ("model", "", "'model' must be the name of a file"),
        ("model", "../a.pkl", "'model' must be the name of a file in the directory, not \"../a"),
        ("model", "/etc/passwd", "'model' must be the name of a file in the directory"),
        ("model", "a\0b", "'model' must be the name of a file in the directory"),
        ("model", "gone.pkl", "'model' names 'gone.pkl', which is no file of the directory"),
        ("model", "code", "'model' names 'code', which is no file of the directory"),
        ("models", "a.ubj", "'models' must be a list of different names of files"),
        ("models", [], "'models' must be a list"),
        ("models", ["a", "./a"], "'models' must be a list of different names"),
        ("models", ["gone.ubj"], "'models' names 'gone.ubj', which is no file"),
        ("task", "guess", "'task' must be one of classification, regression, probability, not"),
        ("task", None, "'task' must be one of .*, not null"),
        ("class_labels", "yes", "'class_labels' must be a list of different labels"),
        ("class_labels", ["yes"], "'class_labels' must be a list of different labels"),
        ("class_labels", ["yes", 1], "'class_labels' must be .* all texts, all numbers or all"),
        ("class_labels", [True, 1], "'class_labels' must be"),
        ("class_labels", ["a", "a"], "'class_labels' must be a list of different labels"),
        ("class_labels", [["a"], ["b"]], "'class_labels' must be"),
        ("feature_names", ["a", 1], "'feature_names' must be a list of different names, not"),
        ("feature_names", ["a", "a"], "'feature_names' must be a list of different names"),
        ("accept", "json", "'accept' must be a media type, not \"json\""),
        ("accept", "image/png", "'accept': Accept 'image/png' cannot be produced"),
        ("output", ["label"], "'output' must be a list of predicted_label, labels, "),
        ("output", "probability", "'output' must be a list of"),
        ("threads", 0, "'threads' must be a whole number from 1 to 1024, not 0"),
        ("threads", "2", "'threads' must be a whole number"),
        ("threads", True, "'threads' must be a whole number"),
        ("threads", 1.5, "'threads' must be a whole number"),
        ("trusted_types", [""], "'trusted_types' must be a list of names such as"),
    ],
)
def test_a_value_that_a_key_does_not_take_is_named(say, tmp_path, key, value, reason):
    (tmp_path / "code").mkdir()
    with pytest.raises(ModelLoadError, match=rf"^manymodels\.json: {reason}") as caught:
        load(say(**{key: value}))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b'{"task": ', "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "must hold an object with model, models, "),
        (b'{"task": "' + b"x" * (1 << 20) + b'"}', "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_no_description_is_named(tmp_path, content, reason):
    (tmp_path / "manymodels.json").write_bytes(content)
    with pytest.raises(ModelLoadError, match=rf"^manymodels\.json {reason}"):
        describe(tmp_path)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("gone", path)])
def test_a_description_that_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "manymodels.json")
    with pytest.raises(ModelLoadError, match=r"manymodels\.json is not a regular file"):
        describe(tmp_path)


def test_one_model_or_several_but_not_both(say, tmp_path):
    with pytest.raises(ModelLoadError, match="both 'model' and 'models'"):
        describe(say(model="a.ubj", models=["a.ubj", "b.ubj"]))


# Which file.


def test_it_says_which_of_two_files_is_the_model(say, tmp_path):
    joblib.dump(LogisticRegression().fit(ROWS, BINARY), tmp_path / "a.pkl")
    (tmp_path / "inner").mkdir()
    joblib.dump(LinearRegression().fit(ROWS, BINARY), tmp_path / "inner" / "b.dat")
    (tmp_path / "c.pkl").write_bytes(b"broken")
    assert load(say(model="a.pkl")).kind == "LogisticRegression"
    assert load(say(model="inner/b.dat")).kind == "LinearRegression"


def test_what_it_names_has_to_be_a_model(say, tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ModelLoadError, match=r"names notes\.txt, which is a model in no format"):
        load(say(model="notes.txt"))


def test_it_says_which_models_answer_together(say, tmp_path):
    boosters = [train(max_depth=depth) for depth in (1, 2, 3)]
    for index, booster in enumerate(boosters):
        booster.save_model(tmp_path / f"{index}.ubj")
    model = load(say(models=["0.ubj", "2.ubj"]))
    each = [boosters[index].predict(xgboost.DMatrix(ROWS)) for index in (0, 2)]
    np.testing.assert_allclose(model.predict(ROWS), np.mean(each, axis=0), rtol=1e-6)


# What is answered.


@pytest.fixture
def binary(tmp_path):
    booster = train()
    booster.save_model(tmp_path / "model.ubj")
    return booster.predict(xgboost.DMatrix(ROWS))


def test_a_booster_classifies_if_that_is_its_task(say, binary):
    model = load(say(task="classification"))
    np.testing.assert_array_equal(model.predict(ROWS), (binary > 0.5).astype(int))
    assert model.classes.tolist() == [0, 1]


def test_class_labels_are_a_boosters_labels(say, binary):
    wanted = np.where(binary > 0.5, "yes", "no")
    model = load(say(class_labels=["no", "yes"]))
    np.testing.assert_array_equal(model.predict(ROWS), binary)
    np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted)
    assert model.classes.tolist() == ["no", "yes"]
    model = load(say(class_labels=["no", "yes"], task="classification"))
    np.testing.assert_array_equal(model.predict(ROWS), wanted)


def test_a_booster_of_softmax_answers_labels_of_its_description(say, tmp_path):
    codes = np.digitize(ROWS[:, 0], [-0.5, 0.5])
    booster = train("multi:softmax", codes, num_class=3)
    booster.save_model(tmp_path / "model.ubj")
    positions = booster.predict(xgboost.DMatrix(ROWS)).astype(int)
    model = load(say(class_labels=[7, 8, 9], task="classification"))
    np.testing.assert_array_equal(model.predict(ROWS), positions + 7)


def test_probabilities_are_a_column_a_class(say, binary):
    model = load(say(task="probability"))
    np.testing.assert_array_equal(model.predict(ROWS)[:, 1], binary)
    np.testing.assert_array_equal(model.call(model.labels, ROWS), binary > 0.5)


def test_a_regression_has_no_labels(say, binary):
    model = load(say(task="regression"))
    np.testing.assert_array_equal(model.predict(ROWS), binary)
    assert (model.classes, model.labels, model.probabilities) == (None, None, None)


def test_a_classifier_answers_probabilities_or_other_labels(say, tmp_path):
    estimator = LogisticRegression().fit(ROWS, LABELS)
    joblib.dump(estimator, tmp_path / "model.pkl")
    model = load(say(task="probability"))
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict_proba(ROWS))
    np.testing.assert_array_equal(model.call(model.labels, ROWS), estimator.predict(ROWS))
    assert estimator.classes_.tolist() == ["high", "low", "mid"]
    model = load(say(class_labels=["H", "L", "M"]))
    wanted = [label[0].upper() for label in estimator.predict(ROWS)]
    np.testing.assert_array_equal(model.predict(ROWS), wanted)
    assert model.classes.tolist() == ["H", "L", "M"]


@pytest.mark.parametrize(
    ("estimator", "keys", "reason"),
    [
        (
            LinearRegression(),
            {"task": "classification"},
            "'task' is 'classification', but .* no",
        ),
        (LinearRegression(), {"task": "probability"}, "'probability', but .* has no probabilities"),
        (SVC(), {"task": "probability"}, "'probability', but the model has no probabilities"),
        (SVC(), {"task": "regression"}, "'regression', but the model answers labels"),
        (LinearRegression(), {"class_labels": ["a", "b"]}, "has 2 labels, but .* is no classifier"),
        (SVC(), {"class_labels": ["a", "b", "c"]}, "has 3 labels, but the model knows 2"),
        (SVC(), {"feature_names": ["a"]}, "has 1 names, but the model takes 3 features"),
    ],
)
def test_what_does_not_fit_the_model_says_both(say, tmp_path, estimator, keys, reason):
    joblib.dump(estimator.fit(ROWS, BINARY), tmp_path / "model.pkl")
    with pytest.raises(ModelLoadError, match=rf"^manymodels\.json: .*{reason}"):
        load(say(**keys))


def test_feature_names_put_a_bodys_columns_in_order(say, binary):
    columns = load(say(feature_names=["a", "b", "c"])).columns
    assert (columns.count, columns.names, columns.numbers) == (3, ("a", "b", "c"), True)


def test_other_names_than_a_model_was_trained_on_are_an_error(say, tmp_path):
    frame = pd.DataFrame(ROWS, columns=["a", "b", "c"])
    joblib.dump(SVC().fit(frame, BINARY), tmp_path / "model.pkl")
    assert load(say(feature_names=["a", "b", "c"])).columns.names == ("a", "b", "c")
    with pytest.raises(ModelLoadError, match="trained on columns with their own names"):
        load(say(feature_names=["b", "a", "c"]))


def test_threads_are_the_boosters(say, binary):
    booster = load(say(threads=2)).native
    assert json.loads(booster.save_config())["learner"]["generic_param"]["nthread"] == "2"


def test_a_description_that_was_read_before_is_not_read_again(say, binary):
    directory = say(task="guess")
    model = load(directory, description=ModelDescription(task="classification"))
    assert set(model.predict(ROWS)) == {0, 1}


def test_an_adopted_object_is_as_described():
    booster = train()
    model = adopt(booster, ModelDescription(task="classification", class_labels=("no", "yes")))
    assert set(model.predict(ROWS)) == {"no", "yes"}

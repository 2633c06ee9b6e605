import json
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from manymodels import content
from manymodels.artifacts import load
from manymodels.errors import BadRequest, ModelLoadError

ROWS = np.random.default_rng(0).normal(size=(80, 10))
LABELS = (ROWS[:, 0] > 0).astype(int)


class Opaque:
    """Predicts, and says nothing of the features it takes."""

    def predict(self, rows):
        return [float(row.sum()) for row in rows]


class OutOfRoom:
    def __reduce__(self):
        return exhaust, ()


def exhaust():
    raise MemoryError("no room")


class Failing:
    def predict(self, rows):
        raise ValueError("not the client's fault")


@pytest.fixture
def logistic():
    return LogisticRegression().fit(ROWS, LABELS)


@pytest.fixture
def classifier():
    return xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, LABELS)


@pytest.mark.parametrize("name", ["model.joblib", "m.pkl", "other.pickle", "MODEL.PKL"])
@pytest.mark.parametrize("dump", [joblib.dump, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_scikit_learn_pickle_loads_and_predicts(tmp_path, logistic, name, dump):
    dump(logistic, tmp_path / name)
    model = load(tmp_path)
    assert (model.framework, model.kind) == ("scikit-learn", "LogisticRegression")
    assert model.columns.count == 10
    np.testing.assert_array_equal(model.predict(ROWS), logistic.predict(ROWS))


def test_a_pipeline_knows_its_features(tmp_path):
    joblib.dump(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS),
        tmp_path / "model.joblib",
    )
    model = load(tmp_path)
    assert (model.kind, model.columns.count) == ("Pipeline", 10)


@pytest.mark.parametrize("name", ["model.json", "model.ubj"])
def test_an_xgboost_file_loads_and_predicts(tmp_path, classifier, name):
    classifier.save_model(tmp_path / name)
    model = load(tmp_path)
    assert (model.framework, model.kind, model.columns.count) == ("xgboost", "Booster", 10)
    np.testing.assert_allclose(model.predict(ROWS), classifier.predict_proba(ROWS)[:, 1], rtol=1e-6)


def test_xgboost_json_written_by_another_hand_is_recognized(tmp_path, classifier):
    classifier.save_model(tmp_path / "model.json")
    content = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(dict(reversed(content.items())), indent=2))
    assert load(tmp_path).framework == "xgboost"


def test_a_booster_that_stopped_early_uses_its_best_rounds(tmp_path):
    classifier = xgboost.XGBClassifier(n_estimators=60, early_stopping_rounds=3, n_jobs=1)
    noise = np.random.default_rng(1).permutation(LABELS[:40])
    classifier.fit(ROWS[:40], LABELS[:40], eval_set=[(ROWS[40:], noise)], verbose=False)
    assert classifier.best_iteration + 1 < classifier.get_booster().num_boosted_rounds()
    classifier.save_model(tmp_path / "model.json")
    np.testing.assert_allclose(
        load(tmp_path).predict(ROWS), classifier.predict_proba(ROWS)[:, 1], rtol=1e-6
    )


def test_a_linear_booster_predicts(tmp_path):
    regressor = xgboost.XGBRegressor(booster="gblinear", n_estimators=5, n_jobs=1)
    regressor.fit(ROWS, LABELS).save_model(tmp_path / "model.ubj")
    np.testing.assert_allclose(load(tmp_path).predict(ROWS), regressor.predict(ROWS), rtol=1e-5)


def test_a_pickled_xgboost_estimator_predicts_as_itself(tmp_path, classifier):
    joblib.dump(classifier, tmp_path / "model.pkl")
    model = load(tmp_path)
    assert (model.framework, model.kind, model.columns.count) == ("xgboost", "XGBClassifier", 10)
    np.testing.assert_array_equal(model.predict(ROWS), classifier.predict(ROWS))


def test_a_pickled_booster_predicts_as_its_file_does(tmp_path, classifier):
    joblib.dump(classifier.get_booster(), tmp_path / "model.pkl")
    model = load(tmp_path)
    assert (model.framework, model.kind) == ("xgboost", "Booster")
    assert model.predict(ROWS[:3]).dtype == np.float32


def test_any_object_that_predicts_is_a_model(tmp_path):
    joblib.dump(Opaque(), tmp_path / "model.pkl")
    model = load(tmp_path)
    assert (model.framework, model.kind, model.columns.count) == (
        __name__.partition(".")[0],
        "Opaque",
        None,
    )
    np.testing.assert_array_equal(model.predict(np.ones((2, 3))), [3.0, 3.0])


def test_what_lies_beside_the_model_disturbs_nothing(tmp_path, logistic):
    joblib.dump(logistic, tmp_path / "model.joblib")
    for name in ("README.md", "labels.txt", ".DS_Store", "._model.joblib", ".old.pkl"):
        (tmp_path / name).write_bytes(b"\x00")
    (tmp_path / "labels.json").write_text('{"labels": ["a"]}')
    (tmp_path / "list.json").write_text('["learner"]')
    (tmp_path / "broken.json").write_text('{"learner"')
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "second.pkl").write_bytes(b"\x00")
    (tmp_path / "MAR-INF").mkdir()
    (tmp_path / "directory.pkl").mkdir()
    assert load(tmp_path).kind == "LogisticRegression"


def test_no_model_names_the_directory_what_was_looked_for_and_what_is_there(tmp_path):
    (tmp_path / "README.md").touch()
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    for part in (str(tmp_path), "*.joblib", "*.pkl", "*.ubj", "*.json", "found README.md"):
        assert part in caught.value.message


def test_an_empty_or_missing_directory_is_said_to_be(tmp_path):
    with pytest.raises(ModelLoadError, match="found no files"):
        load(tmp_path)
    with pytest.raises(ModelLoadError, match=r"nowhere cannot be read: No such file"):
        load(tmp_path / "nowhere")


def test_two_models_are_both_named(tmp_path, logistic, classifier):
    joblib.dump(logistic, tmp_path / "a.joblib")
    classifier.save_model(tmp_path / "b.json")
    with pytest.raises(ModelLoadError, match=r"more than one model .*: a\.joblib, b\.json"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib", "model.ubj"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05\x95"])
def test_a_broken_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=f"{name} does not load: ") as caught:
        load(tmp_path)
    assert "\n" not in caught.value.message


def test_xgboost_json_without_a_model_in_it_is_named(tmp_path):
    (tmp_path / "model.json").write_text('{"learner": {}}')
    with pytest.raises(ModelLoadError, match=r"model\.json does not load: XGBoostError"):
        load(tmp_path)


def test_a_pickle_that_needs_a_missing_module_names_it(tmp_path):
    (tmp_path / "model.pkl").write_bytes(b"cnot_installed_here.models\nThing\n.")
    with pytest.raises(ModelLoadError, match=r"model\.pkl needs the module 'not_installed_here'"):
        load(tmp_path)


def test_a_pickle_that_does_not_predict_says_what_it_is(tmp_path):
    joblib.dump({"weights": [1]}, tmp_path / "model.pkl")
    with pytest.raises(ModelLoadError, match=r"model\.pkl holds a dict, which has no predict"):
        load(tmp_path)


def test_running_out_of_memory_stays_a_memory_error(tmp_path):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(OutOfRoom()))
    with pytest.raises(MemoryError, match="no room"):
        load(tmp_path)


@pytest.mark.parametrize("file", ["pickle", "booster"])
def test_a_wrong_number_of_features_names_both(tmp_path, logistic, classifier, file):
    if file == "pickle":
        joblib.dump(logistic, tmp_path / "model.pkl")
    else:
        classifier.save_model(tmp_path / "model.ubj")
    with pytest.raises(BadRequest) as caught:
        content.decode("1,2,3", content.CSV, load(tmp_path).columns)
    assert caught.value.message == "the model takes 10 features, the request has 3"


def test_nan_is_the_clients_fault_where_the_model_takes_none(tmp_path, logistic):
    joblib.dump(logistic, tmp_path / "model.pkl")
    with pytest.raises(BadRequest, match=r"does not take these values: Input X contains NaN"):
        load(tmp_path).predict(np.full((1, 10), np.nan))


def test_nan_is_a_value_where_the_model_takes_it(tmp_path, classifier):
    joblib.dump(HistGradientBoostingClassifier(max_iter=2).fit(ROWS, LABELS), tmp_path / "m.pkl")
    assert load(tmp_path).predict(np.full((1, 10), np.nan)).shape == (1,)
    (tmp_path / "m.pkl").unlink()
    classifier.save_model(tmp_path / "m.ubj")
    assert load(tmp_path).predict(np.full((1, 10), np.nan)).shape == (1,)


def test_an_error_of_the_model_itself_passes_through(tmp_path):
    joblib.dump(Failing(), tmp_path / "model.pkl")
    with pytest.raises(ValueError, match="not the client's fault"):
        load(tmp_path).predict(ROWS)


def test_a_model_trained_on_a_data_frame_does_not_warn_at_each_request(tmp_path):
    frame = pd.DataFrame(ROWS, columns=[f"c{i}" for i in range(10)])
    joblib.dump(LogisticRegression().fit(frame, LABELS), tmp_path / "model.pkl")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(tmp_path).predict(ROWS)
    assert caught == []


def test_a_model_imports_only_its_own_library(tmp_path, classifier, logistic):
    code = (
        "import sys, pathlib; import manymodels.service\n"
        "from manymodels.artifacts import load\n"
        "print('joblib' in sys.modules, 'sklearn' in sys.modules, 'xgboost' in sys.modules)\n"
        "load(pathlib.Path(sys.argv[1]))\n"
        "print('xgboost' in sys.modules)"
    )
    joblib.dump(logistic, tmp_path / "model.pkl")
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False", "False"]

"""XGBoost's shortcuts: equal to its own predictions, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manymodels.artifacts.shortcuts import boosting
from manymodels.artifacts.shortcuts.boosting import booster_predict, estimator_predict

FEATURES = 6
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(200, FEATURES)).round(1)
CLASSES = RANDOM.integers(0, 4, 200)
SMALL = {"n_estimators": 8, "max_depth": 4, "n_jobs": 1}


def estimators():
    holed = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
    coded = np.nan_to_num(holed, nan=-1.0)
    stopping = xgboost.XGBClassifier(**{**SMALL, "n_estimators": 60}, early_stopping_rounds=2)
    return {
        "two classes": xgboost.XGBClassifier(**SMALL).fit(ROWS, CLASSES > 1),
        "four classes": xgboost.XGBClassifier(**SMALL).fit(ROWS, CLASSES),
        "several labels": xgboost.XGBClassifier(**SMALL).fit(
            ROWS, np.stack([CLASSES > 1, CLASSES % 2], axis=1).astype(int)
        ),
        "weighted": xgboost.XGBClassifier(**SMALL).fit(ROWS, CLASSES, sample_weight=CLASSES + 1),
        "stopped early": stopping.fit(
            ROWS, CLASSES, eval_set=[(ROWS[:50], CLASSES[::-1][:50])], verbose=False
        ),
        "raw logits": xgboost.XGBClassifier(**SMALL, objective="binary:logitraw").fit(
            ROWS, CLASSES > 1
        ),
        "dart": xgboost.XGBClassifier(**SMALL, booster="dart", rate_drop=0.3).fit(ROWS, CLASSES),
        "holes in training": xgboost.XGBClassifier(**SMALL).fit(holed, CLASSES),
        "missing is -1": xgboost.XGBRegressor(**SMALL, missing=-1.0).fit(coded, CLASSES),
        "regressor": xgboost.XGBRegressor(**SMALL, base_score=2.5).fit(ROWS, CLASSES),
        "two targets": xgboost.XGBRegressor(**SMALL).fit(ROWS, ROWS[:, :2]),
        "counts": xgboost.XGBRegressor(**SMALL, objective="count:poisson").fit(ROWS, CLASSES),
        "named": xgboost.XGBClassifier(**SMALL).fit(
            pd.DataFrame(ROWS, columns=list("abcdef")), CLASSES
        ),
        "ranker": xgboost.XGBRanker(**SMALL).fit(ROWS, CLASSES, group=[100, 100]),
        "random forest": xgboost.XGBRFClassifier(**SMALL).fit(ROWS, CLASSES),
    }


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ESTIMATORS = estimators()

VALUES = st.one_of(
    st.sampled_from([*ROWS[:20, 0], 0.0, -0.0, -1.0, np.nan, 5e-324, 1e-40, 1e300, -1e300]),
    st.floats(width=64, allow_infinity=False),
)
SOME_ROWS = arrays(float, st.tuples(st.integers(1, 5), st.just(FEATURES)), elements=VALUES)


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ESTIMATORS)
@settings(max_examples=40)
@given(rows=SOME_ROWS)
def test_an_estimator_s_shortcut_predicts_exactly_what_it_predicts(kind, rows):
    estimator = ESTIMATORS[kind]
    assert_same(estimator_predict(estimator)(rows), estimator.predict(rows))


@pytest.mark.parametrize("kind", ESTIMATORS)
@settings(max_examples=40)
@given(rows=SOME_ROWS)
def test_a_booster_s_shortcut_predicts_exactly_what_it_predicts(kind, rows):
    booster = ESTIMATORS[kind].get_booster()
    best = booster.attr("best_iteration")
    trees = (0, 0) if best is None else (0, int(best) + 1)
    theirs = booster.inplace_predict(rows, iteration_range=trees, validate_features=False)
    assert_same(booster_predict(booster)(rows), theirs)


def test_early_stopping_counts():
    booster = ESTIMATORS["stopped early"].get_booster()
    assert int(booster.attr("best_iteration")) + 1 < booster.num_boosted_rounds()
    all_trees = booster.inplace_predict(ROWS, validate_features=False)
    assert not np.array_equal(booster_predict(booster)(ROWS), all_trees)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_infinity_ends_as_in_the_library(infinite):
    rows = ROWS[:3].copy()
    rows[1, 2] = infinite
    estimator = ESTIMATORS["four classes"]
    assert_same(estimator_predict(estimator)(rows), estimator.predict(rows))


@pytest.mark.parametrize("arranged", [np.asfortranarray, lambda r: r[::2, :], lambda r: r[:, ::-1]])
def test_rows_may_lie_in_memory_in_any_order(arranged):
    estimator, rows = ESTIMATORS["four classes"], arranged(ROWS)
    assert_same(estimator_predict(estimator)(rows), estimator.predict(rows))


def test_many_rows_are_one_prediction():
    rows = RANDOM.normal(size=(3000, FEATURES))
    estimator = ESTIMATORS["four classes"]
    assert_same(estimator_predict(estimator)(rows), estimator.predict(rows))


def test_an_answer_outlives_the_next_and_may_be_written_to():
    predict = booster_predict(ESTIMATORS["regressor"].get_booster())
    first = predict(ROWS[:5])
    kept = first.copy()
    predict(ROWS[5:50])
    np.testing.assert_array_equal(first, kept)
    first += 1


def test_sparse_rows_are_predicted():
    booster = ESTIMATORS["holes in training"].get_booster()
    rows = scipy.sparse.csr_matrix(np.where(ROWS > 0, ROWS, 0.0))
    theirs = booster.inplace_predict(rows, validate_features=False)
    assert_same(booster_predict(booster)(rows), theirs)


def test_categories_of_a_frame_are_predicted():
    frame = pd.DataFrame(
        {"n": ROWS[:, 0], "c": pd.Categorical(np.array(["x", "y", "z", "w"])[CLASSES])}
    )
    estimator = xgboost.XGBRegressor(**SMALL, enable_categorical=True).fit(frame, CLASSES)
    theirs = estimator.predict(frame)
    assert_same(booster_predict(estimator.get_booster())(frame), theirs)
    assert estimator_predict(estimator) is None


def test_a_linear_booster_is_predicted():
    estimator = xgboost.XGBRegressor(booster="gblinear", n_estimators=5, n_jobs=1)
    estimator.fit(ROWS, CLASSES)
    assert_same(booster_predict(estimator.get_booster())(ROWS), estimator.predict(ROWS))
    assert estimator_predict(estimator) is None


def test_what_predicts_in_its_own_way_has_no_shortcut():
    class Own(xgboost.XGBRegressor):
        def predict(self, rows, **options):
            return ["mine"]

    def squares(labels, predictions):
        return predictions - labels, np.ones_like(labels)

    softmax = xgboost.XGBClassifier(**SMALL, objective="multi:softmax").fit(ROWS, CLASSES)
    softmax.objective = "multi:softmax"
    own_objective = xgboost.XGBRegressor(**SMALL, objective=squares).fit(ROWS, CLASSES)
    assert estimator_predict(Own(**SMALL).fit(ROWS, CLASSES)) is None
    assert estimator_predict(softmax) is None
    assert estimator_predict(own_objective) is None
    assert estimator_predict(xgboost.XGBClassifier()) is None


class Changed:
    """XGBoost's library, with another function where rows are predicted."""

    def __init__(self, library, function):
        self._library = library
        if function is not None:
            self.XGBoosterPredictFromDense = function

    def __getattr__(self, name):
        if name == "XGBoosterPredictFromDense":
            raise AttributeError(name)
        return getattr(self._library, name)


def predicts_by_the_package(monkeypatch, predict, booster):
    calls, own = [], booster.inplace_predict
    with monkeypatch.context() as patched:
        patched.setattr(booster, "inplace_predict", lambda *a, **k: calls.append(1) or own(*a, **k))
        assert_same(predict(ROWS), own(ROWS))
    return bool(calls)


@pytest.mark.parametrize("function", [None, lambda *_: -1])
def test_where_the_c_function_is_another_the_package_predicts(monkeypatch, function):
    booster = ESTIMATORS["four classes"].get_booster()
    with monkeypatch.context() as patched:
        patched.setattr(xgboost.core, "_LIB", Changed(xgboost.core._LIB, function))
        predict = booster_predict(booster)
    assert predicts_by_the_package(monkeypatch, predict, booster)


def test_where_the_c_function_says_something_else_the_package_predicts(monkeypatch):
    booster = ESTIMATORS["four classes"].get_booster()
    assert not predicts_by_the_package(monkeypatch, booster_predict(booster), booster)
    options = boosting._options
    with monkeypatch.context() as patched:
        patched.setattr(boosting, "_options", lambda trees, missing: options((0, 1), missing))
        predict = booster_predict(booster)
    assert predicts_by_the_package(monkeypatch, predict, booster)

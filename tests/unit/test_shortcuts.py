"""Pipelines of imputers and scalers, and what all shortcuts have in common."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC

from manymodels.artifacts.shortcuts import shortcut

FEATURES = 5
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(120, FEATURES)) * [1, 10, 0.01, 1000, 1] + [0, 5, 0, 0, 7]
ROWS[:, 4] = 3.25  # a column that says nothing
HOLED = np.where(RANDOM.random(ROWS.shape) < 0.1, np.nan, ROWS)
CLASSES = RANDOM.integers(0, 3, 120)
LABELS = np.array(["ash", "birch", "cedar"])[CLASSES]
PIPELINES = {
    "standard": make_pipeline(StandardScaler(), LogisticRegression()),
    "mean only": make_pipeline(StandardScaler(with_std=False), LogisticRegression()),
    "scale only": make_pipeline(StandardScaler(with_mean=False), SVC()),
    "neither": make_pipeline(StandardScaler(with_mean=False, with_std=False), GaussianNB()),
    "min max": make_pipeline(MinMaxScaler((-1, 3)), GaussianNB()),
    "clipped": make_pipeline(MinMaxScaler(clip=True), SVC()),
    "max abs": make_pipeline(MaxAbsScaler(), LogisticRegression()),
    "robust": make_pipeline(RobustScaler(), LogisticRegression()),
    "robust scale": make_pipeline(RobustScaler(with_centering=False), LogisticRegression()),
    "imputed": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    "median": make_pipeline(SimpleImputer(strategy="median"), RandomForestRegressor(3)),
    "frequent": make_pipeline(SimpleImputer(strategy="most_frequent"), RobustScaler(), SVC()),
    "three": make_pipeline(RobustScaler(), "passthrough", MinMaxScaler(), MaxAbsScaler(), Ridge()),
}


def fit(name):
    takes_numbers = name in ("median", "three")
    rows = HOLED if "SimpleImputer" in str(PIPELINES[name]) else ROWS
    return PIPELINES[name].fit(rows, CLASSES if takes_numbers else LABELS)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FITTED = {name: fit(name) for name in PIPELINES}

VALUES = st.one_of(
    st.sampled_from([*ROWS[:20, 0], 0.0, -0.0, 3.25, 5e-324, 1e-40, 1e308, -1e308]),
    st.floats(-1e6, 1e6),
)
SOME_ROWS = arrays(float, st.tuples(st.integers(1, 4), st.just(FEATURES)), elements=VALUES)


def assert_same_end(estimator, rows, method="predict"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ours = outcome(shortcut(estimator, method), rows)
        theirs = outcome(getattr(estimator, method), rows)
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])


def outcome(function, rows):
    """Return the type of what comes back or is raised, and what it is."""
    try:
        answer = function(rows)
    except ValueError as error:
        return ValueError, str(error)
    return answer.dtype, answer


@pytest.mark.parametrize("name", FITTED)
@settings(max_examples=25)
@given(rows=SOME_ROWS)
def test_a_pipeline_s_shortcut_predicts_exactly_what_it_predicts(name, rows):
    assert_same_end(FITTED[name], rows)


@pytest.mark.parametrize("name", FITTED)
def test_it_has_one_after_pickling_too(name):
    estimator = pickle.loads(pickle.dumps(FITTED[name]))
    assert_same_end(estimator, ROWS)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_ends_as_in_the_library(name, bad):
    rows = ROWS[:3].copy()
    rows[1, 2] = bad
    assert_same_end(FITTED[name], rows)


@pytest.mark.parametrize("name", ["imputed", "median", "frequent"])
def test_holes_are_filled_without_the_library(monkeypatch, name):
    estimator = FITTED[name]
    expected = estimator.predict(HOLED)
    monkeypatch.setattr(SimpleImputer, "transform", None)
    np.testing.assert_array_equal(shortcut(estimator)(HOLED), expected)


@pytest.mark.parametrize("name", FITTED)
@pytest.mark.parametrize("arranged", [np.asfortranarray, lambda r: r[::2], lambda r: r[:, ::-1]])
def test_rows_may_lie_in_memory_in_any_order_and_stay_as_they_are(name, arranged):
    rows = arranged(ROWS.copy())
    assert_same_end(FITTED[name], rows)
    np.testing.assert_array_equal(rows, arranged(ROWS))


@pytest.mark.parametrize("name", ["scale only", "clipped", "standard"])
def test_raw_scores_and_probabilities_have_shortcuts_too(name):
    assert_same_end(FITTED[name], ROWS, "decision_function")
    assert_same_end(FITTED["min max"], ROWS, "predict_proba")


def test_a_method_that_the_last_step_lacks_has_no_shortcut():
    assert shortcut(FITTED["standard"], "nothing_like_it") is None
    assert shortcut(FITTED["median"], "predict_proba") is None


def test_sparse_rows_and_rows_of_another_type_go_the_long_way():
    rows = scipy.sparse.csr_matrix(ROWS)
    estimator = FITTED["max abs"]
    np.testing.assert_array_equal(shortcut(estimator)(rows), estimator.predict(rows))
    narrow = ROWS.astype(np.float32)
    np.testing.assert_array_equal(shortcut(estimator)(narrow), estimator.predict(narrow))
    frame = pd.DataFrame(ROWS)
    np.testing.assert_array_equal(shortcut(estimator)(frame), estimator.predict(frame))


def test_named_columns_keep_their_names_on_the_long_way():
    frame = pd.DataFrame(ROWS, columns=list("abcde"))
    estimator = make_pipeline(MaxAbsScaler(), LogisticRegression()).fit(frame, CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(shortcut(estimator)(ROWS), estimator.predict(frame))
        sparse = shortcut(estimator)(scipy.sparse.csr_matrix(ROWS))
        np.testing.assert_array_equal(sparse, estimator.predict(frame))
        with pytest.raises(ValueError, match="NaN"):
            shortcut(estimator)(np.full((1, FEATURES), np.nan))


def test_what_has_a_way_of_its_own_has_no_shortcut():
    class Own(Pipeline):
        pass

    class OwnScaler(StandardScaler):
        pass

    last = ("last", GaussianNB())
    for estimator in (
        Own([("first", StandardScaler()), last]),
        Pipeline([("first", OwnScaler()), last]),
        Pipeline([("first", PCA(2)), last]),
        Pipeline([("first", SimpleImputer(add_indicator=True)), last]),
        Pipeline([("first", SimpleImputer(missing_values=-1)), last]),
        Pipeline([("first", StandardScaler().set_output(transform="pandas")), last]),
        Pipeline([("first", "passthrough"), ("last", GaussianNB())]),
    ):
        assert shortcut(estimator.fit(ROWS, CLASSES)) is None


def test_an_imputer_that_leaves_out_columns_or_fills_in_integers_has_no_shortcut():
    empty = HOLED.copy()
    empty[:, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = make_pipeline(SimpleImputer(), GaussianNB()).fit(empty, CLASSES)
    assert shortcut(estimator) is None
    integers = make_pipeline(SimpleImputer(strategy="most_frequent"), GaussianNB())
    assert shortcut(integers.fit(ROWS.astype(int), CLASSES)) is None


def test_what_was_not_fitted_or_does_not_predict_has_no_shortcut():
    assert shortcut(make_pipeline(StandardScaler(), LogisticRegression())) is None
    assert shortcut(make_pipeline(SimpleImputer(), LogisticRegression())) is None
    assert shortcut(make_pipeline(StandardScaler(), MinMaxScaler()).fit(ROWS)) is None
    assert shortcut(object()) is None


def test_a_shortcut_imports_nothing_that_the_model_did_not():
    code = """
import sys
from sklearn.naive_bayes import GaussianNB
from manymodels.artifacts.shortcuts import shortcut
before = set(sys.modules)
assert shortcut(GaussianNB().fit([[0.0], [1.0]], [0, 1])) is None
new = {name for name in set(sys.modules) - before if name.startswith("sklearn.")}
heavy = ("sklearn.ensemble", "sklearn.tree", "sklearn.pipeline", "sklearn.impute")
assert not [name for name in sys.modules if name.startswith(heavy)], new
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

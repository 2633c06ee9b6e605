"""Trees, forests and gradient boosting by their sums: equal to scikit-learn's, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import ensemble, tree

from manymodels.artifacts.shortcuts import shortcut

FEATURES = 5
NEW = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 4)
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(150, FEATURES)).round(1)
CLASSES = RANDOM.integers(0, 3, 150)
TEN = RANDOM.integers(0, 10, 150)
NAMES = np.array(["ash", "birch", "cedar"])[CLASSES]
WEIGHTS = RANDOM.random(150) + 0.01
CLASSIFIERS = {
    "forest": ensemble.RandomForestClassifier(7),
    "balanced": ensemble.RandomForestClassifier(7, max_depth=3, class_weight="balanced"),
    "extra": ensemble.ExtraTreesClassifier(7, criterion="entropy", max_features=None),
    "two even trees": ensemble.RandomForestClassifier(2, max_features=1, n_jobs=2),
    "tree": tree.DecisionTreeClassifier(max_depth=4),
    "extra tree": tree.ExtraTreeClassifier(),
    "boosting": ensemble.GradientBoostingClassifier(n_estimators=7),
    "boosting from zero": ensemble.GradientBoostingClassifier(n_estimators=3, init="zero"),
}
REGRESSORS = {
    "forest regressor": ensemble.RandomForestRegressor(7),
    "absolute": ensemble.RandomForestRegressor(5, criterion="absolute_error"),
    "extra regressor": ensemble.ExtraTreesRegressor(7, min_samples_leaf=3),
    "tree regressor": tree.DecisionTreeRegressor(ccp_alpha=0.01),
    "extra tree regressor": tree.ExtraTreeRegressor(),
    "boosting regressor": ensemble.GradientBoostingRegressor(n_estimators=7, subsample=0.5),
    "quantile": ensemble.GradientBoostingRegressor(n_estimators=7, loss="quantile"),
    "huber": ensemble.GradientBoostingRegressor(n_estimators=7, loss="huber", init="zero"),
}


def fresh(estimator, **changes):
    parameters = {"random_state": 0, **estimator.get_params(), **changes}
    return type(estimator)(**{**parameters, "random_state": 0})


def fitted():
    for name, estimator in CLASSIFIERS.items():
        yield name, fresh(estimator).fit(ROWS, CLASSES)
        yield f"{name}, text", fresh(estimator).fit(ROWS, NAMES)
        yield f"{name}, bool", fresh(estimator).fit(ROWS, CLASSES > 1, sample_weight=WEIGHTS)
        yield f"{name}, ten", fresh(estimator).fit(ROWS, TEN)
    for name, estimator in REGRESSORS.items():
        yield name, fresh(estimator).fit(ROWS, ROWS[:, 0] * CLASSES, sample_weight=WEIGHTS)
    exponential = ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential")
    yield "exponential", fresh(exponential).fit(ROWS, CLASSES > 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    ESTIMATORS = dict(fitted())

VALUES = st.one_of(
    st.sampled_from([*ROWS[:30, 0], 0.05, 0.0, -0.0, 5e-324, 1e-40, 1e38, -1e38]),
    st.floats(-1e38, 1e38),
)
SOME_ROWS = arrays(float, st.tuples(st.integers(1, 4), st.just(FEATURES)), elements=VALUES)


def shortcut_of(name, method="predict"):
    """Return an estimator's shortcut, which classifiers by boosting have since scikit-learn 1.4."""
    found = shortcut(ESTIMATORS[name], method)
    if found is None and "Classifier" in type(ESTIMATORS[name]).__name__ and not NEW:
        pytest.skip("this scikit-learn finds the class by way of probabilities")
    return found


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def outcome(predict, rows):
    """Return predictions and their type, or the error's."""
    try:
        predictions = predict(rows)
    except ValueError as error:
        return ValueError, str(error)
    return predictions.dtype, predictions.tolist()


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=15)
@given(rows=SOME_ROWS)
def test_its_shortcut_predicts_exactly_what_it_predicts(name, rows):
    assert_same(shortcut_of(name)(rows), ESTIMATORS[name].predict(rows))


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if "boost" not in name])
def test_ties_between_classes_go_to_the_same_one(name):
    grid = np.stack(np.meshgrid(*[[-1.0, -0.25, 0.05, 0.3]] * FEATURES), axis=-1)
    rows = grid.reshape(-1, FEATURES)
    assert_same(shortcut_of(name)(rows), ESTIMATORS[name].predict(rows))


def test_there_are_ties_to_be_decided():
    estimator = ESTIMATORS["two even trees"]
    probabilities = estimator.predict_proba(ROWS)
    best = probabilities.max(axis=1, keepdims=True)
    assert ((probabilities == best).sum(axis=1) > 1).any()
    assert_same(shortcut(estimator)(ROWS), estimator.predict(ROWS))


@pytest.mark.parametrize(
    "name", [n for n in ESTIMATORS if n.startswith(("forest,", "balanced", "extra,", "two even"))]
)
@settings(max_examples=15)
@given(rows=SOME_ROWS)
def test_a_forest_s_probabilities_are_exactly_the_library_s(name, rows):
    estimator = ESTIMATORS[name]
    assert_same(shortcut(estimator, "predict_proba")(rows), estimator.predict_proba(rows))


@pytest.mark.parametrize("name", ["boosting", "boosting, bool", "exponential"])
@settings(max_examples=15)
@given(rows=SOME_ROWS)
def test_boosting_s_raw_scores_are_exactly_the_library_s(name, rows):
    estimator = ESTIMATORS[name]
    assert_same(shortcut(estimator, "decision_function")(rows), estimator.decision_function(rows))


@pytest.mark.parametrize("name", ["forest", "tree", "boosting", "quantile", "extra regressor"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e300])
def test_what_is_not_finite_ends_as_in_the_library(name, bad):
    rows, estimator = ROWS[:3].copy(), ESTIMATORS[name]
    rows[1, 2] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        ours, theirs = outcome(shortcut_of(name), rows), outcome(estimator.predict, rows)
    assert ours == theirs


@pytest.mark.parametrize("kind", [ensemble.RandomForestClassifier, tree.DecisionTreeClassifier])
def test_a_model_trained_with_holes_predicts_holes(kind):
    holed = np.where(RANDOM.random(ROWS.shape) < 0.2, np.nan, ROWS)
    try:
        estimator = kind(random_state=0).fit(holed, CLASSES)
    except ValueError:
        pytest.skip("this scikit-learn's trees do not know missing values")
    assert_same(shortcut(estimator)(holed), estimator.predict(holed))
    assert_same(shortcut(estimator)(ROWS), estimator.predict(ROWS))


@pytest.mark.parametrize("name", ["forest", "tree", "boosting", "quantile"])
@pytest.mark.parametrize("arranged", [np.asfortranarray, lambda r: r[::2], lambda r: r[:, ::-1]])
def test_rows_may_lie_in_memory_in_any_order(name, arranged):
    rows = arranged(ROWS)
    assert_same(shortcut_of(name)(rows), ESTIMATORS[name].predict(rows))


def test_many_rows_of_a_model_with_threads_are_left_to_them(monkeypatch):
    estimator = fresh(CLASSIFIERS["forest"], n_jobs=2).fit(ROWS, CLASSES)
    given = []
    monkeypatch.setattr(estimator, "predict", lambda rows: given.append(len(rows)) or "theirs")
    predict = shortcut(estimator)
    assert predict(ROWS).shape == (150,)
    assert given == []
    assert predict(np.repeat(ROWS, 30, axis=0)) == "theirs"
    assert given == [4500]


def test_a_named_model_s_holes_go_under_their_names():
    frame = pd.DataFrame(ROWS, columns=list("abcde"))
    estimator = fresh(CLASSIFIERS["forest"]).fit(frame, CLASSES)
    rows = ROWS[:4].copy()
    rows[2, 1] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        assert_same(shortcut(estimator)(ROWS), estimator.predict(frame))
        with pytest.raises(ValueError, match="infinity"):
            shortcut(estimator)(rows)


def test_the_trees_are_not_copied():
    estimator = fresh(CLASSIFIERS["forest"]).fit(ROWS, CLASSES)
    predict = shortcut(estimator)
    for member in estimator.estimators_:
        member.tree_.value[:] = np.array([0.0, 0.0, 1.0])
    assert (predict(ROWS) == 2).all()


def test_what_predicts_in_its_own_way_has_no_shortcut():
    class Own(ensemble.RandomForestClassifier):
        def predict(self, rows):
            return ["mine"]

    class OwnTree(tree.DecisionTreeClassifier):
        def predict(self, rows, check_input=True):
            return ["mine"]

    class OwnProbabilities(ensemble.RandomForestClassifier):
        def predict_proba(self, rows):
            return np.zeros((len(rows), 3))

    class OwnScores(ensemble.GradientBoostingClassifier):
        def _raw_predict(self, rows):
            return np.zeros((len(rows), 3))

    for kind in (Own, OwnTree, OwnProbabilities, OwnScores):
        assert shortcut(kind().fit(ROWS, CLASSES)) is None


def test_a_forest_with_trees_of_another_kind_has_no_shortcut():
    class OwnTree(tree.DecisionTreeClassifier):
        pass

    estimator = fresh(CLASSIFIERS["forest"]).fit(ROWS, CLASSES)
    estimator.estimators_[3].__class__ = OwnTree
    assert shortcut(estimator) is None


def test_boosting_that_starts_from_a_model_has_no_shortcut():
    start = tree.DecisionTreeRegressor(max_depth=1)
    estimator = ensemble.GradientBoostingRegressor(n_estimators=3, init=start)
    assert shortcut(estimator.fit(ROWS, ROWS[:, 1])) is None


@pytest.mark.parametrize(
    "kind", [ensemble.RandomForestRegressor, ensemble.ExtraTreesClassifier, tree.ExtraTreeRegressor]
)
def test_several_outputs_have_no_shortcut(kind):
    assert shortcut(kind().fit(ROWS, np.stack([CLASSES, TEN], axis=1))) is None


@pytest.mark.parametrize("estimator", [*CLASSIFIERS.values(), *REGRESSORS.values()], ids=str)
def test_what_was_not_fitted_has_no_shortcut(estimator):
    assert shortcut(fresh(estimator)) is None

"""Linear models by one product: equal to scikit-learn's own predict, bit for bit."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import linear_model, svm
from sklearn.datasets import make_classification, make_regression

from manymodels.artifacts.shortcuts import shortcut

FEATURES = 6
CLASSIFIERS = [
    linear_model.LogisticRegression(),
    linear_model.LogisticRegression(C=0.01, fit_intercept=False),
    linear_model.SGDClassifier(random_state=0),
    linear_model.Perceptron(),
    linear_model.RidgeClassifier(),
    linear_model.RidgeClassifierCV(),
    svm.LinearSVC(),
]
REGRESSORS = [
    linear_model.LinearRegression(),
    linear_model.Ridge(),
    linear_model.RidgeCV(),
    linear_model.Lasso(0.01),
    linear_model.ElasticNetCV(alphas=[0.01, 1.0]),
    linear_model.LassoLars(0.01),
    linear_model.HuberRegressor(),
    svm.LinearSVR(),
]


def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for classes in (2, 4):
            rows, labels = make_classification(
                200, FEATURES, n_informative=5, n_redundant=0, n_classes=classes, random_state=0
            )
            names = np.array(["ash", "birch", "cedar", "dogwood"])
            for estimator in CLASSIFIERS:
                yield type(estimator)(**estimator.get_params()).fit(rows, labels)
                yield type(estimator)(**estimator.get_params()).fit(rows, names[labels])
        rows, values = make_regression(200, FEATURES, random_state=0)
        for estimator in REGRESSORS:
            yield type(estimator)(**estimator.get_params()).fit(rows, values)


ESTIMATORS = list(fitted())


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
@given(
    rows=arrays(
        float, st.tuples(st.integers(1, 5), st.just(FEATURES)), elements=st.floats(-1e6, 1e6)
    )
)
def test_a_linear_model_predicts_exactly_what_scikit_learn_predicts(estimator, rows):
    predict = shortcut(estimator)
    assert predict is not None
    ours, theirs = predict(rows), estimator.predict(rows)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("estimator", ESTIMATORS[:6], ids=lambda e: type(e).__name__)
@given(
    rows=arrays(
        float, st.tuples(st.integers(1, 5), st.just(FEATURES)), elements=st.floats(-1e6, 1e6)
    )
)
def test_so_do_its_raw_scores(estimator, rows):
    ours = shortcut(estimator, "decision_function")(rows)
    np.testing.assert_array_equal(ours, estimator.decision_function(rows))


def test_even_scores_give_the_library_s_class():
    rows, labels = make_classification(200, FEATURES, n_informative=5, n_redundant=0, n_classes=4)
    for classes in (2, 4):
        estimator = linear_model.LogisticRegression().fit(rows, labels % classes)
        estimator.coef_[:] = 0.0
        estimator.intercept_[:] = 0.0
        np.testing.assert_array_equal(shortcut(estimator)(rows), estimator.predict(rows))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("estimator", ESTIMATORS[::5], ids=lambda e: type(e).__name__)
def test_rows_that_are_not_finite_meet_scikit_learns_own_error(estimator, bad):
    rows = np.ones((2, FEATURES))
    rows[1, 3] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        shortcut(estimator)(rows)


def test_a_sparsified_model_goes_the_long_way():
    rows, labels = make_classification(50, FEATURES, random_state=0)
    assert shortcut(linear_model.SGDClassifier().fit(rows, labels).sparsify()) is None


def test_what_predicts_in_its_own_way_goes_the_long_way():
    class Own(linear_model.LogisticRegression):
        def predict(self, rows):
            return ["mine"]

    rows, labels = make_classification(50, FEATURES, random_state=0)
    assert shortcut(Own().fit(rows, labels)) is None
    assert shortcut(linear_model.PoissonRegressor().fit(rows, labels)) is None
    several = np.stack([labels, 1.0 - labels], axis=1)
    assert shortcut(linear_model.Ridge().fit(rows, several)) is None
    assert shortcut(linear_model.LogisticRegression()) is None

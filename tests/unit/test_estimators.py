"""Every estimator of scikit-learn that answers rows: saved, loaded, asked, and as in-process."""

from __future__ import annotations

import functools
import warnings

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn import linear_model, neighbors, svm, tree
from sklearn.base import RegressorMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators

from manymodels import content
from manymodels.artifacts import load

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(60, 4))
CLASSES = RANDOM.integers(0, 3, 60)
POSITIVE = ROWS[:, 0] ** 2 + 0.5
TWO = np.stack([CLASSES, RANDOM.integers(0, 2, 60)], axis=1)
COUNTS = RANDOM.integers(0, 5, (60, 4)).astype(float)
NAMES = ["ash", "birch", "cedar", "dogwood"]

LOGISTIC = linear_model.LogisticRegression()
RIDGE = linear_model.Ridge()
TREE = tree.DecisionTreeClassifier(max_depth=3, random_state=0)
BEFORE = [("scaler", StandardScaler())]
ARGUMENTS = {
    "AdaBoostClassifier": {"n_estimators": 5},
    "AdaBoostRegressor": {"n_estimators": 5},
    "BaggingClassifier": {"n_estimators": 3},
    "BaggingRegressor": {"n_estimators": 3, "max_features": 2},
    "ClassifierChain": {"estimator": LOGISTIC},
    "ColumnTransformer": {"transformers": [("scaler", StandardScaler(), [1, 2])]},
    "DictionaryLearning": {"max_iter": 5},
    "ExtraTreesClassifier": {"n_estimators": 10},
    "ExtraTreesRegressor": {"n_estimators": 10},
    "FeatureUnion": {"transformer_list": BEFORE},
    "FixedThresholdClassifier": {"estimator": LOGISTIC},
    "GaussianRandomProjection": {"n_components": 2},
    "GradientBoostingClassifier": {"n_estimators": 10},
    "GradientBoostingRegressor": {"n_estimators": 10},
    "GridSearchCV": {"estimator": RIDGE, "param_grid": {"alpha": [0.1, 1.0]}, "cv": 2},
    "HistGradientBoostingClassifier": {"max_iter": 5},
    "HistGradientBoostingRegressor": {"max_iter": 5},
    "IsolationForest": {"n_estimators": 10},
    "LocalOutlierFactor": {"novelty": True},
    "LogisticRegressionCV": {"Cs": 2, "cv": 2},
    "MiniBatchDictionaryLearning": {"max_iter": 5},
    "MultiOutputClassifier": {"estimator": TREE},
    "MultiOutputRegressor": {"estimator": RIDGE},
    "OneVsOneClassifier": {"estimator": LOGISTIC},
    "OneVsRestClassifier": {"estimator": TREE},
    "OutputCodeClassifier": {"estimator": LOGISTIC},
    "Pipeline": {"steps": [*BEFORE, ("last", LOGISTIC)]},
    "QuantileTransformer": {"n_quantiles": 20},
    "QuantileRegressor": {"solver": "highs"},
    "RadiusNeighborsClassifier": {"radius": 3.0, "outlier_label": 1},
    "RadiusNeighborsRegressor": {"radius": 6.0},
    "RandomForestClassifier": {"n_estimators": 10},
    "RandomForestRegressor": {"n_estimators": 10},
    "RandomizedSearchCV": {
        "estimator": TREE,
        "param_distributions": {"max_depth": [1, 2]},
        "n_iter": 2,
        "cv": 2,
    },
    "RandomTreesEmbedding": {"n_estimators": 5},
    "RegressorChain": {"estimator": RIDGE},
    "RFE": {"estimator": LOGISTIC},
    "RFECV": {"estimator": LOGISTIC, "cv": 2},
    "SelectFromModel": {"estimator": TREE},
    "SelectKBest": {"k": 2},
    "SelfTrainingClassifier": {"estimator": LOGISTIC},
    "SequentialFeatureSelector": {"estimator": RIDGE, "cv": 2},
    "SparseRandomProjection": {"n_components": 2},
    "StackingClassifier": {"estimators": [("a", TREE), ("b", LOGISTIC)], "cv": 2},
    "StackingRegressor": {"estimators": [("a", RIDGE), ("b", svm.SVR())], "cv": 2},
    "TransformedTargetRegressor": {"func": np.log, "inverse_func": np.exp},
    "TunedThresholdClassifierCV": {"estimator": LOGISTIC, "cv": 2},
    "VotingClassifier": {"estimators": [("a", TREE), ("b", LOGISTIC)]},
    "VotingRegressor": {"estimators": [("a", RIDGE), ("b", neighbors.KNeighborsRegressor())]},
}
NOT_NEGATIVE = {
    "AdditiveChi2Sampler",
    "CategoricalNB",
    "ComplementNB",
    "LatentDirichletAllocation",
    "MiniBatchNMF",
    "MultinomialNB",
    "NMF",
    "SkewedChi2Sampler",
}
SEVERAL_TARGETS = {
    "CCA",
    "ClassifierChain",
    "MultiOutputClassifier",
    "MultiOutputRegressor",
    "MultiTaskElasticNet",
    "MultiTaskElasticNetCV",
    "MultiTaskLasso",
    "MultiTaskLassoCV",
    "PLSCanonical",
    "PLSSVD",
    "RegressorChain",
}
NOT_ASKED = {
    "CountVectorizer": "takes texts",
    "DictVectorizer": "takes dictionaries",
    "FeatureHasher": "takes dictionaries",
    "HashingVectorizer": "takes texts",
    "LabelBinarizer": "takes labels",
    "LabelEncoder": "takes labels",
    "MultiLabelBinarizer": "takes sets of labels",
    "PatchExtractor": "takes images",
    "SparseCoder": "learns nothing from what it is fitted on, not even names",
    "TfidfTransformer": "takes counts of words",
    "TfidfVectorizer": "takes texts",
}
"""The transformers, none of them a classifier or a regressor, that are not asked here, and why."""


def kinds():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = dict(all_estimators())
    return {n: k for n, k in known.items() if hasattr(k, "predict") or hasattr(k, "transform")}


KINDS = kinds()
TESTED = [name for name in KINDS if name not in NOT_ASKED]


def training_data(name):
    if name == "IsotonicRegression":
        return ROWS[:, :1], POSITIVE
    if name == "KernelCenterer":
        return ROWS @ ROWS.T, CLASSES
    rows = COUNTS if name in NOT_NEGATIVE else ROWS
    if name in SEVERAL_TARGETS:
        return rows, TWO
    if name in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        return rows, CLASSES > 1
    if issubclass(KINDS[name], RegressorMixin) or name == "TargetEncoder":
        return rows, POSITIVE
    return rows, CLASSES


@functools.cache
def fitted(name, named):
    arguments = dict(ARGUMENTS.get(name, {}))
    # The first argument of those that take one, whatever the version calls it.
    inner = [arguments.pop("estimator")] if "estimator" in arguments else []
    estimator = KINDS[name](*inner, **arguments)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=0)
    rows, targets = training_data(name)
    if named:
        rows = pd.DataFrame(rows, columns=NAMES[: rows.shape[1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(rows, targets)


def csv(rows):
    lines = [",".join(repr(float(cell)) for cell in row) for row in rows]
    return "\n".join(lines).encode(), "text/csv"


def json(rows):
    return orjson.dumps(rows.tolist()), "application/json"


def records(rows):
    # In another order than the model's: the names say which is which.
    cells = [list(zip(NAMES, row, strict=False)) for row in rows.tolist()]
    return orjson.dumps([dict(reversed(row)) for row in cells]), "application/json"


def as_in_process(estimator, rows):
    # A copy: numpy multiplies an array by itself in another way, and some keep the training rows.
    rows = rows.copy()
    answers = (estimator.predict if hasattr(estimator, "predict") else estimator.transform)(rows)
    return answers.toarray() if hasattr(answers, "toarray") else np.asarray(answers)


def answered(directory, estimator, body, content_type):
    joblib.dump(estimator, directory / "model.joblib")
    model = load(directory)
    return model.predict(content.decode(body, content_type, model.columns))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("encode", [csv, json])
@pytest.mark.parametrize("name", TESTED)
def test_an_estimator_answers_as_in_process(tmp_path, name, encode):
    estimator, rows = fitted(name, named=False), training_data(name)[0]
    expected = as_in_process(estimator, rows)
    found = answered(tmp_path, estimator, *encode(rows))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in TESTED if name != "KernelCenterer"])
def test_one_trained_on_named_columns_does_so_too(tmp_path, name):
    estimator, rows = fitted(name, named=True), training_data(name)[0]
    frame = pd.DataFrame(rows, columns=NAMES[: rows.shape[1]])
    expected = as_in_process(estimator, frame)
    found = answered(tmp_path, estimator, *records(rows))
    assert found.dtype == expected.dtype
    if found.dtype.kind == "f":
        # A frame's columns lie one after the other, a body's rows: BLAS sums in another order.
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore")
def test_every_classifier_and_regressor_is_among_them():
    predicting = [name for kind in ("classifier", "regressor") for name, _ in all_estimators(kind)]
    assert set(predicting) <= set(TESTED)
    assert len(predicting) >= 95


def test_those_that_are_not_asked_predict_nothing():
    # So no classifier, regressor, clusterer or detector can be among them.
    for name in NOT_ASKED.keys() & KINDS.keys():
        assert not hasattr(KINDS[name], "predict")

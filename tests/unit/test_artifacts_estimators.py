"""scikit-learn's estimators as models: what they take, and what they answer."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.manifold import TSNE
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from manymodels.artifacts import Model, adopt, load
from manymodels.errors import BadRequest, ModelLoadError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(90, 4))
LABELS = np.array(["low", "mid", "high"])[np.digitize(ROWS[:, 0], [-0.5, 0.5])]
BINARY = (ROWS[:, 0] > 0).astype(int)
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 80, 90).astype(float),
        "city": RNG.choice(["Bern", "Rome", "Oslo"], 90).astype(object),
        "code": RNG.choice(["01", "02", "10"], 90).astype(object),
        "floor": RNG.integers(0, 3, 90).astype(float),
    }
)
TEXTS = ["good film", "bad film", "very good", "very bad", "good", "bad"] * 5
MOODS = np.array([1, 0, 1, 0, 1, 0] * 5)


def reload(tmp_path, estimator):
    joblib.dump(estimator, tmp_path / "model.joblib")
    return load(tmp_path)


def encoder():
    return OneHotEncoder(handle_unknown="ignore")


def city_and_code(frame):
    return ["city", "code"]


# Which columns are text.

TEXT_COLUMNS = [
    make_column_transformer((encoder(), ["city", "code"]), (StandardScaler(), ["age", "floor"])),
    make_column_transformer((encoder(), ["city", "code"]), remainder="passthrough"),
    make_column_transformer((StandardScaler(), ["age", "floor"]), remainder=encoder()),
    make_column_transformer((encoder(), [1, 2]), remainder="drop"),
    make_column_transformer((encoder(), [-3, -2]), remainder="drop"),
    make_column_transformer((encoder(), slice(1, 3)), remainder="drop"),
    make_column_transformer((encoder(), slice("city", "code")), remainder="drop"),
    make_column_transformer((encoder(), [False, True, True, False]), remainder="drop"),
    make_column_transformer((encoder(), make_column_selector("city|code"))),
    make_column_transformer((encoder(), city_and_code)),
    make_column_transformer((OrdinalEncoder(), ["code", "city", "floor"])),
    make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), encoder()), ["city", "code"]),
    ),
    make_column_transformer((TargetEncoder(), ["city", "code"]), remainder="passthrough"),
    make_column_transformer((TfidfVectorizer(), "city"), (CountVectorizer(), "code")),
    make_column_transformer((TfidfVectorizer(token_pattern=".+"), 1), (encoder(), [2])),
    Pipeline([("none", "passthrough"), ("columns", make_column_transformer((encoder(), [1, 2])))]),
    FeatureUnion([("all", make_column_transformer((encoder(), ["city", "code"])))]),
    ColumnTransformer([("inner", make_column_transformer((encoder(), ["city"])), ["city", "code"]),
                       ("code", encoder(), ["code"])]),
]  # fmt: skip


@pytest.mark.parametrize("transformer", TEXT_COLUMNS, ids=range(len(TEXT_COLUMNS)))
def test_columns_whose_trained_values_are_texts_are_known(tmp_path, transformer):
    pipeline = make_pipeline(transformer, DecisionTreeClassifier(random_state=0))
    model = reload(tmp_path, pipeline.fit(FRAME, BINARY))
    assert model.columns.names == ("age", "city", "code", "floor")
    assert (model.columns.count, model.columns.frame, model.columns.numbers) == (4, True, False)
    assert model.columns.text == {1, 2}
    np.testing.assert_array_equal(model.predict(FRAME), pipeline.predict(FRAME))


WRAPPERS = [
    GridSearchCV,
    CalibratedClassifierCV,
    OneVsRestClassifier,
    lambda inner: VotingClassifier([("a", inner), ("b", inner)], voting="soft"),
    lambda inner: StackingClassifier([("a", inner)], LogisticRegression(), cv=2),
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=range(len(WRAPPERS)))
def test_what_wraps_a_pipeline_takes_what_the_pipeline_takes(tmp_path, wrap):
    columns = make_column_transformer((encoder(), ["city", "code"]), remainder="passthrough")
    inner = make_pipeline(columns, DecisionTreeClassifier(max_depth=2, random_state=0))
    if wrap is GridSearchCV:
        estimator = GridSearchCV(inner, {"decisiontreeclassifier__max_depth": [1, 2]}, cv=2)
    elif wrap is CalibratedClassifierCV:
        estimator = CalibratedClassifierCV(inner, cv=2)
    else:
        estimator = wrap(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(FRAME, BINARY)
    model = reload(tmp_path, estimator)
    assert model.columns.count == 4
    assert model.columns.text == {1, 2}
    if not isinstance(estimator, OneVsRestClassifier):
        assert model.columns.names == ("age", "city", "code", "floor")
    np.testing.assert_array_equal(model.predict(FRAME), estimator.predict(FRAME))
    np.testing.assert_array_equal(
        model.call(model.probabilities, FRAME), estimator.predict_proba(FRAME)
    )


def test_numbers_that_are_categories_are_no_texts(tmp_path):
    frame = FRAME[["age", "floor"]]
    pipeline = make_pipeline(encoder(), LogisticRegression()).fit(frame, BINARY)
    assert reload(tmp_path, pipeline).columns.text == frozenset()


def test_texts_without_names_are_known_by_position(tmp_path):
    rows = FRAME.to_numpy()
    columns = make_column_transformer((encoder(), [1, 2]), remainder="passthrough")
    pipeline = make_pipeline(columns, DecisionTreeClassifier(random_state=0)).fit(rows, BINARY)
    model = reload(tmp_path, pipeline)
    assert (model.columns.names, model.columns.frame, model.columns.text) == (None, False, {1, 2})
    np.testing.assert_array_equal(model.predict(rows), pipeline.predict(rows))


@pytest.mark.skipif(
    not hasattr(HistGradientBoostingClassifier, "_preprocess_X"), reason="scikit-learn < 1.4"
)
def test_a_model_of_native_categories_knows_its_texts(tmp_path):
    frame = FRAME.astype({"city": "category", "code": "category"})
    estimator = HistGradientBoostingClassifier(
        max_iter=3, min_samples_leaf=3, categorical_features="from_dtype"
    ).fit(frame, LABELS)
    model = reload(tmp_path, estimator)
    assert model.columns.text == {1, 2}
    np.testing.assert_array_equal(model.predict(FRAME), estimator.predict(frame))


# Texts in place of rows.

TEXT_MODELS = [
    make_pipeline(TfidfVectorizer(), LogisticRegression()),
    make_pipeline(HashingVectorizer(n_features=16), LogisticRegression()),
    make_pipeline("passthrough", CountVectorizer(), LogisticRegression()),
    make_pipeline(make_pipeline(CountVectorizer()), LogisticRegression()),
    make_pipeline(
        FeatureUnion([("a", CountVectorizer()), ("b", TfidfVectorizer())]), LogisticRegression()
    ),
    GridSearchCV(
        make_pipeline(TfidfVectorizer(), LogisticRegression()), {"logisticregression__C": [1, 2]}
    ),
]


@pytest.mark.parametrize("estimator", TEXT_MODELS, ids=range(len(TEXT_MODELS)))
def test_a_model_of_texts_takes_one_column_of_them(tmp_path, estimator):
    estimator.fit(TEXTS, MOODS)
    model = reload(tmp_path, estimator)
    assert (model.columns.count, model.columns.text, model.columns.numbers) == (1, {0}, False)
    rows = np.array(TEXTS, dtype=object)[:, None]
    wanted = estimator.predict(TEXTS)
    np.testing.assert_array_equal(model.predict(rows), wanted)
    np.testing.assert_array_equal(model.predict(pd.DataFrame({"text": TEXTS})), wanted)
    np.testing.assert_array_equal(
        model.call(model.probabilities, rows), estimator.predict_proba(TEXTS)
    )


@pytest.mark.parametrize(("cell", "shown"), [(1.5, "1.5"), (np.nan, "nan"), (None, "None")])
def test_what_is_no_text_is_the_clients_fault(tmp_path, cell, shown):
    model = reload(tmp_path, make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(
        TEXTS, MOODS))  # fmt: skip
    with pytest.raises(BadRequest, match=f"row 2: the model takes a text, not {shown}"):
        model.predict(np.array([["good"], [cell]], dtype=object))


# What is answered.


def test_a_classifier_answers_labels_probabilities_and_scores(tmp_path):
    estimator = LogisticRegression().fit(ROWS, LABELS)
    model = reload(tmp_path, estimator)
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(ROWS))
    assert model.classes.tolist() == ["high", "low", "mid"]
    assert model.labels is None
    np.testing.assert_array_equal(
        model.call(model.probabilities, ROWS), estimator.predict_proba(ROWS)
    )
    np.testing.assert_array_equal(
        model.call(model.raw_scores, ROWS), estimator.decision_function(ROWS)
    )
    assert model.native.coef_.shape == (3, 4)


@pytest.mark.parametrize(
    ("estimator", "probabilities", "raw_scores"),
    [
        (RandomForestClassifier(3), True, False),
        (RidgeClassifier(), False, True),
        (SVC(), False, True),
        (KNeighborsClassifier(), True, False),
        (make_pipeline(StandardScaler(), SVC()), False, True),
    ],
)
def test_a_classifier_answers_what_it_has(tmp_path, estimator, probabilities, raw_scores):
    model = reload(tmp_path, estimator.fit(ROWS, BINARY))
    assert model.classes.tolist() == [0, 1]
    assert (model.probabilities is not None) is probabilities
    assert (model.raw_scores is not None) is raw_scores


def test_a_regressor_has_no_classes(tmp_path):
    model = reload(tmp_path, LinearRegression().fit(ROWS, ROWS[:, :2]))
    assert model.predict(ROWS).shape == (90, 2)
    assert (model.classes, model.probabilities, model.raw_scores) == (None, None, None)


@pytest.mark.parametrize(
    "estimator", [MultiOutputClassifier(LogisticRegression()), RandomForestClassifier(3)]
)
def test_several_outputs_have_no_classes_in_common(tmp_path, estimator):
    model = reload(tmp_path, estimator.fit(ROWS, np.column_stack((BINARY, LABELS))))
    assert model.predict(ROWS).shape == (90, 2)
    assert (model.classes, model.probabilities) == (None, None)


def test_several_labels_a_row_have_no_classes(tmp_path):
    targets = np.column_stack((BINARY, 1 - BINARY, BINARY))
    model = reload(tmp_path, OneVsRestClassifier(LogisticRegression()).fit(ROWS, targets))
    assert model.predict(ROWS).shape == (90, 3)
    assert model.classes is None


def test_a_transformer_answers_what_it_makes_of_the_rows(tmp_path):
    transformer = make_pipeline(StandardScaler(), PCA(2)).fit(ROWS)
    model = reload(tmp_path, transformer)
    np.testing.assert_array_equal(model.predict(ROWS), transformer.transform(ROWS))
    assert model.classes is None


def test_a_transformers_sparse_rows_become_an_array(tmp_path):
    model = reload(tmp_path, OneHotEncoder().fit(FRAME[["city"]]))
    assert scipy.sparse.issparse(model.predict_rows(FRAME[["city"]]))
    assert model.predict(FRAME[["city"]]).shape == (90, 3)


def test_a_clusterer_answers_clusters_and_an_outlier_detector_signs(tmp_path):
    assert set(reload(tmp_path, KMeans(3, n_init=1).fit(ROWS)).predict(ROWS)) == {0, 1, 2}
    detector = IsolationForest(n_estimators=5).fit(ROWS)
    model = reload(tmp_path, detector)
    assert set(model.predict(ROWS)) == {-1, 1}
    np.testing.assert_array_equal(
        model.call(model.raw_scores, ROWS), detector.decision_function(ROWS)
    )


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (DBSCAN(), "a DBSCAN, which has no predict method: it labels only the rows it is trained"),
        (AgglomerativeClustering(), "an AgglomerativeClustering, which has no predict"),
        (make_pipeline(StandardScaler(), DBSCAN()), "a Pipeline, which has no predict"),
        (LocalOutlierFactor(), "no predict method unless it is trained with novelty=True"),
        (TSNE(perplexity=2), "no predict or transform method: it transforms only"),
    ],
)
def test_what_knows_only_its_own_rows_does_not_load_and_says_why(tmp_path, estimator, reason):
    with pytest.raises(ModelLoadError, match=rf"model\.joblib holds .*{reason}"):
        reload(tmp_path, estimator.fit(ROWS[:20]))


def test_a_detector_of_novelties_predicts(tmp_path):
    model = reload(tmp_path, LocalOutlierFactor(novelty=True).fit(ROWS))
    assert set(model.predict(ROWS)) <= {-1, 1}


@pytest.mark.parametrize("estimator", [LogisticRegression(), RandomForestClassifier(), PCA()])
def test_an_estimator_that_was_never_fitted_does_not_load(tmp_path, estimator):
    with pytest.raises(ModelLoadError, match="that was not fitted"):
        reload(tmp_path, estimator)


class Shifting(TransformerMixin, BaseEstimator):
    """Somebody's own: it keeps no attribute that scikit-learn would know it was fitted by."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return np.asarray(X) + 1


def test_a_pipeline_of_somebodys_own_parts_loads(tmp_path):
    pipeline = make_pipeline(Shifting(), LogisticRegression()).fit(ROWS, BINARY)
    model = reload(tmp_path, pipeline)
    assert model.columns.count is None
    np.testing.assert_array_equal(model.predict(ROWS), pipeline.predict(ROWS))
    np.testing.assert_array_equal(reload(tmp_path, Shifting()).predict(ROWS), ROWS + 1)


def test_a_stateless_function_is_a_transformer(tmp_path):
    np.testing.assert_array_equal(
        reload(tmp_path, FunctionTransformer(np.abs)).predict(ROWS), np.abs(ROWS)
    )


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    "estimator", [LogisticRegression(), KNeighborsClassifier(), RandomForestClassifier(3)]
)
def test_no_request_is_warned_of_feature_names(tmp_path, estimator, named):
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    model = reload(tmp_path, estimator.fit(frame if named else ROWS, BINARY))
    given = [ROWS] if model.columns.numbers else [ROWS, frame]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in given:
            model.predict(rows)
            model.call(model.probabilities, rows)


# Workers.


def test_an_estimator_starts_no_workers_of_its_own(tmp_path):
    inner = make_pipeline(StandardScaler(), KNeighborsClassifier(n_jobs=-1))
    estimator = GridSearchCV(
        VotingClassifier([("a", inner), ("b", RandomForestClassifier(3, n_jobs=4))], n_jobs=2),
        {"voting": ["hard"]},
        cv=2,
    ).fit(ROWS, BINARY)
    estimator.n_jobs = -1
    voting = reload(tmp_path, estimator).native.best_estimator_
    assert voting.n_jobs == 1
    assert [voting.estimators_[0][-1].n_jobs, voting.estimators_[1].n_jobs] == [1, 1]
    bagging = BaggingClassifier(LogisticRegression(), 3, n_jobs=-1).fit(ROWS, BINARY)
    assert reload(tmp_path, bagging).native.n_jobs == 1


# Objects that are no file's.


def test_any_object_that_predicts_is_adopted():
    estimator = KNeighborsClassifier(n_jobs=2).fit(ROWS, LABELS)
    model = adopt(estimator)
    assert isinstance(model, Model)
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(ROWS))
    assert estimator.n_jobs == 2, "what the user's code made is the user's"
    assert adopt(model) is model


@pytest.mark.parametrize("thing", [None, {"a": 1}, LogisticRegression, len, "model", 3])
def test_an_object_that_does_not_predict_is_not_adopted(thing):
    kind = type(thing).__name__
    with pytest.raises(ModelLoadError, match=rf"model_fn returned an? {kind}, which has no predi"):
        adopt(thing)


def test_an_object_of_no_convention_is_taken_as_it_is():
    class Odd:
        n_features_in_ = "three"
        steps = "1, 2"

        def predict(self, rows):
            return [1.0] * len(rows)

    assert adopt(Odd()).predict(ROWS).shape == (90,)


def test_pickles_of_every_protocol_load(tmp_path):
    estimator = LogisticRegression().fit(ROWS, BINARY)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(estimator, protocol))
        np.testing.assert_array_equal(load(tmp_path).predict(ROWS), estimator.predict(ROWS))


@pytest.mark.parametrize("compress", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_compressed_files_load(tmp_path, compress):
    estimator = LogisticRegression().fit(ROWS, BINARY)
    joblib.dump(estimator, tmp_path / f"model.pkl.{compress}", compress=(compress, 3))
    (tmp_path / f"model.pkl.{compress}").rename(tmp_path / "model.joblib")
    np.testing.assert_array_equal(load(tmp_path).predict(ROWS), estimator.predict(ROWS))

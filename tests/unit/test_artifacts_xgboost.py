"""XGBoost's models, whatever file they come in, and what their objectives answer."""

import logging
import pickle
from pathlib import Path

import joblib
import numpy as np
import orjson
import pandas as pd
import pytest
import scipy.sparse
import xgboost

from manymodels import content
from manymodels.artifacts import load
from manymodels.errors import BadRequest, ModelLoadError

DATA = Path(__file__).parent / "data"
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(120, 4))
BINARY = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(int)
CLASSES = np.digitize(ROWS[:, 0], [-0.5, 0.5])
COUNTS = np.abs(np.round(ROWS[:, 2] * 3)).astype(int)
OLD_BOOSTER = (DATA / "xgboost-binary-2.1.4").read_bytes()
OLD_FORMAT_IS_GONE = tuple(int(x) for x in xgboost.__version__.split(".")[:2]) >= (3, 1)


def train(objective="binary:logistic", labels=BINARY, rows=ROWS, rounds=4, **parameters):
    parameters = {"objective": objective, "max_depth": 3, "nthread": 1, **parameters}
    parameters = {key: value for key, value in parameters.items() if value is not None}
    names = list(rows.columns) if hasattr(rows, "columns") else None
    matrix = xgboost.DMatrix(rows, labels, feature_names=names, enable_categorical=True)
    return xgboost.train(parameters, matrix, rounds)


def margins_of(booster):
    return booster.predict(xgboost.DMatrix(ROWS), output_margin=True)


def saved(directory, booster, name="model.ubj", raw="ubj"):
    (directory / name).write_bytes(booster.save_raw(raw))
    return directory


def pickled(directory, booster, name="model.pkl"):
    (directory / name).write_bytes(pickle.dumps(booster))
    return directory


@pytest.mark.parametrize(
    "name", ["m.json", "m.ubj", "xgboost-model", "m.bin", "m.model", "m.bst", "m.xgb", "model"]
)
@pytest.mark.parametrize("kind", ["json", "ubj", "pickled booster", "pickled estimator"])
def test_a_model_loads_from_any_file_that_its_content_fits(tmp_path, name, kind):
    estimator = xgboost.XGBClassifier(n_estimators=3, n_jobs=1).fit(ROWS, BINARY)
    booster = estimator.get_booster()
    if kind == "json":
        saved(tmp_path, booster, name, "json")
    elif kind == "ubj":
        saved(tmp_path, booster, name)
    else:
        pickled(tmp_path, booster if kind == "pickled booster" else estimator, name)
    if name == "m.json" and kind not in ("json", "ubj"):
        (tmp_path / name).rename(tmp_path / "m.pickle")
    model = load(tmp_path)
    if kind == "pickled estimator":
        wanted = estimator.predict(ROWS)
    else:
        wanted = estimator.predict_proba(ROWS)[:, 1]
    np.testing.assert_array_equal(model.predict(ROWS), wanted)


@pytest.mark.parametrize(
    ("objective", "labels", "n_classes"),
    [
        ("binary:logistic", BINARY, 2),
        ("binary:logitraw", BINARY, 2),
        ("binary:hinge", BINARY, 2),
        ("multi:softprob", CLASSES, 3),
        ("multi:softmax", CLASSES, 3),
    ],
)
def test_a_classifying_booster_answers_labels_probabilities_and_margins(
    tmp_path, objective, labels, n_classes
):
    options = {"num_class": 3} if n_classes == 3 else {}
    booster = train(objective, labels, **options)
    predictions = booster.predict(xgboost.DMatrix(ROWS))
    model = load(saved(tmp_path, booster))
    np.testing.assert_array_equal(model.predict(ROWS), predictions)
    assert model.classes.tolist() == list(range(n_classes))
    assert model.origin["objective"] == objective
    margins = model.call(model.raw_scores, ROWS)
    np.testing.assert_array_equal(margins, margins_of(booster))
    if n_classes == 3:
        wanted = margins.argmax(axis=1)
    elif objective == "binary:hinge":
        wanted = predictions.astype(int)
    else:
        wanted = (margins > 0).astype(int)
    np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted)
    if objective == "binary:hinge":
        assert model.probabilities is None
        return
    probabilities = model.call(model.probabilities, ROWS)
    assert probabilities.shape == (len(ROWS), n_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), wanted)
    if objective == "binary:logistic":
        np.testing.assert_array_equal(probabilities[:, 1], predictions)


@pytest.mark.parametrize(
    ("objective", "labels"),
    [
        ("reg:squarederror", ROWS[:, 0]),
        ("reg:logistic", BINARY),
        ("reg:tweedie", COUNTS),
        ("count:poisson", COUNTS),
        ("survival:aft", None),
        ("rank:pairwise", None),
    ],
)
def test_a_booster_that_does_not_classify_predicts_and_has_no_classes(tmp_path, objective, labels):
    matrix = xgboost.DMatrix(ROWS, labels)
    if objective == "survival:aft":
        matrix.set_float_info("label_lower_bound", COUNTS + 1.0)
        matrix.set_float_info("label_upper_bound", COUNTS + 2.0)
    if objective == "rank:pairwise":
        matrix = xgboost.DMatrix(ROWS, COUNTS, qid=np.arange(len(ROWS)) // 10)
    booster = xgboost.train({"objective": objective, "nthread": 1}, matrix, 3)
    model = load(saved(tmp_path, booster))
    np.testing.assert_array_equal(
        model.predict(ROWS), booster.predict(xgboost.DMatrix(ROWS)).astype(np.float32)
    )
    assert (model.classes, model.labels, model.probabilities) == (None, None, None)
    assert model.origin["objective"] == objective


def test_several_targets_have_no_classes(tmp_path):
    targets = np.column_stack((BINARY, 1 - BINARY))
    booster = train("binary:logistic", targets)
    model = load(saved(tmp_path, booster))
    assert model.predict(ROWS).shape == (len(ROWS), 2)
    assert model.classes is None


@pytest.mark.parametrize("booster", ["dart", "gblinear"])
def test_other_boosters_answer_their_margins(tmp_path, booster):
    trained = train(booster=booster, **({"max_depth": None} if booster == "gblinear" else {}))
    model = load(saved(tmp_path, trained))
    np.testing.assert_allclose(
        model.call(model.raw_scores, ROWS), margins_of(trained), rtol=1e-6, atol=1e-6
    )


def test_margins_stop_where_training_stopped_early(tmp_path):
    estimator = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2, n_jobs=1)
    noise = RNG.permutation(BINARY[:40])
    estimator.fit(ROWS[:40], BINARY[:40], eval_set=[(ROWS[40:80], noise)], verbose=False)
    model = load(saved(tmp_path, estimator.get_booster()))
    np.testing.assert_allclose(
        model.call(model.raw_scores, ROWS), estimator.predict(ROWS, output_margin=True), rtol=1e-6
    )


@pytest.mark.parametrize("labels", [BINARY, CLASSES], ids=["two", "three"])
@pytest.mark.parametrize("named", [False, True])
def test_a_pickled_classifier_answers_as_itself(tmp_path, labels, named):
    rows = pd.DataFrame(ROWS, columns=list("abcd")) if named else ROWS
    estimator = xgboost.XGBClassifier(n_estimators=3, n_jobs=4).fit(rows, labels)
    joblib.dump(estimator, tmp_path / "model.joblib")
    model = load(tmp_path)
    assert model.columns.names == (("a", "b", "c", "d") if named else None)
    np.testing.assert_array_equal(model.predict(ROWS), estimator.predict(rows))
    np.testing.assert_array_equal(model.classes, estimator.classes_)
    for function, wanted in (
        (model.probabilities, estimator.predict_proba(rows)),
        (model.raw_scores, estimator.predict(rows, output_margin=True)),
    ):
        np.testing.assert_array_equal(model.call(function, ROWS), wanted)


def test_an_estimator_that_was_never_fitted_does_not_load(tmp_path):
    joblib.dump(xgboost.XGBRegressor(), tmp_path / "model.pkl")
    with pytest.raises(ModelLoadError, match=r"model\.pkl holds an XGBRegressor that was not fit"):
        load(tmp_path)


def test_a_subclass_that_predicts_its_own_way_keeps_it(tmp_path):
    joblib.dump(Doubling(n_estimators=2, n_jobs=1).fit(ROWS, ROWS[:, 0]), tmp_path / "m.pkl")
    plain = xgboost.XGBRegressor(n_estimators=2, n_jobs=1).fit(ROWS, ROWS[:, 0])
    np.testing.assert_array_equal(load(tmp_path).predict(ROWS), 2 * plain.predict(ROWS))


def test_a_subclass_is_given_the_columns_that_it_was_trained_on(tmp_path):
    frame = pd.DataFrame(ROWS, columns=list("abcd"))
    joblib.dump(OfColumnB(n_estimators=2, n_jobs=1).fit(frame, ROWS[:, 0]), tmp_path / "m.pkl")
    model = load(tmp_path)
    assert (model.columns.frame, model.columns.numbers) == (True, False)
    np.testing.assert_array_equal(model.predict(frame), ROWS[:, 1])


class OfColumnB(xgboost.XGBRegressor):
    def predict(self, X):
        return X["b"].to_numpy()


class Doubling(xgboost.XGBRegressor):
    def predict(self, X):
        return 2 * super().predict(X)


# Versions.


def test_a_saved_booster_tells_which_version_wrote_it(tmp_path):
    model = load(saved(tmp_path, train(), "m.json", "json"))
    assert model.origin == {
        "file": "m.json",
        "format": "XGBoost JSON",
        "written_by": f"xgboost {xgboost.__version__}",
        "running": f"xgboost {xgboost.__version__}",
        "objective": "binary:logistic",
    }


@pytest.mark.parametrize("raw", ["json", "ubj"])
def test_a_booster_of_a_newer_version_is_a_warning(tmp_path, caplog, raw):
    content = bytes(train().save_raw(raw))
    if raw == "json":
        content = orjson.dumps({**orjson.loads(content), "version": [99, 1, 0]})
    else:
        start = content.rindex(b"version") + len("version[#L") + 8  # after the list's length
        content = content[:start] + b"i\x63i\x01i\x00}"
    (tmp_path / f"m.{raw}").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        model = load(tmp_path)
    assert model.origin["written_by"] == "xgboost 99.1.0"
    assert [record.getMessage() for record in caplog.records] == [
        f"m.{raw}: written by xgboost 99.1.0, read by xgboost {xgboost.__version__}: "
        "predictions may differ or fail"
    ]


@pytest.mark.skipif(not OLD_FORMAT_IS_GONE, reason="this XGBoost reads the old format")
@pytest.mark.parametrize("name", ["xgboost-model", "m.bin", "m.model", "m.bst", "m.pkl", "m"])
@pytest.mark.parametrize("content", [OLD_BOOSTER, OLD_BOOSTER[4:]], ids=["since 1.0", "before"])
def test_the_old_binary_format_says_which_version_reads_it_and_how_to_convert(
    tmp_path, name, content
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        load(tmp_path)
    assert caught.value.message == (
        f"{name} is in XGBoost's old binary format, which XGBoost reads up to 3.0.5, and xgboost "
        f"{xgboost.__version__} is here; convert it once: pip install xgboost==3.0.5 && python -c "
        f"\"import xgboost; b = xgboost.Booster(); b.load_model('{name}'); "
        "b.save_model('model.ubj')\""
    )


@pytest.mark.skipif(OLD_FORMAT_IS_GONE, reason="this XGBoost reads the old format no more")
@pytest.mark.parametrize("content", [OLD_BOOSTER, OLD_BOOSTER[4:]], ids=["since 1.0", "before"])
def test_an_xgboost_that_reads_the_old_format_loads_it(tmp_path, content):
    (tmp_path / "xgboost-model").write_bytes(content)
    assert load(tmp_path).predict(ROWS[:, :3]).shape == (len(ROWS),)


@pytest.mark.parametrize("content", [b"garbage", b"\0" * 300, b"{}"])
@pytest.mark.parametrize("name", ["xgboost-model", "m.bst"])
def test_a_booster_file_that_holds_none_says_what_it_may_be(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=rf"{name} does not load: it is neither .* pickle"):
        load(tmp_path)


@pytest.mark.parametrize("raw", ["json", "ubj"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_booster_that_was_cut_short_is_named(tmp_path, raw, part):
    content = train().save_raw(raw)
    (tmp_path / "xgboost-model").write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ModelLoadError, match=r"xgboost-model does not load: XGBoostError") as error:
        load(tmp_path)
    assert "\n" not in error.value.message


# Categories.


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
    labels = ((frame.colour == "red") | (frame.code == 20)).astype(int)
    return xgboost.XGBClassifier(n_estimators=4, n_jobs=1, enable_categorical=True).fit(
        frame, labels
    )


def as_sent(frame):
    """What a body becomes: texts and numbers, no categories."""
    return frame.assign(colour=frame.colour.astype(object), code=frame.code.astype(float))


needs_categories = pytest.mark.skipif(
    not OLD_FORMAT_IS_GONE, reason="XGBoost keeps categories since 3.1"
)


@needs_categories
@pytest.mark.parametrize("kind", ["saved", "booster", "estimator"])
def test_trained_categories_are_known_again(tmp_path, frame, coloured, kind):
    if kind == "saved":
        saved(tmp_path, coloured.get_booster())
    else:
        pickled(tmp_path, coloured if kind == "estimator" else coloured.get_booster())
    model = load(tmp_path)
    assert model.columns.names == ("size", "colour", "code")
    assert (model.columns.frame, model.columns.numbers) == (True, False)
    assert model.columns.text == {1}
    wanted = coloured.predict_proba(frame)
    rows = as_sent(frame)
    np.testing.assert_array_equal(model.call(model.probabilities, rows), wanted)
    one = rows.iloc[[3]]
    np.testing.assert_array_equal(model.call(model.probabilities, one), wanted[[3]])
    np.testing.assert_array_equal(
        model.predict(rows), coloured.predict(frame) if kind == "estimator" else wanted[:, 1]
    )
    assert rows.colour.dtype == object, "the request's rows are not the model's to change"


@needs_categories
@pytest.mark.parametrize("kind", ["booster", "estimator"])
def test_a_category_that_was_not_trained_is_the_clients_fault(tmp_path, frame, coloured, kind):
    pickled(tmp_path, coloured if kind == "estimator" else coloured.get_booster())
    rows = as_sent(frame)
    rows.loc[2, "colour"] = "mauve"
    with pytest.raises(BadRequest, match="row 3, column 2: 'mauve' is no category that the model"):
        load(tmp_path).predict(rows)


@needs_categories
def test_a_missing_category_is_missing(tmp_path, frame, coloured):
    saved(tmp_path, coloured.get_booster())
    rows = as_sent(frame)
    rows["colour"] = np.nan
    without = frame.assign(colour=pd.Categorical([None] * len(frame), ["red", "green", "blue"]))
    np.testing.assert_array_equal(
        load(tmp_path).predict(rows), coloured.predict_proba(without)[:, 1]
    )


# Ensembles, as AWS's XGBoost container has them.


def three(objective, labels, **options):
    return [
        train(objective, labels, seed=seed, subsample=0.5, eta=0.1 + 0.2 * seed, **options)
        for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("objective", "labels", "options"),
    [
        ("reg:squarederror", ROWS[:, 1], {}),
        ("binary:logistic", BINARY, {}),
        ("multi:softprob", CLASSES, {"num_class": 3}),
    ],
)
def test_an_ensemble_predicts_the_mean(tmp_path, objective, labels, options):
    boosters = three(objective, labels, **options)
    saved(tmp_path, boosters[0], "xgboost-model-0")
    saved(tmp_path, boosters[1], "b.json", "json")
    pickled(tmp_path, boosters[2], "c.pkl")
    model = load(tmp_path, ensemble=True)
    each = [booster.predict(xgboost.DMatrix(ROWS)) for booster in boosters]
    wanted = np.mean(each, axis=0)
    np.testing.assert_allclose(model.predict(ROWS), wanted, rtol=1e-6)
    assert (model.kind, model.columns.count, len(model.native)) == ("Ensemble", 4, 3)
    assert model.origin["file"] == "b.json, c.pkl, xgboost-model-0"
    if objective == "binary:logistic":
        np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted > 0.5)
        probabilities = model.call(model.probabilities, ROWS)
        np.testing.assert_array_equal(probabilities[:, 1], model.predict(ROWS))
    if objective == "multi:softprob":
        np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted.argmax(axis=1))
    if objective != "reg:squarederror":
        margins = [margins_of(booster) for booster in boosters]
        np.testing.assert_allclose(
            model.call(model.raw_scores, ROWS), np.mean(margins, axis=0), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("objective", "labels", "options"),
    [("binary:hinge", BINARY, {}), ("multi:softmax", CLASSES, {"num_class": 3})],
)
def test_an_ensemble_of_labels_votes(tmp_path, objective, labels, options):
    boosters = three(objective, labels, **options)
    for index, booster in enumerate(boosters):
        saved(tmp_path, booster, f"xgboost-model-{index}")
    model = load(tmp_path, ensemble=True)
    each = np.array([booster.predict(xgboost.DMatrix(ROWS)) for booster in boosters]).astype(int)
    assert (each != each[0]).any(), "they have to disagree somewhere"
    # scipy.stats.mode's rule: of labels with as many votes the lowest.
    wanted = [np.bincount(votes).argmax() for votes in each.T]
    predictions = model.predict(ROWS)
    np.testing.assert_array_equal(predictions, wanted)
    assert predictions.dtype == np.float32
    np.testing.assert_array_equal(model.call(model.labels, ROWS), wanted)
    shares = model.call(model.probabilities, ROWS)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(shares.argmax(axis=1), wanted)


def test_an_ensemble_of_pickled_classifiers_is_the_mean_of_their_probabilities(tmp_path):
    estimators = [
        xgboost.XGBClassifier(n_estimators=3, max_depth=depth, n_jobs=1).fit(ROWS, BINARY)
        for depth in (1, 3)
    ]
    for index, estimator in enumerate(estimators):
        pickled(tmp_path, estimator, f"{index}.pkl")
    wanted = np.mean([each.predict_proba(ROWS)[:, 1] for each in estimators], axis=0)
    np.testing.assert_array_equal(load(tmp_path, ensemble=True).predict(ROWS), wanted)


def test_several_boosters_without_the_setting_are_both_named(tmp_path):
    saved(saved(tmp_path, train(), "a.ubj"), train(), "b.ubj")
    with pytest.raises(ModelLoadError, match=r"more than one model .*: a\.ubj, b\.ubj; leave one"):
        load(tmp_path)


def test_the_setting_changes_nothing_for_one_model(tmp_path):
    saved(tmp_path, train())
    assert load(tmp_path, ensemble=True).kind == "Booster"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (train("reg:squarederror", ROWS[:, 0]), "the same objective: .*logistic.*squarederror"),
        (train(rows=ROWS[:, :3]), r"the same number of features: a\.ubj has 4, b\.ubj has 3"),
        (train("binary:hinge"), "the same objective"),
    ],
)
def test_boosters_that_have_nothing_in_common_do_not_answer_together(tmp_path, other, reason):
    saved(saved(tmp_path, train(), "a.ubj"), other, "b.ubj")
    with pytest.raises(ModelLoadError, match=reason):
        load(tmp_path, ensemble=True)


def test_only_xgboosts_models_answer_together(tmp_path):
    from sklearn.linear_model import LogisticRegression

    saved(tmp_path, train(), "a.ubj")
    joblib.dump(LogisticRegression().fit(ROWS, BINARY), tmp_path / "b.pkl")
    with pytest.raises(ModelLoadError, match=r"not all .* XGBoost's: a\.ubj .*, b\.pkl \(a Logi"):
        load(tmp_path, ensemble=True)
    (tmp_path / "c.onnx").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"more than one model .*: a\.ubj, b\.pkl, c\.onnx"):
        load(tmp_path, ensemble=True)


@pytest.mark.parametrize("name", ["model.ubj", "model.pkl"])
@pytest.mark.parametrize("body", ["0:1.5 2:-0.3\n1:0.7\n", "0:0 1:0 2:0\n3:1\n"])
def test_what_a_sparse_row_leaves_out_is_missing(tmp_path, name, body):
    rows = np.where(np.random.default_rng(0).random(ROWS.shape) < 0.3, np.nan, ROWS)
    estimator = xgboost.XGBRegressor(n_estimators=8, n_jobs=1).fit(rows, ROWS[:, 0])
    if name.endswith("ubj"):
        estimator.save_model(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(estimator))
    model = load(tmp_path)
    asked = content.decode(body.encode(), "text/libsvm", model.columns)
    matrix = np.full((2, ROWS.shape[1]), np.nan)
    for row, line in enumerate(body.splitlines()):
        for cell in line.split():
            column, value = cell.split(":")
            matrix[row, int(column)] = float(value)
    expected = estimator.predict(scipy.sparse.csr_matrix(np.nan_to_num(matrix)))
    if "0:0" not in body:  # a matrix made so has no zeros of its own
        np.testing.assert_allclose(model.predict(asked), expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict(asked), estimator.predict(matrix), rtol=1e-6)

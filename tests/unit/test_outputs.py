import numpy as np
import pytest
import xgboost

from manymodels.artifacts import load
from manymodels.artifacts.model import Model
from manymodels.artifacts.outputs import OUTPUTS, parse_outputs, select
from manymodels.content import Columns
from manymodels.errors import BadRequest

ROWS = np.array([[0.2], [0.9], [0.6]])


def two(rows):
    return np.hstack([1 - rows, rows])


def three(rows):
    return np.hstack([rows / 2, rows / 4, 1 - rows * 3 / 4])


@pytest.fixture
def binary():
    return Model(
        "test", "Binary", Columns(1), lambda rows: np.where(rows[:, 0] > 0.5, "yes", "no"),
        classes=np.array(["no", "yes"]), probabilities=two, raw_scores=lambda rows: rows[:, 0] - 1,
    )  # fmt: skip


@pytest.fixture
def regressor():
    return Model("test", "Regressor", Columns(1), lambda rows: rows[:, 0] * 10)


def selected(model, *outputs):
    return [column.tolist() for column in select(model, ROWS, outputs)]


def test_a_classifier_of_two_classes(binary):
    label, labels, probability, probabilities = selected(
        binary, "predicted_label", "labels", "probability", "probabilities"
    )
    assert label == ["no", "yes", "yes"]
    assert labels == [["no", "yes"]] * 3
    assert probability == [0.2, 0.9, 0.6]
    np.testing.assert_allclose(probabilities, [[0.8, 0.2], [0.1, 0.9], [0.4, 0.6]])
    np.testing.assert_allclose(selected(binary, "raw_score", "raw_scores"), [ROWS[:, 0] - 1] * 2)


def test_of_more_classes_the_winning_one_is_the_probability():
    model = Model(
        "test", "Three", Columns(1), three,
        classes=np.arange(3), labels=lambda rows: three(rows).argmax(axis=1), probabilities=three,
    )  # fmt: skip
    label, probability = selected(model, "predicted_label", "probability")
    assert label == three(ROWS).argmax(axis=1).tolist()
    assert probability == three(ROWS).max(axis=1).tolist()


def test_a_regressor_has_a_score_and_nothing_of_a_classifier(regressor):
    assert selected(regressor, "predicted_score") == [[2.0, 9.0, 6.0]]
    others = [output for output in OUTPUTS if output != "predicted_score"]
    for column in select(regressor, ROWS, tuple(others)):
        assert np.isnan(column).all()


def test_a_classifier_has_no_predicted_score(binary):
    assert np.isnan(select(binary, ROWS, ("predicted_score",))[0]).all()


def test_what_several_outputs_need_is_computed_once():
    calls = []
    model = Model(
        "test", "Binary", Columns(1), lambda rows: rows[:, 0],
        classes=np.array([0, 1]), probabilities=lambda rows: calls.append(1) or two(rows),
    )  # fmt: skip
    select(model, ROWS, ("probability", "probabilities"))
    assert len(calls) == 1


def test_names_are_parsed_as_the_xgboost_container_does():
    assert parse_outputs(" Predicted_Label,probabilities ,") == ("predicted_label", "probabilities")
    assert parse_outputs("") == ()


def test_a_name_that_is_none_lists_those_that_are():
    with pytest.raises(BadRequest, match=r"'probabilites' is none of .*, probabilities, "):
        parse_outputs("labels,probabilites")


@pytest.mark.parametrize(
    ("objective", "raw_score"),
    [("binary:logistic", "as predicted"), ("binary:hinge", "as predicted"),
     ("multi:softprob", "the greatest")],
)  # fmt: skip
def test_a_boosters_raw_scores_are_those_of_the_xgboost_container(tmp_path, objective, raw_score):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    data = xgboost.DMatrix(rows, label=(rows[:, 0] > 0).astype(int))
    settings = {"objective": objective, "nthread": 1}
    if objective.startswith("multi"):
        settings["num_class"] = 3
    xgboost.train(settings, data, 3).save_model(tmp_path / "model.ubj")
    model = load(tmp_path)
    predicted = model.predict(rows)
    one, each = select(model, rows, ("raw_score", "raw_scores"))
    if raw_score == "as predicted":
        np.testing.assert_array_equal(one, predicted)
        np.testing.assert_array_equal(each, np.column_stack([1 - predicted, predicted]))
    else:
        np.testing.assert_array_equal(one, predicted.max(axis=1))
        np.testing.assert_array_equal(each, predicted)

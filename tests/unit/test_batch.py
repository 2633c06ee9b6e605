import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from manymodels.artifacts.batch import predict_each


class Counting:
    """Doubles rows, and remembers how often it was called. -13 it does not take."""

    def __init__(self):
        self.calls = 0

    def __call__(self, rows):
        self.calls += 1
        array = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
        if (array == -13).any():
            raise ValueError("-13")
        return [array * 2, array.sum(axis=1)]


def numbers(n_rows, n_columns, start=0.0):
    return np.arange(start, start + n_rows * n_columns).reshape(n_rows, n_columns)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_requests_that_agree_are_one_predict_and_each_has_its_own_rows(sizes):
    requests = [numbers(size, 3, 100 * index) for index, size in enumerate(sizes)]
    function = Counting()
    outcomes = predict_each(function, requests)
    assert function.calls == 1
    for rows, (doubled, sums) in zip(requests, outcomes, strict=True):
        np.testing.assert_array_equal(doubled, rows * 2)
        np.testing.assert_array_equal(sums, rows.sum(axis=1))


def test_requests_that_do_not_agree_are_predicted_apart():
    frame = pd.DataFrame({"a": [1.0], "b": [2.0]})
    other = pd.DataFrame({"a": [1], "b": [2.0]})
    sparse = scipy.sparse.csr_matrix(np.eye(2))
    requests = [numbers(1, 2), frame, numbers(1, 3), sparse, other, frame, sparse, numbers(2, 2)]
    function = Counting()
    outcomes = predict_each(function, requests)
    assert function.calls == 5
    for rows, (doubled, _) in zip(requests, outcomes, strict=True):
        plain = rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)
        np.testing.assert_array_equal(doubled, plain * 2)


def test_one_request_that_fails_leaves_the_others_alone():
    requests = [numbers(2, 2), np.array([[-13.0, 0.0]]), numbers(1, 2)]
    good, bad, other = predict_each(Counting(), requests)
    assert isinstance(bad, ValueError)
    np.testing.assert_array_equal(good[0], requests[0] * 2)
    np.testing.assert_array_equal(other[0], requests[2] * 2)


def test_running_out_of_memory_together_is_tried_one_by_one():
    def small_only(rows):
        if len(rows) > 2:
            raise MemoryError
        return [rows]

    outcomes = predict_each(small_only, [numbers(2, 1), numbers(2, 1), numbers(3, 1)])
    assert [type(outcome) for outcome in outcomes] == [list, list, MemoryError]


def test_a_model_that_answers_another_number_of_rows_is_asked_one_by_one():
    outcomes = predict_each(lambda rows: [np.array([len(rows)])], [numbers(2, 1), numbers(3, 1)])
    assert [outcome[0].tolist() for outcome in outcomes] == [[2], [3]]


@pytest.mark.parametrize("function", [lambda rows: [rows], Counting()])
def test_no_requests_have_no_answers(function):
    assert predict_each(function, []) == []

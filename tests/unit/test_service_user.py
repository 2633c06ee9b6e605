"""A model's own functions, through the service: what they do, and what is done for them."""

import json
import textwrap

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from manymodels.errors import ModelLoadError
from manymodels.service import ModelService
from tests.unit.test_service import LABELS, NO, ROWS, YES, context_of

CSV = {"Content-Type": "text/csv"}


@pytest.fixture(autouse=True)
def own_modules(monkeypatch):
    """What a model brings goes on this process's path; afterwards it is gone."""
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def model(tmp_path):
    """A directory with a model of yes and no, and whatever inference.py a test writes."""
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), tmp_path / "model.joblib")

    def with_code(source, place="code/inference.py"):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source))
        return tmp_path

    return with_code


def answers(directory, *requests):
    """Load a model and answer one batch: status, content type and body of each."""
    context = context_of(directory, *[headers for _, headers in requests])
    service = ModelService()
    service.initialize(context)
    bodies = service.handle([{"body": body} for body, _ in requests], context)
    return [
        (context.get_response_status(i)[0], context.get_response_content_type(i), body)
        for i, body in enumerate(bodies)
    ]


def answer(directory, body, headers):
    return answers(directory, (body, headers))[0]


@pytest.mark.parametrize("place", ["code/inference.py", "inference.py"])
def test_predict_fn_alone_has_the_rest_done_for_it(model, place):
    directory = model(
        """
        def predict_fn(data, model):
            return model.predict_proba(data)
        """,
        place,
    )
    status, content_type, body = answer(directory, YES + NO, {**CSV, "Accept": "text/csv"})
    assert (status, content_type) == (200, "text/csv")
    expected = LogisticRegression().fit(ROWS, LABELS).predict_proba([[5, 0, 0], [-5, 0, 0]])
    np.testing.assert_allclose(np.loadtxt(body.decode().splitlines(), delimiter=","), expected)


def test_input_fn_alone_gets_text_and_its_rows_are_predicted(model):
    directory = model(
        """
        import numpy as np

        def input_fn(body, content_type):
            assert content_type == "text/x-pipes", content_type
            return np.array([[float(cell) for cell in body.decode().split("|")]])
        """
    )
    assert answer(directory, b"5|0|0", {"Content-Type": "text/x-pipes"})[2] == b'["yes"]'


@pytest.mark.parametrize(
    "made",
    ["[[5, 0, 0]]", "[5.0, 0.0, 0.0]", "pandas.DataFrame({'a': [5], 'b': [0], 'c': [0]})",
     "scipy.sparse.csr_matrix([[5, 0, 0]])", "numpy.array([5, 0, 0])"],
)  # fmt: skip
def test_input_fn_may_return_rows_of_any_kind(model, made):
    directory = model(
        f"""
        import numpy, pandas, scipy.sparse

        def input_fn(body, content_type):
            return {made}
        """
    )
    assert answer(directory, b"", CSV)[2] == b'["yes"]'


def test_output_fn_alone_gets_the_prediction_and_what_is_accepted(model):
    directory = model(
        """
        def output_fn(prediction, accept):
            return f"{accept}: {', '.join(prediction)}"
        """
    )
    status, content_type, body = answer(directory, YES + NO, {**CSV, "Accept": "text/x-list"})
    assert (status, content_type, body) == (200, "text/x-list", b"text/x-list: yes, no")


def test_output_fn_may_name_the_type_of_its_answer(model):
    directory = model("def output_fn(prediction, accept): return prediction[0], 'text/plain'")
    assert answer(directory, YES, CSV) == (200, "text/plain", b"yes")


def test_model_fn_alone_loads_and_the_rest_is_done_for_it(model):
    directory = model(
        """
        import joblib

        def model_fn(model_dir):
            return joblib.load(f"{model_dir}/model.joblib")
        """
    )
    assert answer(directory, YES, CSV)[2] == b'["yes"]'


def test_transform_fn_does_everything(model):
    directory = model(
        """
        def transform_fn(model, data, content_type, accept):
            return f"{type(model).__name__} {data.strip()} {content_type}", accept
        """
    )
    assert answer(directory, YES, {**CSV, "Accept": "text/plain"}) == (
        200, "text/plain", b"LogisticRegression 5,0,0 text/csv",
    )  # fmt: skip


def test_functions_get_the_context_of_their_own_request(model):
    directory = model(
        """
        def predict_fn(data, model, context):
            name = "X-Amzn-SageMaker-Custom-Attributes"
            return [context.get_request_header(0, name), context.get_request_id()]
        """
    )
    attributes = "x-amzn-sagemaker-custom-attributes"
    first, second = answers(
        directory, (YES, {**CSV, attributes: "a"}), (YES, {**CSV, attributes.title(): "b"})
    )
    assert json.loads(first[2]) == ["a", "request-0"]
    assert json.loads(second[2]) == ["b", "request-1"]


def test_what_functions_set_in_the_context_arrives(model):
    directory = model(
        """
        def transform_fn(model, data, content_type, accept, context):
            context.set_response_status(202, "Accepted", 0)
            context.set_response_content_type(0, "text/x-mine")
            return "fine"
        """
    )
    assert answer(directory, YES, CSV) == (202, "text/x-mine", b"fine")


def test_pre_model_fn_and_model_warmup_fn_are_called_around_the_load(model):
    directory = model(
        """
        import os

        calls = []

        def pre_model_fn(model_dir):
            calls.append(sorted(os.listdir(model_dir)))

        def model_warmup_fn(model_dir, model):
            calls.append(type(model).__name__)

        def output_fn(prediction, accept):
            return calls
        """
    )
    assert json.loads(answer(directory, YES, CSV)[2]) == [
        ["code", "model.joblib"], "LogisticRegression",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("returned", "accept", "body"),
    [
        ("{'label': 'yes', 'p': numpy.float32(0.5)}", "application/json",
         b'{"label":"yes","p":0.5}'),
        ("'yes'", "application/json", b'"yes"'),
        ("[1, [2, 3]]", "application/json", b"[1,[2,3]]"),
        ("['a', 'b']", "text/csv", b"a\nb\n"),
        ("7", "text/csv", b"7\n"),
        ("pandas.DataFrame({'p': [0.5, float('nan')]})", "application/json", b"[[0.5],[null]]"),
        ("scipy.sparse.csr_matrix([[0, 1]])", "text/csv", b"0,1\n"),
    ],
)  # fmt: skip
def test_predict_fn_may_return_anything(model, returned, accept, body):
    directory = model(
        f"""
        import numpy, pandas, scipy.sparse

        def predict_fn(data, model):
            return {returned}
        """
    )
    assert answer(directory, YES, {**CSV, "Accept": accept}) == (200, accept, body)


@pytest.mark.parametrize("returned", ["{'a': 1}", "[1, [2, 3]]", "[{'a': 1}]"])
def test_what_cannot_be_rows_is_json_only(model, returned):
    directory = model(f"def predict_fn(data, model): return {returned}")
    status, _, body = answer(directory, YES, {**CSV, "Accept": "text/csv"})
    assert status == 406
    assert "ask for application/json" in json.loads(body)["message"]


@pytest.mark.parametrize(
    ("raised", "status", "kind", "message"),
    [
        ("ValueError('no such customer')", 500, "ValueError", "no such customer"),
        ("Teapot('short')", 418, "Teapot", "short"),
        ("MemoryError()", 507, "OutOfMemory", "Out of resources"),
    ],
)
def test_an_exception_of_a_function_is_one_requests_answer(model, raised, status, kind, message):
    directory = model(
        f"""
        class Teapot(Exception):
            status_code = 418

        def predict_fn(data, model):
            if data[0, 0] < 0:
                raise {raised}
            return ["fine"]
        """
    )
    good, bad = answers(directory, (YES, CSV), (NO, CSV))
    assert good[2] == b'["fine"]'
    assert bad[0] == status
    assert json.loads(bad[2]) == {"code": status, "type": kind, "message": message}


def test_what_the_generic_steps_find_wrong_is_still_said(model):
    directory = model("def predict_fn(data, model): return model.predict(data)")
    assert [each[0] for each in answers(
        directory, (b"1,x\n2", CSV), (YES, {"Content-Type": "image/png"}),
        (YES, {**CSV, "Accept": "image/png"}),
    )] == [400, 415, 406]  # fmt: skip


def test_the_request_names_columns_and_predict_fn_gets_a_frame(model):
    directory = model("def predict_fn(data, model): return list(data.columns)")
    assert answer(directory, b'[{"b": 1, "a": "x"}]', {})[2] == b'["b","a"]'


def test_model_fn_that_loads_something_else_needs_predict_fn(model):
    directory = model("def model_fn(model_dir): return {'weights': [1]}")
    with pytest.raises(ModelLoadError, match=r"dict.*predict"):
        answer(directory, YES, CSV)


def test_an_error_of_model_fn_is_the_loads(model):
    directory = model("def model_fn(model_dir): raise RuntimeError('no weights')")
    with pytest.raises(RuntimeError, match="no weights"):
        answer(directory, YES, CSV)


def test_missing_requirements_fail_the_load_by_name(model):
    directory = model("def predict_fn(data, model): return data")
    (directory / "code" / "requirements.txt").write_text("no-such-thing>=2\n")
    with pytest.raises(ModelLoadError, match="no-such-thing>=2"):
        answer(directory, YES, CSV)


def test_safe_artifacts_refuse_code(model, monkeypatch):
    directory = model("def predict_fn(data, model): return data")
    monkeypatch.setenv("MANYMODELS_ARTIFACTS", "safe")
    with pytest.raises(ModelLoadError, match="code of its own, which MANYMODELS_ARTIFACTS=safe"):
        answer(directory, YES, CSV)


def test_another_program_may_be_named(model, monkeypatch):
    directory = model("def output_fn(prediction, accept): return 'served'", "code/serve.py")
    monkeypatch.setenv("SAGEMAKER_PROGRAM", "serve.py")
    assert answer(directory, YES, CSV)[2] == b"served"

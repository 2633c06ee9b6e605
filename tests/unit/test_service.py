import json
import logging

import joblib
import numpy as np
import pytest
from mms.context import Context, RequestProcessor
from mms.model_loader import MmsModelLoader
from sklearn.linear_model import LogisticRegression

from manymodels import service
from manymodels.errors import ModelLoadError
from manymodels.service import ModelService

ROWS = np.random.default_rng(0).normal(size=(60, 3))
LABELS = np.where(ROWS[:, 0] > 0, "yes", "no")
YES, NO = b"5,0,0\n", b"-5,0,0\n"


class Raising:
    def __init__(self, error):
        self.error = error

    def predict(self, rows):
        raise self.error


@pytest.fixture
def model_dir(tmp_path):
    joblib.dump(LogisticRegression().fit(ROWS, LABELS), tmp_path / "model.joblib")
    return tmp_path


def context_of(model_dir, *headers):
    context = Context("churn", str(model_dir), None, len(headers), None, "1.1.11")
    context.request_ids = {index: f"request-{index}" for index in range(len(headers))}
    context.request_processor = [RequestProcessor(dict(each)) for each in headers]
    return context


def ask(model_dir, body, headers):
    """One request through a fresh service: status, content type and body of the answer."""
    context = context_of(model_dir, headers)
    model_service = ModelService()
    model_service.initialize(context)
    (answer,) = model_service.handle([{"body": body}], context)
    return context.get_response_status(0)[0], context.get_response_content_type(0), answer


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_headers_are_found_whatever_their_case(model_dir, name):
    headers = {name: "text/csv; charset=utf-8", "x-request": "1"}
    assert ask(model_dir, YES + NO, headers) == (200, "application/json", b'["yes","no"]')


def test_the_answer_is_what_accept_asks_for(model_dir):
    headers = {"Content-Type": "text/csv", "ACCEPT": "text/csv"}
    assert ask(model_dir, YES, headers) == (200, "text/csv", b"yes\n")


def test_a_default_accept_answers_a_request_without_one(model_dir, monkeypatch):
    monkeypatch.setenv("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/csv")
    answer = ask(model_dir, YES, {"Content-Type": "text/csv"})
    assert answer == (200, "text/csv", b"yes\n")


def test_a_request_without_content_type_is_json(model_dir):
    assert ask(model_dir, b"[5, 0, 0]", {})[2] == b'["yes"]'


def test_a_parameter_named_like_a_header_is_not_one(model_dir):
    headers = {
        "body": {"content-type": "text/csv"},
        "accept": {"content-type": None},
        "Content-Type": "text/csv",
    }
    assert ask(model_dir, YES, headers)[:2] == (200, "application/json")


@pytest.mark.parametrize("body", [[5, 0, 0], {"instances": [[5, 0, 0]]}, bytearray(b"[5,0,0]")])
def test_json_that_mms_has_parsed_already_is_taken(model_dir, body):
    assert ask(model_dir, body, {"Content-Type": "application/json"})[2] == b'["yes"]'


@pytest.mark.parametrize(
    ("body", "headers", "status", "kind", "message"),
    [
        (b"1,2", {"content-type": "text/csv"}, 400, "BadRequest",
         "the model takes 3 features, the request has 2"),
        (b"1,x,2", {"content-type": "text/csv"}, 400, "BadRequest",
         "CSV row 1, column 2: 'x' is not a number"),
        (b"1,,2", {"content-type": "text/csv"}, 400, "BadRequest",
         "the model does not take these values: Input X contains NaN."),
        (b"\x00", {"content-type": "image/png"}, 415, "UnsupportedMediaType",
         "Content-Type 'image/png' is not read here; accepted are text/csv, application/json, "),
        (b"[1,2,3]", {"Accept": "image/png"}, 406, "NotAcceptable",
         "Accept 'image/png' cannot be produced; available are application/json, text/csv, "),
    ],
)  # fmt: skip
def test_a_request_that_fails_says_why(model_dir, body, headers, status, kind, message):
    answered, content_type, answer = ask(model_dir, body, headers)
    assert (answered, content_type) == (status, "application/json")
    found = json.loads(answer)
    assert (found["code"], found["type"]) == (status, kind)
    assert found["message"].startswith(message)


def test_a_form_without_a_body_says_how_to_send_one(model_dir):
    context = context_of(model_dir, {"Content-Type": "multipart/form-data; boundary=x"})
    model_service = ModelService()
    model_service.initialize(context)
    (answer,) = model_service.handle([{"file": b"1,2,3"}], context)
    assert context.get_response_status(0) == (415, "Unsupported Media Type")
    assert "send the rows as the body" in json.loads(answer)["message"]


def test_one_bad_request_leaves_the_rest_of_its_batch_alone(model_dir):
    csv = {"Content-Type": "text/csv"}
    context = context_of(model_dir, csv, csv, {"Content-Type": "application/json"})
    model_service = ModelService()
    model_service.initialize(context)
    answers = model_service.handle(
        [{"body": YES}, {"body": b"1"}, {"body": [[-5, 0, 0]], "limit": "3"}], context
    )
    assert [context.get_response_status(index)[0] for index in range(3)] == [200, 400, 200]
    assert (answers[0], answers[2]) == (b'["yes"]', b'["no"]')
    assert "takes 3 features, the request has 1" in json.loads(answers[1])["message"]


def test_an_error_of_the_model_is_a_500_with_its_message_and_one_traceback(tmp_path, caplog):
    joblib.dump(Raising(RuntimeError("weights\udc80 are off")), tmp_path / "model.pkl")
    with caplog.at_level(logging.DEBUG):
        status, content_type, answer = ask(tmp_path, b"[1]", {})
    assert (status, content_type) == (500, "application/json")
    assert json.loads(answer) == {
        "code": 500, "type": "RuntimeError", "message": "weights? are off"
    }  # fmt: skip
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "churn" in record.getMessage()
    assert "request-0" in record.getMessage()


def test_running_out_of_memory_is_507(tmp_path):
    joblib.dump(Raising(MemoryError("no room")), tmp_path / "model.pkl")
    status, _, answer = ask(tmp_path, b"[1]", {})
    assert status == 507
    assert json.loads(answer) == {"code": 507, "type": "OutOfMemory", "message": "Out of resources"}


def test_a_load_that_fails_raises(tmp_path):
    with pytest.raises(ModelLoadError, match="no model in"):
        service.handle(None, context_of(tmp_path))


def test_a_request_before_the_load_is_answered():
    context = context_of("nowhere", {})
    (answer,) = ModelService().handle([{"body": b"[1]"}], context)
    assert json.loads(answer)["message"] == "the model is not loaded"


@pytest.mark.parametrize("handler", ["manymodels.service:handle", "manymodels.service"])
def test_a_stock_mms_worker_loads_and_serves(model_dir, handler):
    stock = MmsModelLoader().load("churn", str(model_dir), handler, None, 1)
    request = {
        "requestId": b"one",
        "headers": [{"name": b"Content-Type", "value": b"text/csv"}],
        "parameters": [{"name": "body", "contentType": "text/csv", "value": "5,0,0\n"}],
    }
    reply = bytes(stock.predict([request]))
    assert b"Prediction success" in reply
    assert b"application/json" in reply
    assert b'["yes"]' in reply


def test_a_stock_mms_worker_passes_on_a_load_that_fails(tmp_path):
    with pytest.raises(ModelLoadError):
        MmsModelLoader().load("churn", str(tmp_path), "manymodels.service:handle", None, 1)

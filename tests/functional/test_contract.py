"""SageMaker's container contract, by plain HTTP against the real frontend."""

from __future__ import annotations

import json

import pytest

from tests.functional.harness import assert_gone, eventually, load_when_gone, write_handler


@pytest.fixture
def echo(tmp_path):
    return write_handler(
        tmp_path / "echo" / "model",
        """
        def handle(data, context):
            if data is None:
                return None
            return [bytes(item.get("body", b"")) for item in data]
        """,
    )


def test_ping_is_healthy(server):
    answer = server.request("GET", "/ping")
    assert (answer.status, answer.json()) == (200, {"status": "Healthy"})


def test_a_model_loads_answers_and_unloads(server, echo):
    loaded = server.load("echo", echo, handler="custom.py:handle")
    assert (loaded.status, loaded.json()) == (200, {"status": "Workers scaled"})
    assert server.invoke("echo", b"hello").body == b"hello"
    assert server.unload("echo").status == 200


def test_a_loaded_model_is_a_conflict(server, echo):
    server.load("echo", echo, handler="custom.py:handle")
    again = server.load("echo", echo, handler="custom.py:handle")
    assert (again.status, again.json()["type"]) == (409, "ConflictStatusException")
    assert server.invoke("echo", b"still").body == b"still"


def test_what_is_not_loaded_is_not_found(server):
    for method, path in (
        ("GET", "/models/none"),
        ("DELETE", "/models/none"),
        ("POST", "/models/none/invoke"),
    ):
        answer = server.request(method, path)
        assert (answer.status, answer.json()["type"]) == (404, "ModelNotFoundException")


def test_a_model_whose_directory_is_missing_is_not_found(server, tmp_path):
    assert server.load("none", tmp_path / "nowhere").status == 404
    assert server.describe("none").status == 404


def test_unloading_twice_is_not_found(server, echo):
    server.load("echo", echo, handler="custom.py:handle")
    assert server.unload("echo").status == 200
    assert server.unload("echo").status == 404
    assert server.invoke("echo", b"").status == 404


def test_a_model_describes_itself(server, echo):
    server.load("echo", echo, handler="custom.py:handle", batch_size=3)
    described = server.describe("echo").json()
    assert described["modelName"] == "echo"
    assert described["modelUrl"] == str(echo)
    assert described["batchSize"] == 3
    assert [worker["status"] for worker in described["workers"]] == ["READY"]


def test_models_are_listed_in_pages(server, echo):
    names = [f"m{number}" for number in range(5)]
    for name in names:
        assert server.load(name, echo, handler="custom.py:handle").status == 200
    listed, token = [], ""
    for _ in range(len(names)):
        page = server.request("GET", f"/models?limit=2{token}").json()
        listed += [model["modelName"] for model in page["models"]]
        if "nextPageToken" not in page:
            break
        token = f"&next_page_token={page['nextPageToken']}"
    assert listed == names


def test_every_sample_model_answers_as_its_library_did(server, samples):
    for sample in samples.values():
        loaded = server.load(sample.name, sample.model_dir)
        assert loaded.status == 200, server.log()
        headers = {"Accept": sample.accept}
        answer = server.invoke(sample.name, sample.body, sample.content_type, headers=headers)
        assert answer.status == 200, answer.body
        assert sample.answered_by(answer.body), (sample.name, answer.body)


def test_a_failed_load_says_so_and_leaves_no_model(server, tmp_path):
    (tmp_path / "README.md").write_text("no model here")
    answer = server.load("empty", tmp_path)
    assert (answer.status, answer.json()["message"]) == (500, "Failed to start workers")
    assert_gone(server, "empty")
    assert server.invoke("empty", "1").status == 404
    reason = "model empty failed to load (500): "
    line = eventually(lambda: [row for row in server.log().splitlines() if reason in row])[0]
    assert "README.md" in line
    assert server.load("empty", tmp_path).status == 500, "a retry is a fresh try, not a conflict"


def test_a_traceback_of_a_failed_load_is_in_the_log_under_the_models_name(server, tmp_path):
    model = write_handler(
        tmp_path / "m", "def handle(data, context):\n    raise KeyError('secret')\n"
    )
    answer = server.load("tracer", model, handler="custom.py:handle")
    assert answer.status == 500
    assert b"secret" not in answer.body
    lines = eventually(lambda: [x for x in server.log().splitlines() if "[tracer]" in x])
    eventually(lambda: "KeyError: 'secret'" in server.log())
    assert all(" ERROR " in line for line in lines)


@pytest.mark.parametrize("where", ["function", "initialize"])
def test_memory_error_while_loading_is_507_and_a_retry_is_a_fresh_try(server, tmp_path, where):
    flag = tmp_path / "enough"
    model = write_handler(
        tmp_path / "model",
        f"""
        import os

        def load():
            if not os.path.exists({str(flag)!r}):
                raise MemoryError
        """
        + (
            """
        def handle(data, context):
            if data is None:
                return load()
            return ["fine"]
            """
            if where == "function"
            else """
        class Service:
            def initialize(self, context):
                load()

            def handle(self, data, context):
                return ["fine"]
            """
        ),
    )
    for _ in range(3):
        assert load_when_gone(server, "big", model, handler="custom.py:handle").status == 507
        assert_gone(server, "big")
    flag.touch()
    assert load_when_gone(server, "big", model, handler="custom.py:handle").status == 200
    assert server.invoke("big").body == b"fine"


def test_bad_input_is_a_4xx_that_names_what_is_wrong(server, samples):
    sample = samples["breast-cancer-logistic"]
    server.load("lr", sample.model_dir)
    short = server.invoke("lr", "1,2,3")
    assert short.status == 400
    assert "30" in short.json()["message"]
    assert "3" in short.json()["message"]
    assert server.invoke("lr", "a,b", "text/csv").status == 400
    assert server.invoke("lr", "{", "application/json").status == 400
    assert server.invoke("lr", "x", "application/x-nothing").status == 415
    rejected = server.invoke(
        "lr", sample.body, sample.content_type, headers={"Accept": "image/png"}
    )
    assert rejected.status == 406
    assert set(rejected.json()) == {"code", "type", "message"}
    assert server.invoke("lr", sample.body, sample.content_type).status == 200


def test_a_request_above_the_limit_is_413(server, echo):
    server.load("echo", echo, handler="custom.py:handle")
    assert server.invoke("echo", b"x" * (6 * 1024 * 1024)).status == 200
    answer = server.invoke("echo", b"x" * (6 * 1024 * 1024 + 1))
    assert answer.status == 413


def test_archives_by_url_are_refused(server):
    body = json.dumps({"model_name": "far", "url": f"http://127.0.0.1:{server.port}/ping"})
    answer = server.request("POST", "/models", body, {"Content-Type": "application/json"})
    assert (answer.status, answer.json()["type"]) == (400, "DownloadModelException")
    assert server.describe("far").status == 404

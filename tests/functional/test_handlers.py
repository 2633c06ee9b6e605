"""Every kind of handler that a stock worker runs, behind the real frontend."""

from __future__ import annotations

import json
import threading
import zipfile

import pytest

from tests.functional.harness import eventually, serving, write_handler

FUNCTION = """
    import os

    def handle(data, context):
        if data is None:
            return None
        return [f"{__name__} in {os.getcwd()}" for _ in data]
"""
SERVICE = """
    class Service:
        def __init__(self):
            self.ready = False

        def initialize(self, context):
            self.ready = True
            self.directory = context.system_properties["model_dir"]

        def handle(self, data, context):
            return [str(self.ready)] * len(data)
"""


def manifest(handler: str) -> str:
    return json.dumps(
        {
            "specificationVersion": "1.0",
            "implementationVersion": "1.0",
            "modelServerVersion": "1.0",
            "runtime": "python",
            "model": {"modelName": "m", "handler": handler, "modelVersion": "1.0"},
        }
    )


@pytest.mark.parametrize(
    ("source", "handler", "answer"),
    [
        (FUNCTION, "custom.py:handle", "custom in "),
        (FUNCTION, "custom:handle", "custom in "),
        (FUNCTION, "custom.py", "custom in "),
        (SERVICE, "custom.py:handle", "True"),
        (SERVICE, "custom.py", "True"),
    ],
)
def test_a_handler_in_the_models_directory(server, tmp_path, source, handler, answer):
    model = write_handler(tmp_path / "model", source)
    assert server.load("m", model, handler=handler).status == 200
    body = server.invoke("m").body.decode()
    assert body.startswith(answer)
    if source is FUNCTION:
        assert body.endswith(str(model)), "it runs in its model's directory"


@pytest.mark.parametrize(
    "handler", ["{path}/custom.py:handle", "{path}/custom.py", "{path}/custom"]
)
def test_a_handler_by_path_outside_the_model(server, tmp_path, handler):
    write_handler(tmp_path / "elsewhere", FUNCTION)
    (tmp_path / "model").mkdir()
    named = handler.format(path=tmp_path / "elsewhere")
    assert server.load("m", tmp_path / "model", handler=named).status == 200
    assert server.invoke("m").body.startswith(b"custom in ")


def test_a_handler_named_by_the_manifest(server, tmp_path):
    model = write_handler(tmp_path / "model", FUNCTION)
    (model / "MAR-INF").mkdir()
    (model / "MAR-INF" / "MANIFEST.json").write_text(manifest("custom.py:handle"))
    assert server.load("m", model).status == 200
    assert server.invoke("m").body.startswith(b"custom in ")


def test_a_model_archive(server, tmp_path):
    model = write_handler(tmp_path / "model", FUNCTION)
    with zipfile.ZipFile(tmp_path / "m.mar", "w") as archive:
        archive.write(model / "custom.py", "custom.py")
        archive.writestr("MAR-INF/MANIFEST.json", manifest("custom.py:handle"))
    assert server.load("m", tmp_path / "m.mar").status == 200
    assert server.invoke("m").body.startswith(b"custom in ")
    assert server.unload("m").status == 200
    (left,) = [path for path in server.left_behind() if path.endswith("models")]
    (server.directory / left).rmdir()


def test_an_archive_of_mms_0_4(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        from mms.model_service.model_service import SingleNodeService

        class Old(SingleNodeService):
            def _preprocess(self, data):
                return data

            def _inference(self, data):
                return [bytes(item).decode().upper() for item in data]

            def _postprocess(self, data):
                return data
        """,
        "old_service",
    )
    # mms.model_service imports mxnet, which is not installable beside today's NumPy; the service
    # uses nothing of it.
    for name in ("", "io", "image", "gluon"):
        write_handler(model / "mxnet", f"class DataBatch: name = {name!r}\n", name or "__init__")
    (model / "signature.json").write_text(
        json.dumps({"input_type": "text/plain", "inputs": [{"data_name": "data"}]})
    )
    (model / "MANIFEST.json").write_text(
        json.dumps(
            {
                "Model-Archive-Version": 0.1,
                "Model-Server": "0.1",
                "Model": {
                    "Model-Name": "old",
                    "Service": "old_service.py",
                    "Signature": "signature.json",
                    "Parameters": "none",
                    "Symbol": "none",
                },
                "Engine": {"MXNet": 0.1},
            }
        )
    )
    answer = server.load("old", model)
    assert answer.status == 200, server.log()
    assert server.invoke("old", b"shout", "application/octet-stream").body == b"SHOUT"


def test_two_models_with_modules_of_the_same_name_keep_apart(server, tmp_path):
    for name in ("one", "two"):
        model = write_handler(
            tmp_path / name, "import helper\ndef handle(data, context):\n    return [helper.NAME]\n"
        )
        (model / "helper.py").write_text(f"NAME = {name!r}\n")
        assert server.load(name, model, handler="custom.py:handle").status == 200
    assert [server.invoke(name).body for name in ("one", "two")] == [b"one", b"two"]


def test_the_context_carries_headers_and_sets_status_and_headers(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        def handle(data, context):
            if data is None:
                return None
            target = context.get_request_header(0, "X-Amzn-SageMaker-Target-Model")
            context.set_response_status(418, "I am a teapot")
            context.set_response_content_type(0, "text/x-tea")
            context.set_response_header(0, "X-Request", context.get_request_id(0))
            return [f"{target} {context.system_properties['batch_size']}"]
        """,
    )
    server.load("m", model, handler="custom.py:handle", batch_size=1)
    headers = {"X-Amzn-SageMaker-Target-Model": "tea.tar.gz"}
    answer = server.invoke("m", headers=headers)
    assert (answer.status, answer.body) == (418, b"tea.tar.gz 1")
    lowered = {name.lower(): value for name, value in answer.headers.items()}
    assert lowered["content-type"] == "text/x-tea"
    assert lowered["x-request"] == lowered["x-request-id"]


def test_a_prediction_exception_answers_with_its_code_and_message(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        from mms.service import PredictionException

        def handle(data, context):
            if data is None:
                return None
            raise PredictionException("no such thing", 422)
        """,
    )
    server.load("m", model, handler="custom.py:handle")
    answer = server.invoke("m")
    assert (answer.status, answer.json()["message"]) == (422, "no such thing")


def test_an_exception_of_a_handler_is_500_with_its_message(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        def handle(data, context):
            if data is None:
                return None
            return [1 / 0]
        """,
    )
    server.load("m", model, handler="custom.py:handle")
    answer = server.invoke("m")
    assert answer.json() == {
        "code": 500,
        "type": "ZeroDivisionError",
        "message": "ZeroDivisionError: division by zero",
    }
    assert "Traceback" in eventually(lambda: "Traceback" in server.log() and server.log())


BATCH = """
    def handle(data, context):
        if data is None:
            return None
        bodies = [bytes(item["body"]).decode() for item in data]
        if "bad" in bodies:
            raise ValueError("a bad one")
        return [f"{body} of {len(bodies)}" for body in bodies]
"""


def invoke_together(server, bodies):
    answers = {}

    def invoke(index, body):
        answers[index] = server.invoke("m", body, "application/octet-stream")

    threads = [threading.Thread(target=invoke, args=item) for item in enumerate(bodies)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [answers[index] for index in range(len(bodies))]


def test_requests_of_a_batch_are_one_call(server, tmp_path):
    model = write_handler(tmp_path / "model", BATCH)
    server.load("m", model, handler="custom.py:handle", batch_size=4, max_batch_delay=3000)
    bodies = ["a", "b", "c", "d"]
    answers = invoke_together(server, bodies)
    assert [answer.body.decode() for answer in answers] == [f"{body} of 4" for body in bodies]


def test_one_bad_batch_answers_every_client(server, tmp_path):
    model = write_handler(tmp_path / "model", BATCH)
    server.load("m", model, handler="custom.py:handle", batch_size=4, max_batch_delay=3000)
    answers = invoke_together(server, ["a", "bad", "c", "d"])
    assert {answer.status for answer in answers} == {500}
    assert {answer.json()["message"] for answer in answers} == {"ValueError: a bad one"}


def test_a_batch_whose_process_dies_answers_every_client(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import os
        def handle(data, context):
            if data is None:
                return None
            os.abort()
        """,
    )
    server.load("m", model, handler="custom.py:handle", batch_size=3, max_batch_delay=3000)
    answers = invoke_together(server, ["a", "b", "c"])
    assert {answer.status for answer in answers} == {500}
    assert all("SIGABRT" in answer.json()["message"] for answer in answers)


def test_a_handlers_metrics_are_logged_where_asked_for(tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        def handle(data, context):
            if data is None:
                return None
            context.metrics.add_counter("Rows", 7)
            return ["fine"]
        """,
    )
    with serving(MANYMODELS_LOG_METRICS="true") as server:
        server.load("m", model, handler="custom.py:handle")
        assert server.invoke("m").body == b"fine"
        eventually(lambda: "[METRICS]Rows.Count:7" in server.log())


SHARED = """
    import os
    import time

    blob = None

    def handle(data, context):
        global blob
        if data is None:
            with open("loads", "a") as loads:
                loads.write("x")
            blob = os.urandom(50_000_000)
            return None
        time.sleep(0.2)
        return [str(os.getpid())]
"""


def test_workers_of_one_model_share_what_it_loaded(tmp_path):
    model = write_handler(tmp_path / "model", SHARED)
    with serving(SAGEMAKER_MODEL_SERVER_WORKERS="3") as server:
        assert server.load("m", model, handler="custom.py:handle").status == 200
        processes = server.model_processes()
        assert len(processes) == 3
        assert (model / "loads").read_text() == "x", "it was loaded once"
        private = sum(process.memory_full_info().uss for process in processes)
        assert private < 50_000_000, "the 50 MB are in one copy"
        pids = {answer.body for answer in invoke_together(server, ["x"] * 9)}
        assert len(pids) == 3
        assert (model / "loads").read_text() == "x"
        processes[-1].kill()
        eventually(lambda: len(server.model_processes()) == 3 and not processes[-1].is_running())
        assert len({answer.body for answer in invoke_together(server, ["x"] * 9)}) == 3
        assert server.unload("m").status == 200
        server.assert_nothing_left()


def test_scaling_a_model_up_and_down(server, tmp_path):
    model = write_handler(tmp_path / "model", SHARED)
    server.load("m", model, handler="custom.py:handle")
    scaled = server.request("PUT", "/models/m?min_worker=3&max_worker=3&synchronous=true")
    assert scaled.status == 200
    assert len(server.model_processes()) == 3
    assert len({answer.body for answer in invoke_together(server, ["x"] * 9)}) == 3
    server.request("PUT", "/models/m?min_worker=1&max_worker=1&synchronous=true")
    eventually(lambda: len(server.model_processes()) == 1)
    assert server.invoke("m").status == 200


def test_a_model_with_threads_of_its_own_is_scaled_by_loading_it_again(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        SHARED.replace("import os", "import os, threading").replace(
            "blob = os.urandom(50_000_000)",
            "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
        ),
    )
    server.load("m", model, handler="custom.py:handle")
    scaled = server.request("PUT", "/models/m?min_worker=2&max_worker=2&synchronous=true")
    assert scaled.status == 200
    assert (model / "loads").read_text() == "xx"
    assert len({answer.body for answer in invoke_together(server, ["x"] * 6)}) == 2


def test_random_numbers_differ_between_models(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import random
        import numpy

        def handle(data, context):
            return [f"{random.random()} {numpy.random.rand()}"]
        """,
    )
    drawn = []
    for name in ("one", "two", "three"):
        server.load(name, model, handler="custom.py:handle")
        drawn += server.invoke(name).body.split()
    assert len(set(drawn)) == 6

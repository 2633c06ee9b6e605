"""Images that start Multi Model Server themselves: one environment variable, nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.functional.harness import Server, assert_gone, eventually, free_port, write_handler
from tests.functional.hosts import in_own_pid_namespace, mine, multi_model_server, running

BIN = str(Path(sys.executable).parent)
ENTRYPOINT = """
    import subprocess
    import sys

    from sagemaker_inference import model_server

    if sys.argv[1] == "serve":
        model_server.start_model_server(handler_service="{directory}/model_handler.py:handle")
    else:
        subprocess.check_call(sys.argv[1:])
"""
MODEL_HANDLER = """
    import glob
    import json
    import os


    class ModelHandler:
        def __init__(self):
            self.initialized = False
            self.labels = None
            self.weights = None

        def initialize(self, context):
            self.initialized = True
            model_dir = context.system_properties.get("model_dir")
            (weights,) = glob.glob("{}/*.weights".format(model_dir))
            with open(os.path.basename(weights)) as file:
                self.weights = json.load(file)
            if self.weights == "too many":
                raise MemoryError
            with open("labels.txt") as file:
                self.labels = file.read().split()

        def handle(self, data, context):
            rows = [[float(x) for x in item.get("body").decode().split(",")] for item in data]
            scores = [[sum(a * b for a, b in zip(w, row)) for w in self.weights] for row in rows]
            return [self.labels[s.index(max(s))] for s in scores]


    _service = ModelHandler()


    def handle(data, context):
        if not _service.initialized:
            _service.initialize(context)
        if data is None:
            return None
        return _service.handle(data, context)
"""


def named(server: Server, name: str) -> list[psutil.Process]:
    found = []
    for process in mine(server):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
            if process.name() == name:
                found.append(process)
    return found


@pytest.fixture
def byoc(tmp_path):
    """An image in the style of AWS's bring-your-own-container sample, and a model for it."""
    image = tmp_path / "image"
    write_handler(image, ENTRYPOINT.replace("{directory}", str(image)), "entrypoint")
    write_handler(image, MODEL_HANDLER, "model_handler")
    return image


def weights(directory: Path, content: str = "[[1, 0], [0, 1]]") -> Path:
    directory.mkdir()
    (directory / "m.weights").write_text(content)
    (directory / "labels.txt").write_text("left right")
    return directory


@pytest.mark.skipif(not os.access("/etc", os.W_OK), reason="sagemaker-inference writes to /etc")
def test_the_bring_your_own_container_arrangement_runs_unchanged(byoc, tmp_path):
    properties = Path("/etc/sagemaker-mms.properties")
    before = properties.read_bytes() if properties.exists() else None
    command = [*in_own_pid_namespace(), sys.executable, str(byoc / "entrypoint.py"), "serve"]
    model, huge = weights(tmp_path / "model"), weights(tmp_path / "huge", '"too many"')
    try:
        with running(command, free_port()) as server:
            assert server.load("a", model).status == 200, server.log()
            assert server.load("a", model).status == 409
            assert server.invoke("a", "3,1").body == b"left"
            assert server.invoke("a", "1,3").body == b"right"
            assert server.invoke("a", "x,y").status == 500
            assert server.load("huge", huge).status == 507
            assert_gone(server, "huge")
            assert [m["modelName"] for m in server.request("GET", "/models").json()["models"]] == [
                "a"
            ]
            assert named(server, "manymodels-zygo"), "it is our backend that answers"
            assert server.unload("a").status == 200
            assert server.unload("a").status == 404
    finally:
        if before is None:
            properties.unlink(missing_ok=True)
        else:
            properties.write_bytes(before)


ECHO = """
    import os

    def handle(data, context):
        if data is None:
            return None
        context.metrics.add_counter("Rows", len(data))
        print("handled by", os.getpid())
        return [str(item["body"]) for item in data]
"""


def test_multi_model_server_gets_our_backend_by_one_variable(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with multi_model_server(tmp_path) as server:
        assert server.load("a", model, handler="custom.py:handle").status == 200, server.log()
        # decode_input_request is true by default there.
        assert server.invoke("a", '{"x": 1}', "application/json").body == b"{'x': 1}"
        assert server.invoke("a", "text", "text/plain").body == b"text"
        assert server.invoke("a", "{", "application/json").status == 400
        logs = server.directory / "logs"
        eventually(lambda: "handled by" in (logs / "mms_log.log").read_text())
        eventually(lambda: "Rows.Count" in (logs / "model_metrics.log").read_text())
        assert server.load("broken", tmp_path, handler="none.py:handle").status == 500
        assert_gone(server, "broken")
        assert server.unload("a").status == 200
        eventually(lambda: not named(server, "cat"), what="no placeholder is left")


def test_ten_first_launches_at_once_start_one_zygote(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with multi_model_server(tmp_path) as server:
        statuses = []

        def load(number: int) -> None:
            statuses.append(server.load(f"m{number}", model, handler="custom.py:handle").status)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert statuses == [200] * 10
        assert len(named(server, "manymodels-zygo")) == 1
        assert len(named(server, "manymodels-host")) == 1


def test_the_backend_ends_with_its_frontend(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with multi_model_server(tmp_path) as server:
        server.load("a", model, handler="custom.py:handle")
        (java,) = named(server, "java")
        java.send_signal(signal.SIGKILL)
        eventually(
            lambda: not [p for p in mine(server) if p.name() != "java"], 20, "all have ended"
        )
        assert not list(server.directory.rglob(".manymodels-*"))


@pytest.mark.parametrize("part", ["manymodels-zygo", "manymodels-host"])
def test_a_frontend_whose_backend_died_ends_rather_than_hang(tmp_path, part):
    model = write_handler(tmp_path / "model", ECHO)
    with multi_model_server(tmp_path) as server:
        server.load("a", model, handler="custom.py:handle")
        named(server, part)[0].kill()
        eventually(lambda: not named(server, "java"), 20, "the frontend has ended")
        eventually(lambda: "ending the frontend" in server.log(), 5)


def test_a_load_whose_zygote_cannot_start_fails_at_once_and_leaves_no_model(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    # A sitecustomize that breaks our package only: the launcher itself needs nothing.
    broken = tmp_path / "broken" / "manymodels"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('broken on purpose')\n")
    with multi_model_server(tmp_path, PYTHONPATH=str(broken.parent)) as server:
        for _ in range(2):
            answer = server.load("a", model, handler="custom.py:handle")
            assert answer.status == 500
            assert_gone(server, "a")

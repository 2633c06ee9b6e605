"""What must never take more with it than it has to: kills, hangs, crashes, floods."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time

import psutil
import pytest

from tests.functional.harness import (
    Server,
    assert_gone,
    eventually,
    load_when_gone,
    serving,
    write_handler,
)

HANDLER = """
    import os
    import sys
    import time

    def handle(data, context):
        if data is None:
            return None
        return [act(bytes(item.get("body", b"")).decode()) for item in data]

    def act(order):
        if order == "pid":
            return str(os.getpid())
        if order == "abort":
            os.abort()
        if order == "exit":
            os._exit(3)
        if order == "sys.exit":
            sys.exit(0)
        if order == "hang":
            time.sleep(600)
        if order == "wait":
            open("waiting", "w").close()
            while not os.path.exists("go"):
                time.sleep(0.01)
        if order == "shout":
            print("x" * 1_000_000)
            for number in range(20_000):
                print("line", number)
        if order == "large":
            return "y" * 5_000_000
        if order == "too large":
            return "y" * 7_000_000
        if order == "child":
            import subprocess
            return str(subprocess.Popen(["sleep", "600"]).pid)
        return order
"""


@pytest.fixture
def model(tmp_path):
    return write_handler(tmp_path / "model", HANDLER)


@pytest.fixture
def victim(server: Server, model):
    assert server.load("victim", model, handler="custom.py:handle").status == 200
    return server


def ask(server: Server, order: str, **kwargs: object):
    return server.invoke("victim", order, "application/octet-stream", **kwargs)


def pid_of(server: Server) -> int:
    answer = ask(server, "pid")
    assert answer.status == 200, answer.body
    return int(answer.body)


def in_background(server: Server, order: str) -> tuple[threading.Thread, list]:
    """Ask without waiting; the answer, if one comes, is in the list."""
    answers: list = []

    def run() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            answers.append(ask(server, order, timeout=20))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, answers


def test_an_idle_process_that_is_killed_is_replaced_before_the_next_request(victim):
    before = pid_of(victim)
    for _ in range(5):
        os.kill(before, signal.SIGKILL)
        after = pid_of(victim)
        assert after != before
        before = after
    assert victim.describe("victim").json()["workers"][0]["status"] == "READY"


@pytest.mark.parametrize("order", ["abort", "exit"])
def test_a_process_that_dies_in_a_request_answers_for_it_and_is_replaced(victim, order):
    pid_of(victim)
    answer = ask(victim, order)
    assert answer.status == 500
    assert "it is being replaced" in answer.json()["message"]
    assert ("SIGABRT" if order == "abort" else "status 3") in answer.json()["message"]
    assert pid_of(victim)


def test_a_process_killed_while_it_predicts_answers_for_its_request(victim, model):
    pid = pid_of(victim)
    thread, answers = in_background(victim, "wait")
    eventually((model / "waiting").exists)
    os.kill(pid, signal.SIGKILL)
    thread.join(10)
    assert answers[0].status == 500
    assert "SIGKILL" in answers[0].json()["message"]
    assert pid_of(victim) != pid


def test_sys_exit_in_a_handler_is_an_error_of_its_request_only(victim):
    pid = pid_of(victim)
    assert ask(victim, "sys.exit").status == 500
    assert pid_of(victim) == pid


def test_a_process_killed_while_loading_is_507_and_leaves_no_model(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import os, signal
        def handle(data, context):
            if data is None and not os.path.exists("enough"):
                os.kill(os.getpid(), signal.SIGKILL)
            return ["fine"]
        """,
    )
    for _ in range(2):
        assert load_when_gone(server, "big", model, handler="custom.py:handle").status == 507
        assert_gone(server, "big")
    (model / "enough").touch()
    assert load_when_gone(server, "big", model, handler="custom.py:handle").status == 200
    assert server.invoke("big").body == b"fine"


def test_a_process_that_crashes_while_loading_is_500_and_leaves_no_model(server, tmp_path):
    model = write_handler(
        tmp_path / "model", "import os\ndef handle(data, context):\n    os.abort()\n"
    )
    assert server.load("crash", model, handler="custom.py:handle").status == 500
    assert_gone(server, "crash")
    eventually(
        lambda: (
            "model crash failed to load (500): its process was ended by signal 6" in server.log()
        ),
        5,
    )


def test_a_model_that_cannot_be_loaded_again_says_why_until_it_can(server, tmp_path):
    model = write_handler(
        tmp_path / "model",
        """
        import os
        def handle(data, context):
            if data is None:
                open("data")
                return None
            return [str(os.getpid())]
        """,
    )
    (model / "data").touch()
    assert server.load("fragile", model, handler="custom.py:handle").status == 200
    (model / "data").unlink()
    os.kill(int(server.invoke("fragile").body), signal.SIGKILL)
    answer = server.invoke("fragile")
    assert answer.status == 503
    assert "FileNotFoundError" in answer.json()["message"]
    (model / "data").touch()
    eventually(lambda: server.invoke("fragile").status == 200, 15, "the model is back")


def test_a_model_whose_directory_is_gone_says_so_until_it_is_back(server, model, tmp_path):
    server.load("victim", model, handler="custom.py:handle")
    pid, lines = pid_of(server), len(server.log().splitlines())
    model.rename(tmp_path / "elsewhere")
    os.kill(pid, signal.SIGKILL)
    answer = ask(server, "pid")
    assert answer.status == 503
    assert "is not there any more" in answer.json()["message"]
    assert len(server.log().splitlines()) < lines + 40, "it is not tried over and over at once"
    (tmp_path / "elsewhere").rename(model)
    eventually(lambda: ask(server, "pid").status == 200, 15, "the model is back")


def test_a_placeholder_that_is_killed_takes_its_process_along_and_the_model_lives_on(victim):
    pid = pid_of(victim)
    (placeholder,) = victim.placeholders()
    placeholder.kill()
    eventually(lambda: not psutil.pid_exists(pid), what="its process has ended")
    assert pid_of(victim) != pid
    assert victim.unload("victim").status == 200


def test_a_placeholder_is_small(victim):
    (placeholder,) = victim.placeholders()
    assert placeholder.memory_full_info().uss < 512 * 1024


def test_an_unload_takes_what_the_model_started_with_it(victim):
    child = int(ask(victim, "child").body)
    assert victim.unload("victim").status == 200
    eventually(lambda: not psutil.pid_exists(child), what="the model's own child has ended")


def test_unloading_while_a_request_runs_leaves_nothing(victim, model):
    in_background(victim, "wait")  # the frontend may never answer it
    eventually((model / "waiting").exists)
    assert victim.unload("victim").status == 200
    victim.assert_nothing_left()


def test_a_megabyte_on_stdout_stops_nothing(victim):
    assert ask(victim, "shout").body == b"shout"
    eventually(lambda: "[victim] line 19999" in victim.log(), what="all of it is logged")
    assert pid_of(victim)


def test_a_five_megabyte_response_arrives(victim):
    assert len(ask(victim, "large").body) == 5_000_000


def test_a_response_above_the_frontends_limit_is_an_error_not_a_dead_worker(victim):
    pid = pid_of(victim)
    answer = ask(victim, "too large")
    assert answer.status == 503
    assert "7000000 bytes" in answer.json()["message"]
    assert pid_of(victim) == pid


def test_a_request_that_overruns_the_timeout_has_its_process_ended_and_replaced(server, model):
    loaded = server.load("victim", model, handler="custom.py:handle", response_timeout=1)
    assert loaded.status == 200
    pid = pid_of(server)
    assert ask(server, "hang").status == 500
    eventually(lambda: not psutil.pid_exists(pid), what="the hung process has ended")
    assert pid_of(server) != pid


def test_requests_of_all_sizes_and_types_survive_the_frontends_decoder(server, tmp_path):
    """After small replies the frontend receives in small pieces, which cut the next reply."""
    model = write_handler(
        tmp_path / "model",
        """
        def handle(data, context):
            if data is None:
                return None
            for index, item in enumerate(data):
                kind = bytes(item["body"]).decode()
                context.set_response_content_type(index, "a/" + "b" * len(kind))
                for number in range(kind.count("h")):
                    context.set_response_header(index, f"x-{number}", "v" * len(kind))
            return ["r" * len(bytes(item["body"])) for item in data]
        """,
    )
    server.load("victim", model, handler="custom.py:handle")
    (process,) = server.model_processes()
    # It shrinks its buffer by a step every two replies, and enlarges it for a long one at once.
    orders = [("x" * size, 12) for size in range(1, 60)]
    orders += [("h" + "x" * size, 100) for size in range(0, 60, 12)]
    for order, small_ones in [("x", 60), *orders]:
        for _ in range(small_ones):
            assert ask(server, "x").status == 200
        answer = ask(server, order)
        assert (answer.status, len(answer.body)) == (200, len(order)), order
    assert server.model_processes() == [process], "no connection was lost"


@pytest.mark.timeout(3600)
def test_two_hundred_loads_and_unloads_leave_everything_as_it_was(model):
    with serving() as server:

        def counts() -> dict[str, object]:
            host, zygote, jvm = server.host(), server.zygote(), server.jvm()
            return {
                "processes": len(psutil.Process(server.process.pid).children(recursive=True)),
                "host descriptors": host.num_fds(),
                "zygote descriptors": zygote.num_fds(),
                "serve descriptors": psutil.Process(server.process.pid).num_fds(),
                "JVM descriptors": jvm.num_fds(),
                "threads": [
                    p.num_threads() for p in (psutil.Process(server.process.pid), host, zygote)
                ],
                "files": len(list(server.directory.rglob("*"))),
            }

        def cycle(name: str) -> None:
            assert server.load(name, model, handler="custom.py:handle").status == 200
            assert server.invoke(name, "x").status == 200
            assert server.unload(name).status == 200

        for number in range(10):
            cycle(f"warm{number}")
        server.assert_nothing_left()
        before, threads = counts(), server.jvm().num_threads()
        for number in range(int(os.environ.get("SOAK_CYCLES", "200"))):
            cycle(f"m{number}")
        server.assert_nothing_left()
        eventually(lambda: counts() == before, 20, f"{before} again, not {counts()}")
        # The JVM's pool keeps idle threads for a minute.
        eventually(lambda: server.jvm().num_threads() <= threads, 100, "the threads are gone")


@pytest.mark.parametrize("part", ["zygote", "host", "jvm"])
def test_serve_ends_with_a_reason_when_a_part_of_it_dies(model, part):
    server = Server()
    try:
        server.start()
        server.load("victim", model, handler="custom.py:handle")
        family = psutil.Process(server.process.pid).children(recursive=True)
        getattr(server, part)().kill()
        assert server.process.wait(20) == 1
        last = server.log().splitlines()[-1]
        assert "serve ends: " in last
        assert "SIGKILL" in last or "signal 9" in last
        assert {"jvm": "JVM"}.get(part, part) in last
        eventually(lambda: not [p for p in family if p.is_running()], what="nobody is left")
        assert server.left_behind() == []
        assert not list(server.directory.glob("manymodels-*"))
    finally:
        server.close()


def test_killing_serve_itself_leaves_no_process(model):
    server = Server()
    try:
        server.start()
        server.load("victim", model, handler="custom.py:handle")
        family = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.process.wait(5)
        eventually(lambda: not [p for p in family if p.is_running()], what="nobody is left")
    finally:
        server.close()


def test_sigterm_answers_what_is_in_flight_and_exits_0(model):
    server = Server()
    try:
        server.start()
        server.load("victim", model, handler="custom.py:handle")
        thread, answers = in_background(server, "wait")
        eventually((model / "waiting").exists)
        server.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        time.sleep(1.0)  # the drain must outlast this; there is nothing to wait for
        (model / "go").touch()
        assert server.process.wait(25) == 0
        assert time.monotonic() - began < 25
        thread.join(5)
        assert answers[0].status == 200
        assert not list(server.directory.glob("manymodels-*"))
    finally:
        server.close()


def test_sigterm_does_not_wait_for_a_hang_beyond_its_time(model):
    server = Server()
    try:
        server.start()
        server.load("victim", model, handler="custom.py:handle")
        in_background(server, "hang")
        eventually(lambda: server.request("GET", "/ping").status == 200)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(25) == 0
    finally:
        server.close()


def test_when_memory_is_short_the_kernel_takes_a_model_and_not_what_all_depend_on(server, model):
    def adjustment(process: psutil.Process) -> int:
        with open(f"/proc/{process.pid}/oom_score_adj") as file:
            return int(file.read())

    server.load("m", model, handler="custom.py:handle")
    (process,) = server.model_processes()
    rest = [server.jvm(), server.host(), server.zygote(), psutil.Process(server.process.pid)]
    assert adjustment(process) >= 500
    assert all(adjustment(other) == adjustment(psutil.Process()) for other in rest)
    child = int(server.invoke("m", b"child").body)
    assert adjustment(psutil.Process(child)) == adjustment(process)
    server.unload("m")


FAILING = """
    def handle(data, context):
        if data is None:
            raise {error}("no")
"""
STRESS_SECONDS = float(os.environ.get("STRESS_SECONDS", "6"))


@pytest.mark.parametrize(
    "kinds", [("ValueError",), ("MemoryError",), ("ValueError", "MemoryError")]
)
def test_loads_that_fail_harm_no_other_load_and_leave_nothing_on_the_list(tmp_path, kinds):
    statuses = {"ValueError": 500, "MemoryError": 507}
    failing = {kind: write_handler(tmp_path / kind, FAILING.format(error=kind)) for kind in kinds}
    good = write_handler(tmp_path / "good", HANDLER)
    wrong: list[str] = []
    until = time.monotonic() + STRESS_SECONDS

    def fail(server: Server, kind: str) -> None:
        number = 0
        while time.monotonic() < until and not wrong:
            number += 1
            status = server.load(f"{kind}{number}", failing[kind], handler="custom:handle").status
            if status != statuses[kind]:
                wrong.append(f"{kind}{number}: {status}")

    def succeed(server: Server) -> None:
        while time.monotonic() < until and not wrong:
            loaded = server.load("good", good, handler="custom:handle").status
            unloaded = server.unload("good").status
            if (loaded, unloaded) != (200, 200):
                wrong.append(f"good: {loaded}, {unloaded}")

    with serving() as server:
        until = time.monotonic() + STRESS_SECONDS
        threads = [threading.Thread(target=succeed, args=(server,))]
        threads += [threading.Thread(target=fail, args=(server, kind)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        eventually(lambda: not server.request("GET", "/models").json()["models"], 5)
        server.assert_nothing_left()
        assert "stuck" not in server.log()

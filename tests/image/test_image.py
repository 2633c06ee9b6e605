"""The image that container/Dockerfile makes, run the ways that people and SageMaker run it."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

import manymodels
from container.__main__ import IMAGE
from container.engine import Engine
from sample_models import Sample
from sample_models import samples as read_samples
from tests.functional.harness import eventually
from tests.image.containers import Container, running

MODELS = "/opt/ml/models"
FOUR = ("breast-cancer-pipeline", "breast-cancer-xgboost", "diabetes-inference", "wine-forest")
READ_ONLY = ("--read-only", "--tmpfs=/tmp:rw,noexec,nosuid,nodev")
LOCKED = (*READ_ONLY, "--cap-drop=ALL", "--security-opt=no-new-privileges")
PING = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=5)
connection.request("GET", "/ping")
print(connection.getresponse().status)
"""
LISTENING = """
for table in open("/proc/net/tcp"), open("/proc/net/tcp6"):
    for row in table:
        fields = row.split()
        if fields[3] == "0A":
            print(int(fields[1].rpartition(":")[2], 16))
"""
LEFT_OVERS = """
find / -xdev -path /proc -prune -o ( -path /var/lib/apt/lists/* -o -name *.whl -o -name *.deb
-o -path /etc/pip.conf -o -path /run/ca.crt -o -path /build -o -path /source -o -path /wheels
-o -path */site-packages/*/tests -o -path */bin/gcc -o -name javac ) -print
"""
STALE = """
import importlib.util, json, pathlib
import numpy, manymodels

def stale(path):
    try:
        compiled = pathlib.Path(importlib.util.cache_from_source(path)).read_bytes()
    except OSError:
        return True
    by_hash = compiled[4:8] == bytes([3, 0, 0, 0])
    return not by_hash or compiled[8:16] != importlib.util.source_hash(path.read_bytes())

for module in (json, numpy, manymodels):
    for path in pathlib.Path(module.__file__).parent.rglob("*.py"):
        if stale(path):
            print(path)
"""
"""Prints the modules that Python would compile again, as it could not keep the result."""
PROCESSES = """
import pathlib

for directory in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        name, _, state = (directory / "stat").read_text().partition("(")[2].rpartition(")")
        print(directory.name, name, state.split()[0], (directory / "wchan").read_text())
    except OSError:
        continue
"""
"""Prints the pid, name and state of each process, and what it sleeps in."""


def inspected(engine: Engine) -> dict[str, Any]:
    return dict(json.loads(engine.output("inspect", "--type", "image", IMAGE))[0])


def once(engine: Engine, *command: str) -> str:
    """Return what a command prints in a container of its own."""
    return engine.output("run", "--rm", "--network=none", *READ_ONLY, IMAGE, *command)


def lives_through_it(container: Container, directory: Path) -> None:
    """Load, ask, list and unload four models."""
    models = {sample.name: sample for sample in read_samples(directory)}
    for name in FOUR:
        loaded = container.load(name, Path(MODELS, name, "model"))
        assert loaded.status == 200, (loaded, container.log())
    for name in FOUR:
        answers(container, models[name], name)
    listed = container.request("GET", "/models").json()["models"]
    assert {(model["modelName"], model["modelUrl"]) for model in listed} == {
        (name, f"{MODELS}/{name}/model") for name in FOUR
    }
    for name in FOUR:
        assert container.unload(name).status == 200
        assert container.describe(name).status == 404
    assert container.request("GET", "/models").json() == {"models": []}


def answers(container: Container, sample: Sample, name: str) -> None:
    accept = {"Accept": sample.accept}
    answer = container.invoke(name, sample.body, sample.content_type, headers=accept)
    assert answer.status == 200, answer
    assert sample.answered_by(answer.body), answer


# -- what is in it -------------------------------------------------------------------------------


def test_the_image_has_what_sagemaker_asks_for_and_runs_as_nobody_in_particular(
    engine: Engine,
) -> None:
    config = inspected(engine)["Config"]
    for capability in ("multi-models", "accept-bind-to-port"):
        assert config["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    assert config["User"] == "1000"
    assert config["Entrypoint"] == ["/usr/bin/env", "--"]
    assert config["Cmd"] == ["serve"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]


def test_the_image_unpacks_to_less_than_700_mb(engine: Engine) -> None:
    assert inspected(engine)["Size"] < 700_000_000


def test_nothing_that_was_only_needed_to_build_is_in_the_image(engine: Engine) -> None:
    everything = ("run", "--rm", "--network=none", "--user=0", IMAGE)
    found = engine.output(*everything, *LEFT_OVERS.split())
    assert found == ""


def test_every_python_file_is_compiled_whatever_the_times_of_files(engine: Engine) -> None:
    assert once(engine, "python", "-c", STALE) == ""


def test_the_libraries_are_those_of_the_lock_and_agree_with_each_other(engine: Engine) -> None:
    assert once(engine, "pip", "check") == "No broken requirements found."
    locked = releases((Path(__file__).parents[2] / "container" / "requirements.txt").read_text())
    installed = releases(once(engine, "pip", "freeze", "--all"))
    assert installed - locked == {("manymodels", manymodels.__version__)}


def releases(requirements: str) -> set[tuple[str, str]]:
    """The pinned names, in the form in which those of one project are equal, and versions."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", requirements, re.M)
    return {(canonicalize_name(name), version) for name, version in found}


def test_the_bill_of_materials_lists_wheels_debian_packages_and_the_jars_contents(
    engine: Engine,
) -> None:
    bill = json.loads(once(engine, "cat", "/usr/share/manymodels/sbom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {
        component["purl"].partition("@")[0]
        for component in bill["components"]
        if "purl" in component
    }
    assert {
        "pkg:pypi/manymodels",
        "pkg:pypi/scikit-learn",
        "pkg:pypi/xgboost-cpu",
        "pkg:deb/debian/openjdk-17-jre-headless",
        "pkg:maven/io.netty/netty-codec-http",
    } <= listed


# -- how it runs ---------------------------------------------------------------------------------


def test_it_pings_within_ten_seconds_and_four_models_live_and_go(
    engine: Engine, samples: Path
) -> None:
    with running(engine, IMAGE, "serve", volumes={samples: MODELS}) as container:
        assert container.wait_ready() < 10
        lives_through_it(container, samples)
        assert container.stop() == 0


@pytest.mark.parametrize("user", ["1000", "54321:54321", "0"])
def test_it_needs_no_capability_and_nothing_to_write_to_but_tmp(
    engine: Engine, samples: Path, user: str
) -> None:
    options = (*LOCKED, f"--user={user}")
    volumes = {samples: f"{MODELS}:ro"}
    with running(engine, IMAGE, "serve", volumes=volumes, options=options) as container:
        assert container.execute("id", "-u") == user.partition(":")[0]
        assert container.load("wine", Path(MODELS, "wine-forest", "model")).status == 200
        # Netty has its transport for Linux, so that models listen on Unix sockets.
        assert container.execute("python", "-c", LISTENING) == "8080"
        assert container.unload("wine").status == 200
        lives_through_it(container, samples)
        assert container.stop() == 0


def test_it_listens_where_sagemaker_tells_it_to(engine: Engine, samples: Path) -> None:
    told = {"SAGEMAKER_BIND_TO_PORT": "18080", "SAGEMAKER_SAFE_PORT_RANGE": "18000-18999"}
    volumes = {samples: f"{MODELS}:ro"}
    with running(
        engine, IMAGE, "serve", volumes=volumes, environment=told, port=18080
    ) as container:
        lives_through_it(container, samples)


def test_it_serves_a_single_model_as_a_container_without_multi_model_mode(
    engine: Engine, samples: Path
) -> None:
    sample = next(one for one in read_samples(samples) if one.name == "wine-forest")
    volumes = {sample.model_dir: "/opt/ml/model:ro"}
    single = {"SAGEMAKER_MULTI_MODEL": "false"}
    with running(engine, IMAGE, "serve", volumes=volumes, environment=single) as container:
        headers = {"Content-Type": sample.content_type, "Accept": sample.accept}
        answer = container.request("POST", "/invocations", sample.body, headers)
        assert answer.status == 200
        assert sample.answered_by(answer.body)


def test_it_needs_no_network(engine: Engine) -> None:
    with running(engine, IMAGE, options=("--network=none",), port=0, ready=False) as container:
        eventually(lambda: "serving on port 8080" in container.log(), 60, "it serves")
        assert container.execute("python", "-c", PING) == "200"
        assert container.stop() == 0


def test_two_containers_side_by_side_know_nothing_of_each_other(
    engine: Engine, samples: Path
) -> None:
    volumes = {samples: f"{MODELS}:ro"}
    with (
        running(engine, IMAGE, "serve", volumes=volumes) as one,
        running(engine, IMAGE, "serve", volumes=volumes) as other,
    ):
        assert one.load("wine", Path(MODELS, "wine-forest", "model")).status == 200
        assert other.describe("wine").status == 404
        lives_through_it(other, samples)
        assert one.stop() == 0
        lives_through_it(other, samples)


def test_sigterm_ends_it_in_time_with_a_model_loaded_and_a_client_that_waits(
    engine: Engine, samples: Path, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "slow.py").write_text(
        "import time\n\ndef handle(data, context):\n    if data:\n        time.sleep(600)\n"
    )
    volumes = {tmp_path: f"{MODELS}:ro"}
    with running(engine, IMAGE, "serve", volumes=volumes) as container:
        url = Path(MODELS, "slow")
        assert container.load("slow", url, handler="slow.py:handle").status == 200
        asked = threading.Thread(target=_ask_in_vain, args=(container,), daemon=True)
        asked.start()
        eventually(
            lambda: any("nanosleep" in where for *_, where in processes(container)),
            20,
            "the handler sleeps",
        )
        assert container.stop() == 0
        asked.join(30)
        assert not asked.is_alive()


def _ask_in_vain(container: Container) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        container.invoke("slow", b"1")


def processes(container: Container) -> list[tuple[str, str, str, str]]:
    """Return the pid, name and state of each process, and what it sleeps in."""
    lines = container.execute("python", "-c", PROCESSES).splitlines()
    return [(*line.split(" ", 3),) for line in lines if line.count(" ") == 3]


def test_a_killed_model_process_is_reaped_and_replaced(engine: Engine, samples: Path) -> None:
    sample = next(one for one in read_samples(samples) if one.name == "wine-forest")
    volumes = {samples: f"{MODELS}:ro"}
    with running(engine, IMAGE, "serve", volumes=volumes, options=READ_ONLY) as container:
        assert container.load("wine", Path(MODELS, "wine-forest", "model")).status == 200
        killed = [pid for pid, name, *_ in processes(container) if name == "wine"]
        assert killed
        container.execute("sh", "-c", f"kill -9 {' '.join(killed)}")
        eventually(lambda: container.invoke("wine", sample.body).status == 200, 20, "it is back")
        answers(container, sample, "wine")
        states = {state for _, _, state, _ in processes(container)}
        assert "Z" not in states
        assert not {pid for pid, *_ in processes(container)} & set(killed)


def test_a_model_that_its_user_may_not_read_is_named_in_the_log(
    engine: Engine, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "secret").mkdir(mode=0o700)
    with running(engine, IMAGE, "serve", volumes={tmp_path: f"{MODELS}:ro"}) as container:
        body = json.dumps({"model_name": "hidden", "url": f"{MODELS}/secret"})
        # The answer takes a minute: docs/compatibility.md.
        with contextlib.suppress(TimeoutError):
            container.request(
                "POST", "/models", body, {"Content-Type": "application/json"}, timeout=1
            )
        eventually(
            lambda: re.search("ERROR W-.*hidden: .*Permission denied", container.log()),
            20,
            "the log says which model, and why",
        )


# -- other commands ------------------------------------------------------------------------------


def test_any_other_command_runs_in_its_place(engine: Engine) -> None:
    assert once(engine, "python", "-c", "import sklearn, xgboost; print(6 * 7)") == "42"
    assert once(engine, "sh", "-c", "echo $HOME; id -un") == "/tmp\nmanymodels"
    assert "openjdk 17" in once(engine, "java", "--version")


def test_a_commands_exit_status_is_the_containers(engine: Engine) -> None:
    assert engine.command("run", "--rm", IMAGE, "python", "-c", "exit(7)").returncode == 7
    missing = engine.command("run", "--rm", IMAGE, "no-such-command")
    assert missing.returncode == 127
    assert "no-such-command" in missing.stderr


def test_a_wrong_setting_ends_it_with_one_line_that_says_so(engine: Engine) -> None:
    ended = engine.command("run", "--rm", "--env=SAGEMAKER_BIND_TO_PORT=eighty", IMAGE, "serve")
    assert ended.returncode != 0
    assert "SAGEMAKER_BIND_TO_PORT" in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_without_a_place_for_temporary_files_it_ends_with_one_line_that_says_so(
    engine: Engine,
) -> None:
    # podman gives a read-only container a /tmp unless told not to; docker does not.
    without = ["--read-only-tmpfs=false"] if engine.name == "podman" else []
    command = ("run", "--rm", "--read-only", *without, "--env=SAGEMAKER_MULTI_MODEL=true")
    ended = engine.command(*command, IMAGE, "serve")
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert "temporary directory" in line

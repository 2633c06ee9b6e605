"""An image of Multi Model Server before and after the two lines: same requests, same answers.

Each test runs on both stages of ``container/swap``. Where they differ, as docs/compatibility.md
says, ``Stage`` names both answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import manymodels
from container.engine import Engine, EngineError
from container.swap import HERE, SMALL, STOCK, SWAPPED
from sample_models import Sample, samples
from tests.functional.harness import assert_gone, eventually
from tests.image.containers import Container, running
from tests.image.swap_models import GOOD, MISSING, MODELS, TRAINED, ask, assert_right, make


@dataclass(frozen=True)
class Stage:
    """One of the two images, and what it answers where they differ."""

    name: str
    image: str
    refusal_type: str
    failed_request: tuple[int, str]


STAGES = (
    Stage("before", STOCK, "InternalServerException", (503, "Prediction failed")),
    Stage("after", SWAPPED, "PredictionException", (500, "IndexError")),
)


@pytest.fixture(scope="module")
def models(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("swap") / "models"
    make(engine, directory)
    return directory


@pytest.fixture(scope="module")
def sample(models: Path) -> Sample:
    return next(sample for sample in samples(models) if sample.name == TRAINED)


@pytest.fixture(scope="module")
def both(engine: Engine, models: Path) -> Iterator[tuple[Container, Container]]:
    """The two images, running side by side."""
    with started(engine, STOCK, models) as before, started(engine, SWAPPED, models) as after:
        yield before, after


@pytest.fixture(params=STAGES, ids=lambda stage: stage.name)
def stage(request: pytest.FixtureRequest) -> Stage:
    return request.param


@pytest.fixture
def container(stage: Stage, both: tuple[Container, Container]) -> Iterator[Container]:
    container = both[STAGES.index(stage)]
    yield container
    container.unload_all()


def started(engine: Engine, image: str, models: Path) -> AbstractContextManager[Container]:
    return running(engine, image, "serve", volumes={models: f"{MODELS}:ro"})


def test_the_swap_is_two_lines_that_name_this_version():
    stages = (HERE / "Dockerfile").read_text().split("\nFROM stock AS ")[1:]
    for stage in stages:
        name, *added = stage.replace("\\\n", "").strip().splitlines()
        assert name in ("small", "swapped")
        assert [line.split()[0] for line in added] == ["RUN", "ENV"]
        assert f"/manymodels-{manymodels.__version__}-py3-none-any.whl" in added[0]
    assert len(stages) == 2


def test_the_two_lines_change_no_package_that_was_there(both):
    before, after = (set(each.execute("pip", "freeze").splitlines()) for each in both)
    assert before < after
    assert any(package.startswith("manymodels") for package in after)
    assert "No broken requirements" in both[1].execute("pip", "check")


def test_a_model_is_loaded_asked_listed_and_unloaded(container, sample):
    assert container.load("digits", GOOD).status == 200
    assert container.load("digits", GOOD).status == 409
    for _ in range(3):
        answer = ask(container, sample)
        assert_right(answer, sample)
        assert answer.headers["content-type"] == "application/json"
    assert container.request("GET", "/models").json() == {
        "models": [{"modelName": "digits", "modelUrl": GOOD}]
    }
    assert container.unload("digits").status == 200
    assert container.unload("digits").status == 404
    assert ask(container, sample).status == 404
    assert container.request("GET", "/models").json() == {"models": []}


def test_the_answers_are_the_same_bytes(both, sample):
    rows = [[float(cell) for cell in line.split(",")] for line in sample.body.splitlines()]
    requests = [(sample.body, "text/csv"), (json.dumps({"instances": rows}), "application/json")]
    answers = []
    for container in both:
        assert container.load("same", GOOD).status == 200
        answers.append([container.invoke("same", *request).body for request in requests])
        container.unload_all()
    assert answers[0] == answers[1]
    assert answers[0][0] == answers[0][1]


def test_without_the_libraries_that_its_handler_does_not_use(engine, models, sample):
    with started(engine, SMALL, models) as container:
        with pytest.raises(EngineError):
            container.execute("python", "-c", "import sklearn")
        assert container.load("digits", GOOD).status == 200
        assert_right(ask(container, sample), sample)
        assert "manymodels-zygo" in container.execute("sh", "-c", "cat /proc/[0-9]*/comm")


def test_a_directory_that_is_not_there_is_404(container):
    assert container.load("digits", f"{MODELS}/none").status == 404


@pytest.mark.parametrize("model", [*(f"without-{name}" for name in MISSING), "lying"])
def test_a_broken_model_fails_to_load_and_its_name_is_free_again(container, sample, model):
    assert container.load("digits", f"{MODELS}/{model}").status == 500
    assert_gone(container, "digits")
    assert container.load("digits", GOOD).status == 200
    assert_right(ask(container, sample), sample)


def test_after_the_swap_the_log_always_says_why_a_load_failed(both):
    """The stock worker's last lines are lost when it ends before the frontend has read them."""
    for number in range(5):
        name, model = f"silent-{number}", f"{MODELS}/without-synset.txt"
        assert both[1].load(name, model).status == 500
        reason = rf"{name} failed to load \(500\): FileNotFoundError: .*synset\.txt"
        eventually(lambda reason=reason: re.search(reason, both[1].log()), 5, reason)


def load_huge(container: Container) -> int:
    return container.load("huge", f"{MODELS}/huge", handler="tight.py:handle").status


def test_a_model_without_enough_memory_is_507(container):
    assert load_huge(container) == 507


def test_after_the_swap_a_load_without_memory_can_be_tried_again(both):
    """In a stock server the model often stays registered, and the next load is 409."""
    for _ in range(5):
        assert load_huge(both[1]) == 507
        assert_gone(both[1], "huge")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        ("1,2", "text/csv", 400, "cannot reshape array of size 2"),
        ("a,b", "text/csv", 400, "could not convert string to float"),
        ("{}", "application/json", 400, "'instances'"),
        ("1,2", "text/plain", 415, "cannot read text/plain"),
    ],
)
def test_what_the_handler_refuses_is_refused(stage, container, body, content_type, status, reason):
    assert container.load("digits", GOOD).status == 200
    answer = container.invoke("digits", body, content_type)
    assert (answer.status, answer.json()["type"]) == (status, stage.refusal_type)
    assert reason in answer.json()["message"]


def test_a_request_that_raises_fails_alone(stage, container, sample):
    assert container.load("digits", f"{MODELS}/two-labels").status == 200
    status, reason = stage.failed_request
    for _ in range(2):
        answer = ask(container, sample)
        assert answer.status == status
        assert reason in answer.json()["message"] + answer.json()["type"]


def test_a_handler_finds_the_same_around_it(both):
    before, after = (_surroundings(container, "left") for container in both)
    old, new = before.pop("environment"), after.pop("environment")
    assert before == after
    assert before["cwd"] == before["properties"]["model_dir"] == f"{MODELS}/left"
    # The host's name is the container's; the stock worker sets MXNet's tuning for itself.
    assert {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)} <= {
        *("HOSTNAME", "MODEL_SERVER_HOME", "MXNET_USE_OPERATOR_TUNING")
    }


def test_each_model_imports_its_own_module_of_a_name(container):
    for name in ("left", "right"):
        assert _surroundings(container, name)["neighbour"] == name


def _surroundings(container: Container, name: str) -> dict[str, Any]:
    assert container.load(name, f"{MODELS}/{name}", handler="surroundings.py:handle").status == 200
    answer = container.invoke(name, '{"a": [1]}', "application/json")
    eventually(lambda: f"{name} looks around" in container.log(), 5, "what it prints is logged")
    container.unload(name)
    return answer.json()


def test_only_after_the_swap_a_zygote_has_the_models(both):
    for container in both:
        assert container.load("digits", GOOD).status == 200
    before, after = (each.execute("sh", "-c", "cat /proc/[0-9]*/comm").split() for each in both)
    assert before.count("python3") + before.count("python") >= 3
    assert {"manymodels-host", "manymodels-zygo", "digits"} <= set(after)
    assert not {"manymodels-host", "manymodels-zygo"} & set(before)
    for container in both:
        container.unload_all()


def test_without_a_command_it_serves_on_the_port_it_is_given(engine, stage, models, sample):
    settings = {"SAGEMAKER_BIND_TO_PORT": "8181", "LABELS_ANSWERED": "2"}
    volumes = {models: f"{MODELS}:ro"}
    with running(
        engine, stage.image, environment=settings, volumes=volumes, port=8181
    ) as container:
        assert container.load("digits", GOOD).status == 200
        assert_right(ask(container, sample), sample, labels=2)
        assert container.stop() == 0


def test_it_serves_one_model_where_it_is_not_multi_model(engine, stage, models, sample):
    model = {models / TRAINED / "model": "/opt/ml/model:ro"}
    single = {"SAGEMAKER_MULTI_MODEL": "false"}
    with running(engine, stage.image, "serve", environment=single, volumes=model) as container:
        headers = {"Content-Type": sample.content_type}
        answer = container.request("POST", "/invocations", sample.body, headers)
        assert_right(answer, sample)


def test_one_variable_goes_back_to_the_stock_worker(engine, models, sample):
    home = engine.output(
        *("run", "--rm", SWAPPED, "python", "-c"),
        "import mms, pathlib; print(pathlib.Path(mms.__file__).parents[1])",
    )
    volumes = {models: f"{MODELS}:ro"}
    back = {"MODEL_SERVER_HOME": home}
    with running(engine, SWAPPED, "serve", environment=back, volumes=volumes) as container:
        assert container.load("digits", GOOD).status == 200
        assert_right(ask(container, sample), sample)
        assert "manymodels" not in container.execute("sh", "-c", "cat /proc/[0-9]*/comm")


def test_any_other_command_is_run(engine, stage):
    command = ("run", "--rm", stage.image, "python", "-c", "import mxnet; print(mxnet.__version__)")
    assert engine.output(*command).splitlines()[-1] == "1.9.1"

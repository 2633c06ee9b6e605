"""An image of one's own on top of the product's: packages, a handler, the same user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from container.__main__ import EXTENDED, IMAGE
from container.engine import Engine, EngineError
from tests.image.containers import Container, running

MODELS = "/opt/ml/models"
GENERIC = "manymodels.service:handle"
ROW = "17.99,10.38,122.8,1001.0,0.1184\n"
TRAIN = f"""
from pathlib import Path

import lightgbm
from sklearn.datasets import load_breast_cancer

rows, benign = load_breast_cancer(return_X_y=True)
rows = rows[:, :5]
booster = lightgbm.train(
    {{"objective": "binary", "num_threads": 1, "verbose": -1}}, lightgbm.Dataset(rows, benign), 5
)
Path("/out/cancer").mkdir()
booster.save_model("/out/cancer/model.txt")
print(booster.predict([[{ROW.strip()}]])[0])
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("extend")
    directory.chmod(0o777)  # for the image's user
    return directory


@pytest.fixture(scope="module")
def expected(engine: Engine, models: Path) -> float:
    """What LightGBM itself says of ROW: the model is trained in the image, without a network."""
    command = ["run", "--rm", "--network=none", f"--volume={models}:/out", EXTENDED]
    return float(engine.output(*command, "python", "-c", TRAIN).splitlines()[-1])


@pytest.fixture(scope="module")
def container(engine: Engine, models: Path, expected: float) -> Iterator[Container]:
    options = ("--read-only", "--tmpfs=/tmp")
    volumes = {models: f"{MODELS}:ro"}
    with running(engine, EXTENDED, "serve", volumes=volumes, options=options) as container:
        yield container


def test_the_handler_of_the_image_answers_where_the_load_names_none(container, expected):
    assert container.load("cancer", f"{MODELS}/cancer").status == 200
    answer = container.invoke("cancer", ROW)
    assert answer.status == 200
    assert answer.json() == [pytest.approx(expected)]
    assert answer.headers["X-Model"] == "cancer"
    assert container.unload("cancer").status == 200


def test_a_model_of_an_added_library_is_served_by_the_generic_handler(container, expected):
    assert container.load("cancer", f"{MODELS}/cancer", handler=GENERIC).status == 200
    answer = container.invoke("cancer", ROW)
    assert answer.json() == [pytest.approx(expected)]
    assert "X-Model" not in answer.headers
    assert container.unload("cancer").status == 200


def test_what_the_generic_handler_refuses_is_refused_through_the_own_one(container):
    assert container.load("cancer", f"{MODELS}/cancer").status == 200
    answer = container.invoke("cancer", "1,2\n")
    assert answer.status == 400
    assert "5" in answer.json()["message"]
    assert answer.headers["X-Model"] == "cancer"
    assert container.unload("cancer").status == 200


def test_the_added_package_is_in_this_image_only(engine):
    imported = ("python", "-c", "import lightgbm; print(lightgbm.__version__)")
    assert engine.output("run", "--rm", EXTENDED, *imported)
    with pytest.raises(EngineError, match="No module named 'lightgbm'"):
        engine.output("run", "--rm", IMAGE, *imported)


def test_the_packages_of_the_image_are_as_they_were(engine):
    before, after = (
        set(engine.output("run", "--rm", image, "pip", "freeze").splitlines())
        for image in (IMAGE, EXTENDED)
    )
    assert before < after
    assert "No broken requirements" in engine.output("run", "--rm", EXTENDED, "pip", "check")


def test_it_runs_as_the_user_of_the_image(engine):
    users = {engine.output("run", "--rm", image, "id", "-u") for image in (IMAGE, EXTENDED)}
    assert len(users) == 1
    assert users != {"0"}

"""MANYMODELS_ARTIFACTS=safe: nothing that a model brings is run, whichever way it asks for it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.harness import Server, assert_gone, eventually, serving
from tests.functional.hosts import multi_model_server

lightgbm = pytest.importorskip("lightgbm")
np = pytest.importorskip("numpy")

OWN = """
    import subprocess
    import sys

    from manymodels import service

    def handle(data, context):
        if data is None:
            subprocess.run([sys.executable, "-c", "pass"], check=True)
        answers = service.handle(data, context)
        for index in range(len(answers or ())):
            context.set_response_header(index, "X-Own", "yes")
        return answers
"""


@pytest.fixture(scope="module")
def safe() -> Iterator[Server]:
    # The libraries are imported by the models themselves, by whatever is on their path.
    with serving(MANYMODELS_ARTIFACTS="safe", MANYMODELS_PRELOAD="numpy") as server:
        yield server


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that code of the model leaves if it is run."""
    return tmp_path / "mark"


@pytest.fixture
def model(tmp_path: Path, mark: Path) -> Path:
    """A LightGBM model with modules beside it that are named like everything it could import."""
    directory = tmp_path / "model"
    directory.mkdir()
    rows = np.random.RandomState(0).rand(40, 3)
    data = lightgbm.Dataset(rows, label=rows[:, 0])
    trained = lightgbm.train({"num_threads": 1, "verbose": -1, "min_data_in_leaf": 2}, data, 2)
    trained.save_model(directory / "model.txt")
    code = f"open({str(mark)!r}, 'w').close()\ndef handle(data, context): ...\n"
    for name in ("evil", "lightgbm", "scipy", "sklearn", "sitecustomize"):
        (directory / f"{name}.py").write_text(code)
    return directory


def test_a_model_is_loaded_and_no_module_beside_it_is(
    safe: Server, model: Path, mark: Path
) -> None:
    assert safe.load("plain", model).status == 200, safe.log()
    assert safe.invoke("plain", b"0.1,0.2,0.3").status == 200
    assert not mark.exists()
    assert safe.unload("plain").status == 200


@pytest.mark.parametrize(
    "handler", ["evil.py:handle", "evil", "builtins:print", "./evil.py:handle"]
)
@pytest.mark.parametrize("by", ["the load", "the manifest"])
def test_a_handler_of_the_models_own_is_refused_before_it_is_imported(
    safe: Server, model: Path, mark: Path, by: str, handler: str
) -> None:
    name = f"own-{re.sub(r'[^a-z]', '-', by + handler)}"
    if by == "the load":
        answer = safe.load(name, model, handler=handler)
    else:
        write_manifest(model, handler)
        answer = safe.load(name, model)
    assert answer.status == 500
    assert not mark.exists()
    line = eventually(lambda: [row for row in safe.log().splitlines() if f"[{name}]" in row], 5)
    assert len(line) == 1
    assert "MANYMODELS_ARTIFACTS=safe runs manymodels.service:handle only" in line[0]
    assert repr(handler) in line[0]
    assert "SAGEMAKER_HANDLER" in line[0]
    assert_gone(safe, name)


def write_manifest(model: Path, handler: str, runtime: str = "python") -> None:
    (model / "MAR-INF").mkdir()
    manifest = {"model": {"modelName": "m", "handler": handler}, "runtime": runtime}
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_manifest_that_names_the_generic_handler_is_served(safe: Server, model: Path) -> None:
    write_manifest(model, "manymodels.service:handle")
    assert safe.load("named", model).status == 200, safe.log()
    assert safe.unload("named").status == 200


@pytest.mark.parametrize("runtime", ["python", "python2", "python3"])
@pytest.mark.parametrize("by", ["the load", "the manifest"])
def test_whichever_runtime_is_asked_for_no_interpreter_looks_into_the_model(
    safe: Server, model: Path, mark: Path, by: str, runtime: str
) -> None:
    name = f"{runtime}-{by[4:]}"
    if by == "the load":
        answer = safe.load(name, model, runtime=runtime)
    else:
        write_manifest(model, "manymodels.service:handle", runtime)
        answer = safe.load(name, model)
    assert answer.status == 200, safe.log()
    assert safe.invoke(name, b"0.1,0.2,0.3").status == 200
    assert not mark.exists()
    assert safe.unload(name).status == 200


def test_a_legacy_archive_is_refused(safe: Server, model: Path, mark: Path) -> None:
    (model / "MANIFEST.json").write_text('{"Model": {"Service": "evil.py"}}')
    assert safe.load("legacy", model, handler="evil.py:handle").status == 500
    assert safe.load("legacy", model).status == 500
    assert not mark.exists()


def test_the_operators_own_handler_is_run_but_not_from_the_models_directory(
    tmp_path: Path, model: Path, mark: Path
) -> None:
    (tmp_path / "operator").mkdir()
    handler = tmp_path / "operator" / "own.py"
    handler.write_text(textwrap.dedent(OWN))
    (model / "own.py").write_text((model / "evil.py").read_text())
    for value, status in ((f"{handler}:handle", 200), ("evil.py:handle", 500)):
        with serving(MANYMODELS_ARTIFACTS="safe", SAGEMAKER_HANDLER=value) as server:
            assert server.load("m", model).status == status, server.log()
            if status == 200:
                assert server.invoke("m", b"0.1,0.2,0.3").headers["X-Own"] == "yes"
            assert not mark.exists()


def test_a_server_that_was_not_started_by_serve_runs_what_sagemaker_handler_names(
    tmp_path: Path, model: Path, mark: Path
) -> None:
    # Its own interpreters, the launcher's among them, have the model's directory on their path.
    (model / "sitecustomize.py").unlink()
    (tmp_path / "operator").mkdir()
    handler = tmp_path / "operator" / "own.py"
    handler.write_text(textwrap.dedent(OWN))
    properties = {"default_service_handler": f"{handler}:handle"}
    common = {"MANYMODELS_ARTIFACTS": "safe", "MANYMODELS_PRELOAD": "numpy"}
    with multi_model_server(tmp_path, properties, **common) as server:
        assert server.load("m", model).status == 500
        eventually(
            lambda: "MANYMODELS_ARTIFACTS=safe runs manymodels.service:handle only" in server.log(),
            5,
        )
        assert server.load("g", model, handler="manymodels.service:handle").status == 200
    named = {**common, "SAGEMAKER_HANDLER": f"{handler}:handle"}
    with multi_model_server(tmp_path, properties, **named) as server:
        assert server.load("m", model).status == 200, server.log()
        assert server.invoke("m", b"0.1,0.2,0.3").headers["X-Own"] == "yes"
        assert server.load("evil", model, handler="evil.py:handle").status == 500
    assert not mark.exists()


def test_nothing_goes_wrong_at_start() -> None:
    with serving(MANYMODELS_ARTIFACTS="safe") as server:
        assert "Traceback" not in server.log()
        assert "WARNING" not in server.log()

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mms.context import Context, RequestProcessor

from manymodels.service import ModelService

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sample_models import Sample, samples  # noqa: E402

OWN_HANDLER = "digits-neighbours"


def build(out, hash_seed):
    return subprocess.run(
        [sys.executable, "-m", "sample_models", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("samples")
    build(out, "1")
    return out


def files_of(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def context_of(sample):
    context = Context(sample.name, str(sample.model_dir), None, 1, None, "1.1.11")
    context.request_ids = {0: "one"}
    context.request_processor = [
        RequestProcessor({"Content-Type": sample.content_type, "Accept": sample.accept})
    ]
    return context


def test_there_are_enough_models_of_enough_kinds(built):
    found = samples(built)
    assert len(found) >= 14
    assert {sample.framework for sample in found} == {"scikit-learn", "xgboost", "own handler"}
    assert {sample.content_type for sample in found} == {"text/csv", "application/json"}
    assert {sample.accept for sample in found} == {"text/csv", "application/json"}
    assert {len(sample.expected) for sample in found} > {1, 2, 3}
    suffixes = {path.suffix for sample in found for path in sample.model_dir.iterdir()}
    assert suffixes >= {".joblib", ".pkl", ".pickle", ".json", ".ubj"}


def test_a_second_build_writes_the_same_bytes(built, tmp_path):
    build(tmp_path, "2")
    first, second = files_of(built), files_of(tmp_path)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_building_again_leaves_no_stale_file_in_a_model(built):
    stale = samples(built)[0].model_dir / "stale.pkl"
    stale.touch()
    before = files_of(built).keys()
    build(built, "1")
    assert files_of(built).keys() == before - {str(stale.relative_to(built))}


def test_every_model_of_ours_answers_what_its_library_said(built):
    for sample in samples(built):
        if sample.name == OWN_HANDLER:
            continue
        service, context = ModelService(), context_of(sample)
        service.initialize(context)
        (answer,) = service.handle([{"body": sample.body.encode()}], context)
        assert context.get_response_content_type(0) == sample.accept
        assert sample.answered_by(answer), f"{sample.name}: {answer!r}"


@pytest.mark.parametrize("parsed", [True, False])
def test_the_model_with_its_own_handler_answers_too(built, monkeypatch, parsed):
    (sample,) = (each for each in samples(built) if each.name == OWN_HANDLER)
    manifest = json.loads((sample.model_dir / "MAR-INF" / "MANIFEST.json").read_text())
    assert manifest["runtime"] == "python"
    assert manifest["model"]["modelName"] == sample.name
    module, function = manifest["model"]["handler"].split(":")
    monkeypatch.syspath_prepend(sample.model_dir)
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    handle = getattr(importlib.import_module(module), function)
    context = context_of(sample)
    assert handle(None, context) is None
    body = json.loads(sample.body) if parsed else sample.body.encode()
    (answer,) = handle([{"body": body}], context)
    assert sample.answered_by(answer)


def sample_of(expected, tolerance=0.0, accept="application/json"):
    return Sample("n", "f", "d", "text/csv", accept, "1", expected, tolerance, Path())


@pytest.mark.parametrize(
    ("accept", "answer", "expected", "right"),
    [
        ("application/json", b"[1.0, 2.05]", [1, 2], True),
        ("application/json", b"[1.0, 2.5]", [1, 2], False),
        ("application/json", b"[1]", [1, 2], False),
        ("application/json", b"[null]", [1], False),
        ("application/json", b'["1"]', [1], False),
        ("application/json", b"[[1, 2]]", [[1, 2]], True),
        ("text/csv", b"1\n2\n", [1, 2], True),
        ("text/csv", b'"a,b"\nc\n', ["a,b", "c"], True),
        ("text/csv", b"a\n", ["b"], False),
        ("text/csv", b"1,2\n", [[1, 2]], True),
    ],
)
def test_an_answer_is_right_within_the_tolerance(accept, answer, expected, right):
    assert sample_of(expected, 0.1, accept).answered_by(answer) is right


def test_an_answer_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match="not a list"):
        sample_of([1]).answered_by(b'{"code": 500}')

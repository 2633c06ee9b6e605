"""Every kind of model, asked in every format and answered in every format, on every server."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.functional.format_models import BY_NAME, FORMATS, KINDS, ONLY_NUMBERS, read
from tests.functional.harness import Server
from tests.functional.hosts import HOSTS, host

ACCEPTS = (
    "application/json",
    "text/csv",
    "application/jsonlines",
    "application/x-npy",
    "application/x-recordio-protobuf",
)


class Loaded:
    """A server that has one model of every kind, and what each model's library answers."""

    def __init__(self, server: Server, expected: dict[str, Any]) -> None:
        self.server = server
        self.expected = expected


@pytest.fixture(scope="module", params=HOSTS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Loaded]:
    if request.param == "sagemaker-inference" and not os.access("/etc", os.W_OK):
        pytest.skip("sagemaker-inference writes its configuration to /etc")
    directory = tmp_path_factory.mktemp("host")
    expected = {}
    with host(request.param, directory) as server:
        for number, (name, kind) in enumerate(KINDS.items()):
            if kind.needs is None or importlib.util.find_spec(kind.needs):
                model = tmp_path_factory.mktemp("model")
                expected[name] = np.asarray(kind.write(model)).tolist()
                answer = server.load(f"m{number}", model)
                assert answer.status == 200, (name, server.log())
        yield Loaded(server, expected)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_answers_as_its_library_does_or_says_why_not(loaded, kind, form):
    if kind not in loaded.expected:
        pytest.skip(f"{KINDS[kind].needs} is not installed")
    if form in BY_NAME and not KINDS[kind].named:
        pytest.skip("the model does not know its columns' names")
    content_type, write = FORMATS[form]
    name = f"m{list(KINDS).index(kind)}"
    mixed = KINDS[kind].asked is not None
    impossible = mixed and form in ONLY_NUMBERS
    body = write(KINDS[kind].rows.select_dtypes("number") if impossible else KINDS[kind].rows)
    expected = loaded.expected[kind]
    for accept in ACCEPTS:
        answer = loaded.server.invoke(name, body, content_type, headers={"Accept": accept})
        if impossible:
            assert answer.status == 400, answer
            assert answer.json()["type"] == "BadRequest"
        else:
            assert answer.status == 200, (accept, answer.body)
            assert answer.headers["content-type"] == accept
            assert_close(read(answer.body, accept), expected, accept)


def assert_close(answered: Any, expected: Any, accept: str) -> None:
    assert np.shape(answered) == np.shape(expected), accept
    for one, other in zip(np.ravel(answered).tolist(), np.ravel(expected).tolist(), strict=True):
        if isinstance(other, str):
            assert one == other, accept
        else:
            # What XGBoost and LightGBM document of their own float32.
            assert math.isclose(one, other, rel_tol=2e-6, abs_tol=1e-7), accept

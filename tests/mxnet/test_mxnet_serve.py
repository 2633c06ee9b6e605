"""MXNet's sample models behind the real frontend, by the generic handler."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.functional.harness import Server, assert_gone, eventually, serving

pytest.importorskip("mxnet")

MODULE, GLUON = "digits-mxnet-module", "digits-mxnet-gluon"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def test_both_kinds_load_answer_and_unload_side_by_side(server, samples):
    for name in (MODULE, GLUON):
        assert server.load(name, samples[name].model_dir).status == 200, server.log()
    for name in (GLUON, MODULE, GLUON):
        sample = samples[name]
        answer = server.invoke(
            name, sample.body, sample.content_type, headers={"Accept": sample.accept}
        )
        assert answer.status == 200, answer.body
        assert sample.answered_by(answer.body)
    for name in (MODULE, GLUON):
        assert server.unload(name).status == 200
    server.assert_nothing_left()


def test_rows_of_another_width_are_a_bad_request_that_names_both(server, samples):
    assert server.load("m", samples[GLUON].model_dir).status == 200
    answer = server.invoke("m", "1,2,3\n")
    assert answer.status == 400
    assert "64 features, the request has 3" in answer.json()["message"]
    assert server.invoke("m", ",".join(["1"] * 64)).status == 200, "it goes on"
    server.unload_all()


def test_damaged_parameters_fail_the_load_and_the_log_says_why(server, samples, tmp_path):
    for path in samples[MODULE].model_dir.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:200])
    assert server.load("damaged", tmp_path).status == 500
    eventually(
        lambda: (
            "digits-symbol.json is not a network that MXNet wrote, or cut short" in server.log()
        ),
        5,
    )
    assert_gone(server, "damaged")
    server.assert_nothing_left()

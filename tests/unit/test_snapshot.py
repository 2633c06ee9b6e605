"""A snapshot's JSON: what was written comes back, anything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from manymodels.status.snapshot import BadSnapshot, Snapshot, Worker
from tests.unit.snapshots import model, snapshot, snapshots, tally

steady = hypothesis_settings(deadline=None, derandomize=True)


@steady
@given(snapshots)
def test_a_snapshot_comes_back_from_json_as_it_was(one):
    text = one.to_json()
    assert text.isascii()
    assert Snapshot.from_json(text) == one


def test_json_has_the_number_of_requests_for_those_who_read_it():
    one = snapshot(model("m", Worker(1, "idle", tally(0.1, 0.2, errors={404: 1}))))
    fields = json.loads(one.to_json())["models"][0]
    assert fields["tally"]["requests"] == fields["workers"][0]["tally"]["requests"] == 2
    assert fields["tally"]["errors"] == {"404": 1}


def test_fields_of_a_newer_server_are_passed_over():
    fields = json.loads(snapshot().to_json())
    fields["weather"] = fields["memory"]["colour"] = "grey"
    assert Snapshot.from_json(json.dumps(fields)) == snapshot()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\xfd", "decode"),
        (b"[]", "Snapshot is a list in place of a dict"),
        (b"{}", "Snapshot has no server"),
        (b"[" * 100_000, "recursion"),
        (b'{"server": {"pid": true}}', "Snapshot.server.pid is a bool in place of a int"),
        (b'{"server": {"pid": 1.5}}', "Snapshot.server.pid is a float in place of a int"),
        (b'{"server": {"pid": 1, "version": null}}', "version is a NoneType in place of a str"),
        (b'{"server": {"pid": 1, "version": "1", "started": NaN}}', "started is nan"),
        (b'{"server": {"pid": 1, "version": "1", "started": 1e999}}', "started is inf"),
    ],
)
def test_anything_else_is_no_snapshot(text, what):
    with pytest.raises(BadSnapshot, match="no snapshot of a server") as raised:
        Snapshot.from_json(text)
    assert what in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"tally": {"buckets": [1, 2]}},
        {"tally": {"buckets": ["1"] * 19}},
        {"tally": {"errors": {"many": 1}}},
        {"leased": "yes"},
        {"workers": {}},
        {"load_ms": 10**400},
    ],
)
def test_a_model_that_is_none_makes_no_snapshot(change):
    fields = json.loads(snapshot(model("m")).to_json())
    fields["models"][0].update(change)
    with pytest.raises(BadSnapshot):
        Snapshot.from_json(json.dumps(fields))

"""The channel between our own processes: whole messages, with descriptors, until its end."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.backend import channel

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""


@pytest.fixture(scope="module")
def ends():
    ours, theirs = channel.pair()
    # A message that never comes must not hang the tests.
    theirs.settimeout(10)
    yield ours, theirs
    ours.close()
    theirs.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@steady
@given(st.dictionaries(st.text(max_size=10), json_values, max_size=5))
def test_any_message_arrives_as_it_was_sent(ends, message):
    ours, theirs = ends
    channel.send(ours, message)
    assert channel.receive(theirs) == (message, [])


def test_messages_are_kept_apart_and_in_order(ends):
    ours, theirs = ends
    for number in range(10):
        channel.send(ours, {"number": number})
    assert [channel.receive(theirs)[0]["number"] for _ in range(10)] == list(range(10))


def test_descriptors_arrive_with_their_message_and_are_the_same_files(ends):
    ours, theirs = ends
    reader, writer = os.pipe()
    channel.send(ours, {"event": "log"}, [reader, writer])
    channel.send(ours, {"event": "none"})
    message, (their_reader, their_writer) = channel.receive(theirs)
    assert message == {"event": "log"}
    assert channel.receive(theirs) == ({"event": "none"}, [])
    os.write(their_writer, b"through")
    assert os.read(reader, 100) == b"through"
    for descriptor in (reader, writer, their_reader, their_writer):
        os.close(descriptor)


def test_a_received_descriptor_is_not_inherited_by_programs_that_are_started(ends):
    ours, theirs = ends
    channel.send(ours, {}, [0])
    _, (received,) = channel.receive(theirs)
    inherited = os.get_inheritable(received)
    os.close(received)
    assert not inherited


def test_eight_descriptors_fit_a_message(ends):
    ours, theirs = ends
    channel.send(ours, {}, [0] * 8)
    _, received = channel.receive(theirs)
    assert len(received) == 8
    for descriptor in received:
        os.close(descriptor)


def test_the_end_of_the_channel_is_none_after_all_that_was_sent():
    ours, theirs = channel.pair()
    channel.send(ours, {"last": True})
    ours.close()
    assert channel.receive(theirs) == ({"last": True}, [])
    assert channel.receive(theirs) is None
    assert channel.receive(theirs) is None
    theirs.close()


def test_the_end_comes_when_the_last_writer_is_gone():
    ours, theirs = channel.pair()
    pid = os.fork()
    if pid == 0:
        theirs.close()
        channel.send(ours, {"from": "child"})
        os._exit(0)
    ours.close()
    assert channel.receive(theirs) == ({"from": "child"}, [])
    assert channel.receive(theirs) is None
    os.waitpid(pid, 0)
    theirs.close()


@pytest.mark.parametrize("character", ["x", "é", "\udcff", "😀", "\n"])
def test_a_huge_text_is_cut_and_the_rest_of_the_message_stays(ends, character):
    ours, theirs = ends
    channel.send(ours, {"event": "failed", "status": 500, "reason": character * 1_000_000})
    message, _ = channel.receive(theirs)
    assert message["reason"] == character * len(message["reason"])
    assert 1000 <= len(message["reason"]) < 1_000_000
    assert (message["event"], message["status"]) == ("failed", 500)


def test_a_text_that_fits_is_not_cut(ends):
    ours, theirs = ends
    channel.send(ours, {"reason": "x" * 60_000})
    assert channel.receive(theirs)[0]["reason"] == "x" * 60_000


def test_two_huge_texts_of_wide_characters_are_cut_so_that_both_fit(ends):
    ours, theirs = ends
    channel.send(ours, {"model": "😀" * 10_000, "reason": "😀" * 10_000})
    message, _ = channel.receive(theirs)
    assert set(message) == {"model", "reason"}

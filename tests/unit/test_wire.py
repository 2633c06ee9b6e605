"""The protocol: golden vectors, every way of cutting a message, and properties."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manymodels.errors import ProtocolError
from manymodels.wire import (
    Limits,
    Load,
    Parameter,
    Predict,
    Prediction,
    Reply,
    ReplyDecoder,
    Request,
    RequestDecoder,
    encode_load_reply,
    encode_message,
    encode_reply,
)

VECTORS = Path(__file__).parent / "wire_vectors"

LOAD = Load("m", "/opt/ml/models/m/model", 4, "handler.py:handle", None, "00aa-01")
REQUEST = Request(
    "7b0c2b1e-6c60-4d3c-9f3e-0f3a5f3a5f3a",
    [("Content-Type", "text/csv; charset=utf-8"), ("X-Name", "Zoë")],
    [Parameter("body", "text/csv", b"1,2,3\n"), Parameter("q", "", b"")],
)
MESSAGES = {
    "load": LOAD,
    "load-gpu": LOAD._replace(gpu_id=2, batch_size=1),
    "predict-empty": Predict([]),
    "predict-one": Predict([REQUEST]),
    "predict-batch": Predict([REQUEST, REQUEST._replace(request_id="other", headers=[])]),
}

text = st.text(max_size=40)
parameters = st.builds(Parameter, text, text, st.binary(max_size=300))
requests = st.builds(
    Request, text, st.lists(st.tuples(text, text), max_size=4), st.lists(parameters, max_size=3)
)
messages = st.one_of(
    st.builds(
        Load,
        text,
        text,
        st.integers(1, 2**31 - 1),
        text,
        st.one_of(st.none(), st.integers(0, 2**31 - 1)),
        text,
    ),
    st.builds(Predict, st.lists(requests, max_size=3)),
)
predictions = st.builds(
    Prediction,
    st.uuids().map(str),
    st.binary(max_size=400),
    st.text("abcdefg/+-.", max_size=40),
    st.integers(200, 599),
    st.text("abc ", max_size=20),
    st.dictionaries(st.text("abc-", min_size=1, max_size=20), text, max_size=3),
)


@pytest.mark.parametrize("name", MESSAGES)
def test_a_golden_vector_decodes_to_its_message_and_back(name):
    raw = (VECTORS / f"{name}.bin").read_bytes()
    decoder = RequestDecoder()
    decoder.feed(raw)
    assert list(decoder.messages()) == [MESSAGES[name]]
    assert encode_message(MESSAGES[name]) == raw


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_split_at_every_byte_comes_out_whole_and_once(name):
    raw = encode_message(MESSAGES[name])
    for cut in range(len(raw)):
        decoder = RequestDecoder()
        decoder.feed(raw[:cut])
        assert decoder.next_message() is None
        decoder.feed(raw[cut:])
        assert decoder.next_message() == MESSAGES[name]
        assert decoder.next_message() is None


@pytest.mark.parametrize("name", MESSAGES)
def test_trailing_bytes_stay_for_the_next_message(name):
    raw = encode_message(MESSAGES[name])
    decoder = RequestDecoder()
    decoder.feed(raw + raw[:-1])
    assert list(decoder.messages()) == [MESSAGES[name]]
    assert decoder.buffered == len(raw) - 1
    decoder.feed(raw[-1:])
    assert list(decoder.messages()) == [MESSAGES[name]]


@pytest.mark.parametrize("length", [-1, -2, -(2**31), 1 << 30 | 1, 2**31 - 1])
def test_a_length_outside_the_limits_is_a_protocol_error(length):
    decoder = RequestDecoder()
    decoder.feed(b"L" + struct.pack("!i", length))
    with pytest.raises(ProtocolError, match=str(length)):
        decoder.next_message()


def test_a_huge_length_within_the_limits_allocates_nothing_until_its_bytes_come():
    decoder = RequestDecoder()
    decoder.feed(b"L" + struct.pack("!i", 1 << 30))
    assert decoder.next_message() is None
    assert decoder.buffered == 5


def test_an_endless_list_is_a_protocol_error():
    decoder = RequestDecoder(Limits(items=8))
    empty_request = struct.pack("!iii", 0, -1, -1)
    decoder.feed(b"I" + empty_request * 9 + struct.pack("!i", -1))
    with pytest.raises(ProtocolError, match="more than 8 items"):
        decoder.next_message()


def test_an_unknown_command_is_a_protocol_error():
    decoder = RequestDecoder()
    decoder.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(ProtocolError, match="b'G'"):
        decoder.next_message()


def test_text_that_is_not_utf8_is_a_protocol_error():
    decoder = RequestDecoder()
    decoder.feed(b"L" + struct.pack("!i", 2) + b"\xff\xfe")
    with pytest.raises(ProtocolError, match="UTF-8"):
        decoder.next_message()


@given(messages)
def test_any_message_survives_the_round_trip(message):
    decoder = RequestDecoder()
    decoder.feed(encode_message(message))
    assert list(decoder.messages()) == [message]
    assert decoder.buffered == 0


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_are_messages_or_a_protocol_error_however_they_are_cut(raw, size):
    def outcome(chunks):
        decoder, found = RequestDecoder(), []
        try:
            for chunk in chunks:
                decoder.feed(chunk)
                found.extend(decoder.messages())
        except ProtocolError as error:
            return found, str(error)
        return found, decoder.buffered

    assert outcome([raw]) == outcome([raw[i : i + size] for i in range(0, len(raw), size)])


@given(st.lists(predictions, max_size=4))
def test_a_reply_survives_the_round_trip(sent):
    decoder = ReplyDecoder()
    decoder.feed(encode_reply(sent))
    (reply,) = decoder.messages()
    assert (reply.code, decoder.buffered) == (200, 0)
    assert [p._replace(phrase=p.phrase.strip()) for p in reply.predictions] == [
        p._replace(phrase=p.phrase.strip()) for p in sent
    ]


def test_a_load_reply_ends_with_the_process_id_that_the_frontend_parses():
    decoder = ReplyDecoder()
    decoder.feed(encode_load_reply(200, "loaded model m.", 4711))
    (reply,) = decoder.messages()
    assert reply == Reply(200, "loaded model m. [PID]:4711", [])


class Frontend:
    """The frontend's decoder as it is, flaws included: it throws where it should wait."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.position = raw, 0

    def integer(self) -> int:
        assert len(self.raw) - self.position >= 4, "the frontend throws: a number is cut"
        self.position += 4
        return struct.unpack_from("!i", self.raw, self.position - 4)[0]

    def length(self) -> int | None:
        """A length, or None where the frontend waits for more."""
        if len(self.raw) - self.position < 4:
            return None
        length = self.integer()
        return None if length > len(self.raw) - self.position else length

    def map(self, count: int) -> None:
        for _ in range(2 * count):
            length = self.length()
            assert length is not None, "the frontend throws: a map is cut"
            self.position += length

    def fields(self, count: int) -> bool:
        for _ in range(count):
            if (length := self.length()) is None:
                return False
            self.position += length
        return True

    def decode(self) -> bool:
        """Whether the reply is whole."""
        if len(self.raw) < 9:
            return False
        self.integer()
        if not self.fields(1):
            return False
        while (length := self.length()) != -1:
            if length is None:
                return False
            self.position += length
            if not self.fields(1):
                return False
            self.integer()
            if not self.fields(1) or (count := self.length()) is None:
                return False
            self.map(count)
            if not self.fields(1):
                return False
        return True


SIZES = [*range(16, 512, 16), *(1 << power for power in range(9, 17))]


def receive(raw: bytes, first_buffer: int) -> None:
    """Decode a reply as Netty reads it: a buffer that is filled is followed by a larger one."""
    index, received = SIZES.index(first_buffer), 0
    while received < len(raw):
        received += SIZES[index]
        index = min(index + 4, len(SIZES) - 1)
        whole = Frontend(raw[:received]).decode()
    assert whole


@given(st.lists(predictions, min_size=1, max_size=4), st.sampled_from(SIZES[3:]))
def test_no_way_of_receiving_a_reply_makes_the_frontend_throw(sent, first_buffer):
    receive(encode_reply(sent), first_buffer)


@pytest.mark.parametrize("first_buffer", SIZES[3:])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_replies_with_headers_are_not_cut_inside_them(first_buffer, batch):
    headers = {f"x-header-{number}": "v" * 40 for number in range(8)}
    one = Prediction("7" * 36, b"[1]", "text/plain", 200, "OK", headers)
    receive(encode_reply([one] * batch), first_buffer)


def test_the_frontend_throws_on_a_reply_that_is_not_placed():
    """The flaw itself: without placing, some content type is cut at 64 bytes."""

    def naive(content_type: str) -> bytes:
        parts = [struct.pack("!ii", 200, 0)]
        for field in (b"7" * 36, content_type.encode()):
            parts.append(struct.pack("!i", len(field)) + field)
        return b"".join(parts) + struct.pack("!iiii", 200, 0, 0, 1) + b"1" + struct.pack("!i", -1)

    def survives(content_type: str) -> bool:
        try:
            receive(naive(content_type), 64)
        except AssertionError:
            return False
        return True

    assert not survives("text/plain")
    assert survives("application/json")

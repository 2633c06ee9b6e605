"""Bytes to messages. A decoder buffers what it is fed and yields each message once whole.

Valid input gives messages and anything else a ProtocolError, whatever the chunks. A length is
checked before anything of that length is made, so a hostile one costs no memory; a decoder
that has raised is spent.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from manymodels.errors import ProtocolError
from manymodels.wire.messages import Load, Message, Parameter, Predict, Prediction, Reply, Request

_INT = struct.Struct("!i")
_END_OF_LIST = -1
_LOAD = ord("L")
_PREDICT = ord("I")

MessageT = TypeVar("MessageT")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one message may hold.

    The frontend itself bounds a request's body by ``max_request_size``; these are the bounds
    beyond which the bytes cannot have come from it.
    """

    field_bytes: int = 1 << 30
    items: int = 1 << 16


class _Incomplete(Exception):
    """The buffer ends inside a message that needs at least ``needed`` bytes."""

    def __init__(self, needed: int) -> None:
        self.needed = needed


class _Cursor:
    """Reads the protocol's primitives from the start of a buffer."""

    __slots__ = ("buffer", "limits", "position", "size")

    def __init__(self, buffer: bytearray, limits: Limits) -> None:
        self.buffer = buffer
        self.size = len(buffer)
        self.position = 0
        self.limits = limits

    def byte(self) -> int:
        if self.position >= self.size:
            raise _Incomplete(self.position + 1)
        self.position += 1
        return self.buffer[self.position - 1]

    def integer(self) -> int:
        start, end = self.position, self.position + 4
        if end > self.size:
            raise _Incomplete(end)
        self.position = end
        return int(_INT.unpack_from(self.buffer, start)[0])

    def content(self, length: int) -> bytes:
        """Return the bytes of a field whose length has been read."""
        if not 0 <= length <= self.limits.field_bytes:
            raise ProtocolError(
                f"a field of {length} bytes; 0 to {self.limits.field_bytes} are possible"
            )
        start, end = self.position, self.position + length
        if end > self.size:
            raise _Incomplete(end)
        self.position = end
        return bytes(self.buffer[start:end])

    def field(self) -> bytes:
        return self.content(self.integer())

    def text(self) -> str:
        return _utf8(self.field())

    def texts(self) -> list[str]:
        """Return a list's texts; all its items' fields in one flat list.

        A request is mostly this, so the primitives are written out.
        """
        buffer, size, position = self.buffer, self.size, self.position
        longest, unpack = self.limits.field_bytes, _INT.unpack_from
        texts: list[str] = []
        while True:
            start = position + 4
            if start > size:
                raise _Incomplete(start)
            (length,) = unpack(buffer, position)
            if length == _END_OF_LIST and not len(texts) % 2:
                self.position = start
                return texts
            position = start + length
            if not 0 <= length <= longest or position > size or len(texts) > 2 * self.limits.items:
                self.position = start
                self._explain(length, len(texts) // 2)
            texts.append(_utf8(buffer[start:position]))

    def _explain(self, length: int, items: int) -> NoReturn:
        """Raise what is wrong with a field that cannot be taken."""
        if items >= self.limits.items:
            raise ProtocolError(f"a list of more than {self.limits.items} items")
        self.content(length)
        raise AssertionError("the field could have been taken")

    def list_lengths(self) -> Iterator[int]:
        """Yield the first length of each item until the list ends."""
        for _ in range(self.limits.items + 1):
            length = self.integer()
            if length == _END_OF_LIST:
                return
            yield length
        raise ProtocolError(f"a list of more than {self.limits.items} items")


class _Decoder(Generic[MessageT]):
    """Feeds a buffer to ``_message`` until it holds no whole message."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._buffer = bytearray()
        self._limits = limits or Limits()
        self._needed = 1

    @property
    def buffered(self) -> int:
        """Bytes received that are not part of a message yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Add bytes as they came from the connection."""
        self._buffer += data

    def messages(self) -> Iterator[MessageT]:
        """Yield the messages that are whole; ProtocolError where the bytes cannot be one."""
        while (message := self.next_message()) is not None:
            yield message

    def next_message(self) -> MessageT | None:
        """Return the next whole message, or None until more bytes have come."""
        if len(self._buffer) < self._needed:
            return None
        cursor = _Cursor(self._buffer, self._limits)
        try:
            message = self._message(cursor)
        except _Incomplete as incomplete:
            self._needed = incomplete.needed
            return None
        del self._buffer[: cursor.position]
        self._needed = 1
        return message

    def _message(self, cursor: _Cursor) -> MessageT:
        raise NotImplementedError


class RequestDecoder(_Decoder[Message]):
    """What the frontend sends: Load and Predict."""

    def _message(self, cursor: _Cursor) -> Message:
        command = cursor.byte()
        if command == _PREDICT:
            return _predict(cursor)
        if command == _LOAD:
            return _load(cursor)
        raise ProtocolError(f"an unknown command: {bytes([command])!r}")


class ReplyDecoder(_Decoder[Reply]):
    """What the backend sends: the other direction, for tests and tools."""

    def _message(self, cursor: _Cursor) -> Reply:
        code = cursor.integer()
        message = cursor.text()
        predictions = [_prediction(cursor, length) for length in cursor.list_lengths()]
        return Reply(code, message, predictions)


def _load(cursor: _Cursor) -> Load:
    model_name = cursor.text()
    model_path = cursor.text()
    batch_size = cursor.integer()
    handler = cursor.text()
    gpu_id = cursor.integer()
    io_fd = cursor.text()
    return Load(
        model_name, model_path, max(1, batch_size), handler, gpu_id if gpu_id >= 0 else None, io_fd
    )


def _predict(cursor: _Cursor) -> Predict:
    return Predict([_request(cursor, length) for length in cursor.list_lengths()])


def _request(cursor: _Cursor, id_length: int) -> Request:
    request_id = _utf8(cursor.content(id_length))
    headers = [(_utf8(cursor.content(length)), cursor.text()) for length in cursor.list_lengths()]
    parameters = [
        Parameter(_utf8(cursor.content(length)), cursor.text(), cursor.field())
        for length in cursor.list_lengths()
    ]
    return Request(request_id, headers, parameters)


def _prediction(cursor: _Cursor, id_length: int) -> Prediction:
    request_id = _utf8(cursor.content(id_length))
    content_type = cursor.text()
    status = cursor.integer()
    phrase = cursor.text()
    count = cursor.integer()
    if not 0 <= count <= cursor.limits.items:
        raise ProtocolError(f"{count} headers; 0 to {cursor.limits.items} are possible")
    headers = {cursor.text(): cursor.text() for _ in range(count)}
    return Prediction(request_id, cursor.field(), content_type, status, phrase, headers)


def _utf8(raw: bytes | bytearray) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"text that is not UTF-8: {bytes(raw[:40])!r}") from error

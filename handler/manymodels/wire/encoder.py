"""Messages to bytes.

A reply must survive the frontend's own decoder, which parses whatever has arrived from the
start each time and throws, instead of waiting, when the bytes end inside a prediction's status
or its header map; the connection is lost then. So a reply is one write, and what is fragile in
it is placed where no receive buffer of the frontend ends:

- Netty's buffers (AdaptiveRecvByteBufAllocator) have sizes from a table of multiples of 16, so
  each status stands clear of the multiples of 16. The padding is in text nobody reads: the
  reply's message before the first prediction, the previous reason phrase before the others.
- A header map is too long for that. It stands in a window where no buffer ends whatever size
  the first one has: a buffer that is filled is followed by a larger one, so the first bytes of a
  reply, its message, are made long enough to have grown them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from manymodels.wire.messages import Load, Message, Predict, Prediction, Request

_INT = struct.Struct("!i")
_TWO_INTS = struct.Struct("!ii")
_END = _INT.pack(-1)
_BLOCK = 16
_FIRST_SAFE, _LAST_SAFE = 1, 12
_WINDOWS = ((10_496, 16_384), (36_832, 65_536))
"""From and to which byte of a reply no buffer ends, from every size that the first may have."""


def encode_load_reply(code: int, message: str, pid: int) -> bytes:
    """Return the reply to a Load. The frontend reads the model's process id off its end."""
    return _INT.pack(code) + _field(f"{message} [PID]:{pid}".encode()) + _END


def encode_reply(predictions: Sequence[Prediction]) -> bytes:
    """Return the reply to a Predict, to be sent in one write.

    More than 28 KiB between the first and the last header of a batch cannot be placed safely.
    """
    heads = [_field(p.request_id.encode()) + _field(p.content_type.encode()) for p in predictions]
    message_bytes = _message_bytes(predictions, heads)
    out = bytearray(_TWO_INTS.pack(200, message_bytes) + b" " * message_bytes)
    for index, prediction in enumerate(predictions):
        out += heads[index]
        following = heads[index + 1] if index + 1 < len(heads) else b""
        out += _tail(prediction, len(out), len(following))
    return bytes(out + _END)


def encode_message(message: Message) -> bytes:
    """Return a Load or a Predict as the frontend sends it."""
    if isinstance(message, Load):
        return _encode_load(message)
    return _encode_predict(message)


def _message_bytes(predictions: Sequence[Prediction], heads: Sequence[bytes]) -> int:
    """Return how long the message must be for what follows to stand safely."""
    if not heads:
        return 0
    start = 0
    if any(prediction.headers for prediction in predictions):
        fragile = sum(map(len, heads)) + sum(_tail_bytes(p) + _BLOCK for p in predictions)
        start = next((low for low, high in _WINDOWS if fragile < high - low), _WINDOWS[-1][0])
    return start + _shift_to_safety(_TWO_INTS.size + start + len(heads[0]))


def _tail_bytes(prediction: Prediction) -> int:
    headers = sum(8 + len(k.encode()) + len(v.encode()) for k, v in prediction.headers.items())
    return 16 + len(prediction.phrase.encode()) + headers + len(prediction.body)


def _shift_to_safety(status_position: int) -> int:
    offset = status_position % _BLOCK
    return 0 if _FIRST_SAFE <= offset <= _LAST_SAFE else (_BLOCK + _FIRST_SAFE - offset) % _BLOCK


def _tail(prediction: Prediction, position: int, following: int) -> bytes:
    """Return a prediction from its status on, padded so that the next status stands safely.

    ``position`` is where it starts in the reply, ``following`` the bytes between its end and the
    next prediction's status, 0 for the last.
    """
    phrase = prediction.phrase.encode()
    if following:
        phrase += b" " * _shift_to_safety(position + _tail_bytes(prediction) + following)
    headers = b"".join(
        _field(name.encode()) + _field(value.encode()) for name, value in prediction.headers.items()
    )
    return b"".join(
        (
            _INT.pack(prediction.status),
            _field(phrase),
            _INT.pack(len(prediction.headers)),
            headers,
            _field(prediction.body),
        )
    )


def _encode_load(load: Load) -> bytes:
    return b"".join(
        (
            b"L",
            _field(load.model_name.encode()),
            _field(load.model_path.encode()),
            _INT.pack(load.batch_size),
            _field(load.handler.encode()),
            _INT.pack(-1 if load.gpu_id is None else load.gpu_id),
            _field(load.io_fd.encode()),
        )
    )


def _encode_predict(predict: Predict) -> bytes:
    return b"I" + b"".join(map(_encode_request, predict.requests)) + _END


def _encode_request(request: Request) -> bytes:
    headers: Iterable[bytes] = (
        _field(name.encode()) + _field(value.encode()) for name, value in request.headers
    )
    parameters: Iterable[bytes] = (
        _field(p.name.encode()) + _field(p.content_type.encode()) + _field(p.value)
        for p in request.parameters
    )
    return b"".join((_field(request.request_id.encode()), *headers, _END, *parameters, _END))


def _field(raw: bytes) -> bytes:
    return _INT.pack(len(raw)) + raw

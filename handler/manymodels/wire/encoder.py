"""Messages to bytes.

A reply must survive the frontend's own decoder, which parses whatever has arrived from the
start each time and throws, instead of waiting, when the bytes end inside a prediction's status
or its header map; the connection is lost then. Two things follow, both here:

- Netty fills receive buffers whose sizes are multiples of 16 (AdaptiveRecvByteBufAllocator), so
  a reply sent in one write is only ever cut at multiples of 16. Each status is placed where no
  such cut falls into it: padding goes into text nobody reads, the reply's message for the first
  prediction and the previous reason phrase for the others.
- A header map is too long to be placed so. It starts a segment of its own: the sender waits
  until the frontend has taken the segment before, and a map in a fresh buffer is not cut. The
  reply's message is then long enough to have grown that buffer beyond the map.
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
# Reading this much grows Netty's receive buffer to 4 KiB or more from any size before.
_GROWING_MESSAGE = 4096


def encode_load_reply(code: int, message: str, pid: int) -> bytes:
    """Return the reply to a Load. The frontend reads the model's process id off its end."""
    return _INT.pack(code) + _field(f"{message} [PID]:{pid}".encode()) + _END


def encode_reply(predictions: Sequence[Prediction]) -> list[bytes]:
    """Return the reply to a Predict as segments.

    Each segment is one write, made when the frontend has taken the one before. All but the
    replies with extra headers are one segment.
    """
    heads = [_field(p.request_id.encode()) + _field(p.content_type.encode()) for p in predictions]
    message_bytes = _GROWING_MESSAGE if any(p.headers for p in predictions) else 0
    if heads:
        message_bytes += _shift_to_safety(_TWO_INTS.size + message_bytes + len(heads[0]))
    segments = [bytearray(_TWO_INTS.pack(200, message_bytes) + b" " * message_bytes)]
    for index, prediction in enumerate(predictions):
        segments[-1] += heads[index]
        if prediction.headers:
            # The frontend waits safely while the field before the status is a byte short.
            segments.append(segments[-1][-1:])
            del segments[-2][-1:]
        following = heads[index + 1] if index + 1 < len(heads) else b""
        segments[-1] += _tail(prediction, len(segments[-1]), len(following))
    segments[-1] += _END
    return [bytes(segment) for segment in segments]


def encode_message(message: Message) -> bytes:
    """Return a Load or a Predict as the frontend sends it."""
    if isinstance(message, Load):
        return _encode_load(message)
    return _encode_predict(message)


def _shift_to_safety(status_position: int) -> int:
    offset = status_position % _BLOCK
    return 0 if _FIRST_SAFE <= offset <= _LAST_SAFE else (_BLOCK + _FIRST_SAFE - offset) % _BLOCK


def _tail(prediction: Prediction, position: int, following: int) -> bytes:
    """Return a prediction from its status on, padded so that the next status stands safely.

    ``position`` is where it starts in its segment, ``following`` the bytes between its end and
    the next prediction's status, 0 for the last.
    """
    headers = b"".join(
        _field(name.encode()) + _field(value.encode()) for name, value in prediction.headers.items()
    )
    phrase = prediction.phrase.encode()
    if following:
        size = 16 + len(phrase) + len(headers) + len(prediction.body)
        phrase += b" " * _shift_to_safety(position + size + following)
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

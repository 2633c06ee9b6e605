"""Multi Model Server's frontend-backend protocol, sans-I/O: bytes in, messages out, and back.

Numbers are big-endian int32. A field is its length and its bytes; a list ends with -1.
"""

from manymodels.wire.decoder import Limits, ReplyDecoder, RequestDecoder
from manymodels.wire.encoder import encode_load_reply, encode_message, encode_reply
from manymodels.wire.messages import (
    Load,
    Message,
    Parameter,
    Predict,
    Prediction,
    Reply,
    Request,
)

__all__ = [
    "Limits",
    "Load",
    "Message",
    "Parameter",
    "Predict",
    "Prediction",
    "Reply",
    "ReplyDecoder",
    "Request",
    "RequestDecoder",
    "encode_load_reply",
    "encode_message",
    "encode_reply",
]

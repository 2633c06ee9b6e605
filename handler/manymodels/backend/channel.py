"""Messages between our own processes: one JSON object a packet, with descriptors."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

_PACKET_BYTES = 65536
_MOST_DESCRIPTORS = 8


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a channel. It keeps packets apart and ends with the last writer."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; long texts in it are cut to fit a packet."""
    packet = json.dumps(message).encode()
    if len(packet) > _PACKET_BYTES:
        cut = {k: v[:4096] if isinstance(v, str) else v for k, v in message.items()}
        packet = json.dumps(cut).encode()
    socket.send_fds(channel, [packet], list(descriptors))


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next message and its descriptors, or None at the end of the channel."""
    packet, descriptors, _, _ = socket.recv_fds(channel, _PACKET_BYTES, _MOST_DESCRIPTORS)
    return (json.loads(packet), list(descriptors)) if packet else None

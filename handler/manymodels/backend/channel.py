"""Messages between our own processes: one JSON object a packet, with descriptors."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_DESCRIPTOR = struct.Struct("i")
_PACKET_BYTES = 65536
_MOST_DESCRIPTORS = 8
_CUT_CHARACTERS = 1000


def pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a channel. It keeps packets apart and ends with the last writer."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message; long texts in it are cut to fit a packet."""
    packet = json.dumps(message).encode()
    if len(packet) > _PACKET_BYTES:
        cut = {k: v[:_CUT_CHARACTERS] if isinstance(v, str) else v for k, v in message.items()}
        packet = json.dumps(cut).encode()
    socket.send_fds(channel, [packet], list(descriptors))


def receive(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Return the next message and its descriptors, or None at the end of the channel."""
    packet, descriptors = receive_bytes(channel, _PACKET_BYTES, _MOST_DESCRIPTORS)
    return (json.loads(packet), descriptors) if packet else None


def receive_bytes(connection: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Return bytes and descriptors that came together.

    Like socket.recv_fds, but a program that this process starts does not inherit them.
    """
    space = socket.CMSG_SPACE(most * _DESCRIPTOR.size)
    data, ancillary, _, _ = connection.recvmsg(size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(rights) - len(rights) % _DESCRIPTOR.size
            descriptors += [number for (number,) in _DESCRIPTOR.iter_unpack(rights[:whole])]
    return data, descriptors

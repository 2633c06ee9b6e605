"""What a launcher hands the zygote: the frontend's arguments, the environment, its stdio."""

from __future__ import annotations

import argparse
import os
import socket
import struct
from dataclasses import dataclass
from typing import NoReturn

from manymodels.backend import channel
from manymodels.errors import ProtocolError

_MOST_BYTES = 4 * 1024 * 1024
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a model, as the frontend's command line says it."""

    model_name: str
    model_path: str
    handler: str
    socket_name: str | None
    port: int | None
    tmp_dir: str
    environment: dict[str, str]

    @property
    def number(self) -> str:
        """The frontend's number of this launch, which its threads' names have, too."""
        return str(self.port) if self.socket_name is None else self.socket_name.rpartition(".")[2]


class LaunchReceiver:
    """Collects a launcher's one message from a non-blocking connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.stdio: list[int] = []
        self._data = b""

    @property
    def pid(self) -> int:
        """The launcher's process id, as the kernel knows it."""
        raw = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(raw)[0])

    def receive(self) -> Launch | None:
        """Return the launch once it is whole.

        Raises:
            ProtocolError: the bytes are no launch, or end too early.
            EOFError: none came; a launcher only looks whether anybody listens.
        """
        data, descriptors = channel.receive_bytes(self.connection, 1 << 18, 3)
        self.stdio += descriptors
        if not data and not self._data:
            raise EOFError
        if not data:
            raise ProtocolError("a launcher went away before it had said what to launch")
        self._data += data
        size = int.from_bytes(self._data[:4], "big")
        if size > _MOST_BYTES:
            raise ProtocolError(f"a launch of {size} bytes")
        if len(self._data) < 4 + size:
            return None
        if len(self.stdio) != 3:
            raise ProtocolError("a launch without stdio")
        return parse(self._data[4 : 4 + size])


def parse(payload: bytes) -> Launch:
    """Parse the launcher's fields: a count, that many arguments, the environment.

    Raises:
        ProtocolError: they do not make a launch.
    """
    count, _, rest = payload.partition(b"\0")
    fields = [os.fsdecode(field) for field in rest.split(b"\0")]
    arguments_end = int(count) if count.isdigit() and len(count) < 6 else -1
    if not 0 <= arguments_end <= len(fields):
        raise ProtocolError("a launch whose fields are not counted")
    arguments = _Parser().parse_args(fields[:arguments_end])
    environment = dict(field.split("=", 1) for field in fields[arguments_end:] if "=" in field)
    if (arguments.sock_name is None) == (arguments.port is None):
        raise ProtocolError("a launch needs one of --sock-name and --port")
    return Launch(
        arguments.model_name,
        arguments.model_path,
        arguments.handler,
        arguments.sock_name,
        arguments.port,
        arguments.tmp_dir,
        environment,
    )


class _Parser(argparse.ArgumentParser):
    """The frontend's options, as mms.arg_parser defines them."""

    def __init__(self) -> None:
        super().__init__(prog="model_service_worker", add_help=False, allow_abbrev=False)
        self.add_argument("--sock-type", choices=("unix", "tcp"), required=True)
        self.add_argument("--sock-name")
        self.add_argument("--port", type=int)
        self.add_argument("--handler", required=True)
        self.add_argument("--model-path", required=True)
        self.add_argument("--model-name", required=True)
        self.add_argument("--preload-model")
        self.add_argument("--tmp-dir", required=True)

    def error(self, message: str) -> NoReturn:
        raise ProtocolError(f"a launch that cannot be read: {message}")

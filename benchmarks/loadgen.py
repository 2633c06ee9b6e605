"""A load generator that costs little: raw sockets, whole requests made beforehand, one thread.

It understands only what the frontend sends: HTTP/1.1 with a Content-Length. Every response must
be a 200 with the very body expected; anything else ends the run.
"""

from __future__ import annotations

import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle, islice
from typing import NamedTuple

from benchmarks.workload import HOST

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNK = 1 << 16


class UnexpectedAnswer(Exception):
    """A server answered something else than it should have."""


class Exchange(NamedTuple):
    """A request and the body of its answer."""

    request: bytes
    body: bytes


class Drive(NamedTuple):
    """How long a number of exchanges took, and the part of it the generator itself computed."""

    requests: int
    seconds: float
    own_seconds: float


def split_response(received: bytes) -> tuple[int, bytes] | None:
    """Return the status and the body, or None while the response is not whole."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    length = _CONTENT_LENGTH.search(received, 0, head_end)
    if length is None:
        raise UnexpectedAnswer(f"no Content-Length in {received[:head_end]!r}")
    body_end = head_end + 4 + int(length[1])
    if len(received) < body_end:
        return None
    if len(received) > body_end:
        raise UnexpectedAnswer(f"more than one response: {received!r}")
    return int(received[9:12]), received[head_end + 4 :]


class Connection:
    """One keep-alive connection with at most one request in flight."""

    def __init__(self, port: int, timeout: float) -> None:
        self.socket = socket.create_connection((HOST, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self) -> tuple[int, bytes] | None:
        """Read once; return the status and the body when they are whole."""
        chunk = self.socket.recv(_CHUNK)
        if not chunk:
            raise UnexpectedAnswer(f"connection closed after {self._received!r}")
        self._received += chunk
        response = split_response(self._received)
        if response is not None:
            self._received = b""
        return response

    def ask(self, request: bytes) -> bytes:
        """Return the body of the answer to a request, which must be a 200."""
        self.socket.sendall(request)
        while (response := self.receive()) is None:
            pass
        status, body = response
        if status != 200:
            raise UnexpectedAnswer(f"{status}: {body!r}")
        return body


def time_each(port: int, exchange: Exchange, count: int, timeout: float) -> list[float]:
    """Return the seconds that each of ``count`` requests took, one after the other."""
    seconds = []
    clock = time.perf_counter
    with Connection(port, timeout) as connection:
        for _ in range(count):
            start = clock()
            body = connection.ask(exchange.request)
            seconds.append(clock() - start)
            if body != exchange.body:
                raise UnexpectedAnswer(f"{body!r} instead of {exchange.body!r}")
    return seconds


def drive(
    port: int, exchanges: Sequence[Exchange], connections: int, count: int, timeout: float
) -> Drive:
    """Keep ``connections`` requests in flight until ``count`` are answered.

    Each connection walks over all the exchanges, from a starting point of its own.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(Connection(port, timeout)) for _ in range(connections)]
        poller = stack.enter_context(select.epoll())
        lanes = {}
        for index, connection in enumerate(opened):
            connection.socket.setblocking(False)
            poller.register(connection.socket, select.EPOLLIN)
            lanes[connection.socket.fileno()] = _Lane(connection, exchanges, index)
        start, own_start = time.perf_counter(), time.process_time()
        _run(poller, lanes, count, start + timeout)
        return Drive(count, time.perf_counter() - start, time.process_time() - own_start)


class _Lane:
    """A connection and the exchanges it goes through."""

    def __init__(self, connection: Connection, exchanges: Sequence[Exchange], offset: int) -> None:
        self._connection = connection
        self._exchanges: Iterator[Exchange] = islice(cycle(exchanges), offset, None)
        self._current = exchanges[0]

    def send(self) -> None:
        self._current = next(self._exchanges)
        if self._connection.socket.send(self._current.request) != len(self._current.request):
            raise UnexpectedAnswer("the socket's buffer cannot hold a request")

    def receive(self) -> bool:
        """Read once; say whether an answer is whole."""
        response = self._connection.receive()
        if response is not None and response != (200, self._current.body):
            raise UnexpectedAnswer(f"{response!r} instead of {self._current.body!r}")
        return response is not None


def _run(poller: select.epoll, lanes: dict[int, _Lane], count: int, deadline: float) -> None:
    sent = 0
    for lane in list(lanes.values())[:count]:
        lane.send()
        sent += 1
    answered = 0
    while answered < count:
        ready = poller.poll(1.0)
        if time.perf_counter() > deadline:
            raise TimeoutError(f"{answered} of {count} requests answered in time")
        for descriptor, _ in ready:
            lane = lanes[descriptor]
            if not lane.receive():
                continue
            answered += 1
            if sent < count:
                lane.send()
                sent += 1

"""The messages of the protocol. Named tuples: they are made once a request, on the hot path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias


class Load(NamedTuple):
    """The frontend asks a connection's backend to load its model (command ``L``)."""

    model_name: str
    model_path: str
    batch_size: int
    handler: str
    gpu_id: int | None
    io_fd: str
    """Names the files ``<tmp>/<io_fd>-stdout`` and ``-stderr`` that the frontend will open."""


class Parameter(NamedTuple):
    """One input of a request: a query parameter, a form field, or ``body``."""

    name: str
    content_type: str
    """The media type without its attributes; empty where the client sent none."""
    value: bytes


class Request(NamedTuple):
    """One client's request."""

    request_id: str
    headers: Sequence[tuple[str, str]]
    parameters: Sequence[Parameter]


class Predict(NamedTuple):
    """A batch of requests for one handler call (command ``I``)."""

    requests: Sequence[Request]


class Prediction(NamedTuple):
    """The answer to one request of a batch."""

    request_id: str
    body: bytes
    content_type: str = ""
    status: int = 200
    phrase: str = ""
    headers: Mapping[str, str] = {}


class Reply(NamedTuple):
    """What the backend answers to either command.

    Any code but 200 becomes one JSON error for every request of the batch, with ``message``.
    """

    code: int
    message: str
    predictions: Sequence[Prediction] = ()


Message: TypeAlias = Load | Predict

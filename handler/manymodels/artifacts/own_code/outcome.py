"""What answers an exception: a status, a type and a message, and never a traceback."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from manymodels.errors import ManyModelsError

_TRACEBACK = "Traceback (most recent call last)"


class Outcome(NamedTuple):
    """The fields of `errors.error_body`. ``status`` is 400 to 599, named by HTTP or not."""

    status: int
    type_name: str
    message: str


def status_of(error: BaseException) -> Outcome:
    """Return what answers an exception, whoever raised it.

    Our own errors bring their status. So do those of the SageMaker inference toolkit, and any
    with an integer ``status_code`` of 400 to 599, and Multi Model Server's PredictionException,
    with its ``error_code``. The toolkit's UnsupportedFormatError, which has none, is 415, or 406
    from its encoder. A MemoryError is 507, whatever else is 500.
    """
    name = type(error).__name__
    if isinstance(error, ManyModelsError):
        return Outcome(error.status, name, error.message)
    if isinstance(error, MemoryError):
        return Outcome(507, "OutOfMemory", "Out of resources")
    message = _message(error)
    for attribute in ("status_code", "error_code"):
        status = getattr(error, attribute, None)
        # Database drivers and others have error codes of their own, without such a message.
        certain = attribute == "status_code" or isinstance(getattr(error, "message", None), str)
        if certain and isinstance(status, int) and 400 <= status <= 599:
            return Outcome(int(status), name, message)
    if name == "UnsupportedFormatError" and type(error).__module__.startswith("sagemaker_"):
        encoding = "encode" in _raised_in(error.__traceback__)
        return Outcome(406 if encoding else 415, name, message)
    return Outcome(500, name, message)


def _message(error: BaseException) -> str:
    """Return an exception's own message, or its text, or its type if it has neither."""
    own = getattr(error, "message", None)
    try:
        text = own if isinstance(own, str) and own else str(error)
    except Exception:
        return f"{type(error).__name__}, which cannot be put into words"
    # Some put a worker process's traceback into their text.
    return text.partition(_TRACEBACK)[0].strip() or type(error).__name__


def _raised_in(traceback: TracebackType | None) -> str:
    """Return the name of the module in whose code an exception was raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name

"""The one exception tree.

Every class carries the HTTP status that answers it, so no caller translates errors by hand.
The JSON shape is that of Multi Model Server's frontend: ``{"code", "type", "message"}``.
"""

from __future__ import annotations

from typing import ClassVar


class ManyModelsError(Exception):
    """Base of all errors that manymodels raises on purpose."""

    status: ClassVar[int] = 500

    @property
    def message(self) -> str:
        return str(self)


class ProtocolError(ManyModelsError):
    """Bytes on the frontend's connection that are not a message of its protocol."""


class SettingsError(ManyModelsError):
    """A setting that has no meaning: names the variable, its value and what it may be."""


class ServeError(ManyModelsError):
    """``serve`` cannot start or go on: no Java, a port in use, a part that died."""


class BadRequest(ManyModelsError):
    """The request's body, or its shape, is not what the model takes."""

    status = 400


class NotAcceptable(ManyModelsError):
    """None of the media types in Accept can be produced."""

    status = 406


class PayloadTooLarge(ManyModelsError):
    """A request or a response above the size that the frontend carries."""

    status = 413


class UnsupportedMediaType(ManyModelsError):
    """A Content-Type that no decoder reads."""

    status = 415


class ModelLoadError(ManyModelsError):
    """The model's directory cannot become a model."""


class OutOfMemory(ManyModelsError):
    """No memory for a load or a request; SageMaker unloads other models on a load's 507."""

    status = 507


class DirectoryInUse(ManyModelsError):
    """A model directory that somebody uses, fills or removes, and so cannot be had now.

    A load that meets it, or the next, is answered by 507: SageMaker then makes room and tries
    again, and finds the directory whole, or gone and has to fetch it.
    """

    status = 507


class DirectoryGone(ManyModelsError):
    """A model directory that was there when its load began, and has been removed since."""

    status = 507


def error_body(status: int, type_name: str, message: str) -> dict[str, object]:
    """Return the error's JSON object as the frontend shapes its own."""
    return {"code": status, "type": type_name, "message": message}

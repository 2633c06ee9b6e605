"""What a request's headers say, and its body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from manymodels import content
from manymodels.artifacts.outputs import parse_outputs
from manymodels.errors import BadRequest, SettingsError, UnsupportedMediaType

CUSTOM_ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
OUTPUT_VARIABLE = "SAGEMAKER_INFERENCE_OUTPUT"


class Headers(NamedTuple):
    """The headers that matter, whatever case they came in."""

    content_type: str = content.JSON
    accept: str | None = None
    attributes: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, Any]) -> Headers:
        content_type, accept, attributes = content.JSON, None, None
        for name, value in headers.items():
            # MMS keeps the parameters among the headers, each with a dict for a value.
            if isinstance(value, str):
                lowered = name.lower()
                if lowered == "content-type":
                    content_type = value or content_type
                elif lowered == "accept":
                    accept = value
                elif lowered == CUSTOM_ATTRIBUTES:
                    attributes = value
        return cls(content_type, accept, attributes)

    def outputs(self) -> tuple[str, ...] | None:
        """Return the outputs that custom attributes such as ``a=1; NAME=labels`` name, if any."""
        for attribute in (self.attributes or "").split(";"):
            name, sign, value = attribute.partition("=")
            if sign and name.strip().upper() == OUTPUT_VARIABLE:
                return parse_outputs(value)
        return None


def body_of(item: Mapping[str, Any]) -> Any:
    """Return a request's body; UnsupportedMediaType if the frontend took it apart as a form."""
    if "body" not in item:
        raise UnsupportedMediaType(
            "the request came as a form or in parts, without a body of its own: "
            f"send the rows as the body, with Content-Type {content.CSV} or {content.JSON}"
        )
    return item["body"]


def outputs_of_all(text: str | None) -> tuple[str, ...]:
    """Return the outputs that the environment names for all models; SettingsError if none is."""
    try:
        return parse_outputs(text or "")
    except BadRequest as error:
        raise SettingsError(f"{OUTPUT_VARIABLE}={text!r}: {error}") from None

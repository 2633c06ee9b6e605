"""The context that users' functions get: of one request, at index 0."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any


class Headers(dict[str, Any]):
    """A request's headers as MMS has them, found by their names in any case.

    HTTP's header names have no case, and clients differ in how they write
    X-Amzn-SageMaker-Custom-Attributes.
    """

    def __missing__(self, name: str) -> Any:
        wanted = name.lower() if isinstance(name, str) else None
        for key, value in self.items():
            if key.lower() == wanted:
                return value
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return self.get(name) is not None

    def get(self, name: Any, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


class _Processor:
    """One request's processor: its headers in any case, all else the real one's own."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._headers = Headers(processor.get_request_properties())

    def get_request_properties(self) -> Mapping[str, Any]:
        return self._headers

    def get_request_property(self, key: str) -> Any:
        return self._headers.get(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


def of_request(context: Any, index: int) -> Any:
    """Return a view of an ``mms.context.Context`` in which request ``index`` has the index 0.

    What is set through it, such as a response's status, content type and headers, and metrics,
    arrives in ``context``. ``context`` itself is not changed.
    """
    view = copy.copy(context)
    request_id = context.get_request_id(index)
    view.request_ids = {0: request_id}
    view.request_processor = [_Processor(context.request_processor[index])]
    metrics = getattr(context, "metrics", None)
    if isinstance(getattr(metrics, "request_ids", None), dict):
        view.metrics = copy.copy(metrics)  # it adds to the same list
        view.metrics.request_ids = {0: request_id}
    return view

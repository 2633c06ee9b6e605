"""A handler service of your own: every answer says which model gave it.

It leaves the model and the request to manymodels' generic handler, which a handler need not do:
``handle`` may load and answer by itself. It is called with None to load the model, and then with
a list of requests, a dict with ``body`` each; ``context`` is Multi Model Server's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manymodels import service


def handle(data: list[Mapping[str, Any]] | None, context: Any) -> list[bytes] | None:
    """Load the model of ``context``, or answer the requests as the generic handler does."""
    answers = service.handle(data, context)
    for index in range(len(answers or ())):
        context.set_response_header(index, "X-Model", context.model_name)
    return answers

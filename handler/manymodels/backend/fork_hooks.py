"""Python's own at-fork hooks, put off.

``threading``, ``logging``, ``random`` and others register what a fork must mend where there are
threads. The zygote has one thread and no lock is held when it forks, so its forks need none of it,
and running it dirties nearly a megabyte a model. A model process may well fork with threads
of its own: it registers them for real.

``defer`` must run before those modules are imported, hence in this module nothing is.
"""

from __future__ import annotations

import os

_register = os.register_at_fork
_deferred = []  # type: list[dict[str, object]]


def defer() -> None:
    """Keep what is registered from now on, instead of registering it."""

    def keep(**hooks: object) -> None:
        _deferred.append(hooks)

    os.register_at_fork = keep


def restore() -> None:
    """Register for real what was kept."""
    os.register_at_fork = _register
    for hooks in _deferred:
        _register(**hooks)  # type: ignore[arg-type]
    _deferred.clear()

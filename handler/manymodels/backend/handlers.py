"""Any handler that a stock MMS worker runs, found and called as it does, errors told apart.

Two differences, both deliberate: an ``initialize`` that raises fails the load (the stock loader
logs it and answers 200), and a handler named by a path needs no ``:function``.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from manymodels.errors import ModelLoadError
from manymodels.wire import Load

EntryPoint: TypeAlias = Callable[[Any, Any], Any]


class HandlerRefused(ModelLoadError):
    """Safe mode does not run this handler; nothing of it has been imported."""


class Handler(NamedTuple):
    """A loaded model: what to call, and the mms.context.Context it is called with."""

    entry_point: EntryPoint
    context: Any


def load(request: Load, only: Collection[str] | None = None) -> Handler:
    """Import a model's handler and let it load the model.

    Args:
        only: The handlers that may be run; any if None.

    Raises:
        ModelLoadError: there is no such module, function or class.
        HandlerRefused: it may not be run.
        Exception: whatever the handler raises.
    """
    directory = Path(request.model_path)
    if only is not None and request.handler not in only:
        raise HandlerRefused(
            f"MANYMODELS_ARTIFACTS=safe runs {' and '.join(only)} only, and this load, or the "
            f"model's manifest, names {request.handler!r}: name none there; a handler of your own "
            "goes outside of the models and into SAGEMAKER_HANDLER"
        )
    manifest = _manifest(directory / "MAR-INF" / "MANIFEST.json")
    if manifest is None and (directory / "MANIFEST.json").exists():
        if only is not None:
            raise HandlerRefused(
                "MANYMODELS_ARTIFACTS=safe runs no archive of MMS 0.4, which MANIFEST.json makes "
                "this model: remove that file"
            )
        return _load_legacy(request)
    module_name, _, function_name = request.handler.partition(":")
    module = _import(module_name, directory, safe=only is not None)
    context = _context(request, manifest)
    entry_point = getattr(module, function_name or "handle", None)
    if entry_point is None:
        return Handler(_initialized(module, function_name, context), context)
    entry_point(None, context)
    return Handler(entry_point, context)


def search_path(
    handler: str, directory: str, inherited: str, base: Sequence[str], *, safe: bool = False
) -> list[str]:
    """Return a model's sys.path: its handler's directory, its own, then what the worker has.

    ``inherited`` is the PYTHONPATH that the frontend composed; its entries that are no
    directories (it puts in handlers' names) are left out. With ``safe`` nothing of the model's
    directory can be imported.
    """
    module_path = handler.partition(":")[0]
    first = [os.path.join(directory, os.path.dirname(module_path))] if "/" in module_path else []
    entries = [*first, *inherited.split(os.pathsep), directory]
    found = [os.path.abspath(entry) for entry in entries if entry and os.path.isdir(entry)]
    path = list(dict.fromkeys([*found, *base]))
    return outside(path, directory) if safe else path


def outside(paths: Iterable[str], directory: str) -> list[str]:
    """Return the paths that are not in a directory, neither by name nor where links lead."""
    views = (os.path.abspath, os.path.realpath)
    roots = tuple(os.path.join(view(directory), "") for view in views)
    return [
        path
        for path in paths
        if not any(os.path.join(view(path), "").startswith(roots) for view in views)
    ]


def _import(module_path: str, directory: Path, *, safe: bool) -> ModuleType:
    name = os.path.basename(module_path).removesuffix(".py")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):
            raise
        places = f"in {directory}, in the handler's own directory, or on PYTHONPATH"
        if safe:
            places = (
                "in its own directory or on PYTHONPATH; MANYMODELS_ARTIFACTS=safe imports it from "
                "there, and not from the model's directory"
            )
        raise ModelLoadError(
            f"no module {name!r} for the handler {module_path!r} {places}"
        ) from error


def _initialized(module: ModuleType, function_name: str, context: Any) -> EntryPoint:
    """Return ``handle`` of the module's one class, initialized."""
    classes = [
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if member.__module__ == module.__name__
    ]
    if len(classes) != 1 or not callable(getattr(classes[0], "handle", None)):
        names = ", ".join(member.__name__ for member in classes) or "none"
        raise ModelLoadError(
            f"{module.__name__} has no function {function_name or 'handle'!r}, and not exactly "
            f"one class with a handle method (classes: {names})"
        )
    service: Any = classes[0]()
    if hasattr(service, "initialize"):
        service.initialize(context)
    entry_point: EntryPoint = service.handle
    return entry_point


def _context(request: Load, manifest: Any) -> Any:
    import mms
    from mms.context import Context
    from mms.metrics.metrics_store import MetricsStore

    context = Context(
        request.model_name,
        request.model_path,
        manifest,
        request.batch_size,
        request.gpu_id,
        mms.__version__,
    )
    context.metrics = MetricsStore(uuid.uuid4(), request.model_name)
    return context


def _load_legacy(request: Load) -> Handler:
    """Load an archive of MMS 0.4, whose service is a subclass of its SingleNodeService."""
    from mms.model_loader import LegacyModelLoader

    service = LegacyModelLoader().load(
        request.model_name,
        request.model_path,
        request.handler,
        request.gpu_id,
        request.batch_size,
    )
    return Handler(service._entry_point, service.context)


def _manifest(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {error}") from error

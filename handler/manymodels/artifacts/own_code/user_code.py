"""The user's own module, ``inference.py``: where it is, and how it is imported."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from manymodels.artifacts.own_code import loaded_modules, search_path
from manymodels.artifacts.own_code.user_functions import UserFunctions
from manymodels.errors import ModelLoadError

_IMPORTABLE = (".py", ".pyc", ".so", ".pth")
_NAMES_SHOWN = 10
_REHEARSED = """
def model_fn(model_dir): ...
def input_fn(data, content_type): ...
def predict_fn(data, model, context): ...
def output_fn(prediction, accept): ...
"""
logger = logging.getLogger(__name__)


class Program(NamedTuple):
    """The user's module.

    Args:
        path: the file to import.
        name: what it is called in sys.modules.
        root: the directory that comes first on sys.path for it.
        place: where it was found: ``code``, the model's or the submitted directory.
    """

    path: Path
    name: str
    root: Path
    place: Path


def find_program(
    model_dir: Path, program: str = "inference.py", submit_directory: Path | None = None
) -> Program | None:
    """Return the user's module, or None if the model brings none.

    ``program`` is looked for in ``code/``, at the top level of ``model_dir``, then in
    ``submit_directory``. It is a file with or without ``.py``, a path such as
    ``src/inference.py``, or a dotted name such as ``package.inference``.
    """
    places = [model_dir / "code", model_dir, *([submit_directory] if submit_directory else [])]
    for place in places:
        for candidate in _candidates(place, program):
            if candidate.path.is_file():
                return candidate
    idle = sorted(path.name for path in (model_dir / "code").glob("*.py"))
    if idle:
        logger.warning(
            "%s holds %s but not %s (SAGEMAKER_PROGRAM): the model is served without functions "
            "of its own",
            model_dir / "code",
            _listed(idle),
            program,
        )
    return None


def has_code(
    model_dir: Path, program: str = "inference.py", submit_directory: Path | None = None
) -> bool:
    """Tell whether loading the model would run, or could import, code that it brings."""
    for _, _, files in os.walk(model_dir / "code"):
        if any(name.endswith(_IMPORTABLE) for name in files):
            return True
    return find_program(model_dir, program, submit_directory) is not None


def load_functions(program: Program) -> UserFunctions:
    """Import the user's module and return its functions.

    Raises:
        ModelLoadError: it does not import, or its functions cannot be called as they have to be.
    """
    return UserFunctions(import_program(program), program.path)


def rehearse() -> None:
    """Import a small module as a model's own, and forget it: what that touches is touched once.

    For a process that is forked for each model, which then shares those pages.
    """
    path, modules = list(sys.path), set(sys.modules)
    with tempfile.TemporaryDirectory() as directory:
        code = Path(directory, "code")
        code.mkdir()
        code.joinpath("inference.py").write_text(_REHEARSED)
        search_path.extend(Path(directory))
        program = find_program(Path(directory))
        if program is not None:
            load_functions(program)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def import_program(program: Program) -> ModuleType:
    """Import a module under its own name from exactly its file, whatever else has that name.

    Its directory comes first on sys.path.

    Raises:
        ModelLoadError: the module fails on import; it names the file and the line.
    """
    if loaded_modules.left_alone(program.name) and program.name in sys.modules:
        raise ModelLoadError(
            f"{program.path.name} has the name of a module of Python's or the server's own, "
            "which it would replace: rename it (SAGEMAKER_PROGRAM says how it is called)"
        )
    if sys.path[:1] != [os.path.abspath(program.root)]:
        search_path.put_first([program.root])
    try:
        return _executed(program)
    except (MemoryError, KeyboardInterrupt):
        raise
    # A module that calls sys.exit() is no model, and must not end the process as if all were well.
    except (Exception, SystemExit) as error:
        raise ModelLoadError(f"{_place(error, program)}: {_reason(error)}") from error


def _candidates(place: Path, program: str) -> Iterator[Program]:
    stem = program.removesuffix(".py")
    path = place / f"{stem}.py"
    yield Program(path, path.stem, path.parent, place)
    package = place / stem / "__init__.py"
    yield Program(package, package.parent.name, package.parent.parent, place)
    if "." in stem and all(part.isidentifier() for part in stem.split(".")):
        yield Program(place.joinpath(*stem.split(".")).with_suffix(".py"), stem, place, place)


def _executed(program: Program) -> ModuleType:
    parent, _, last = program.name.rpartition(".")
    if parent:
        importlib.import_module(parent)
    locations = [str(program.path.parent)] if program.path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(
        program.name, program.path, submodule_search_locations=locations
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{program.path} is no Python source")
    module = importlib.util.module_from_spec(spec)
    # To look through all modules is to write to all of their names: only where there is need.
    if program.name in sys.modules:
        for name in [each for each in sys.modules if f"{each}.".startswith(f"{program.name}.")]:
            loaded_modules.drop(name)
    sys.modules[program.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(program.name, None)
        raise
    if parent:
        setattr(sys.modules[parent], last, module)
    return module


def _place(error: BaseException, program: Program) -> str:
    """Return the file and line of the model's own that an error comes from."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, program)}, line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(str(program.place) + os.sep):
            return f"{_relative(frame.filename, program)}, line {frame.lineno}"
    return program.path.name


def _relative(file: str, program: Program) -> str:
    return file.removeprefix(str(program.place) + os.sep)


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"no module {error.name!r}: it is neither installed here nor in the model's code/lib"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, SystemExit):
        return "it ends the process by sys.exit() when it is imported"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    further = len(names) - _NAMES_SHOWN
    return shown if further <= 0 else f"{shown} and {further} more"

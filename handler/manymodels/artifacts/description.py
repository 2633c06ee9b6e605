"""manymodels.json: what a model directory may say of its model, all of it optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from manymodels import content
from manymodels.artifacts.outputs import OUTPUTS
from manymodels.errors import ModelLoadError, NotAcceptable

DESCRIPTION_FILE = "manymodels.json"
TASKS = ("classification", "regression", "probability")
_LARGEST = 1 << 20
_MOST_THREADS = 1024

Label = str | int | float | bool


@dataclass(frozen=True)
class ModelDescription:
    """What a model's manymodels.json says.

    Args:
        model: the file that is the model, relative to the directory.
        models: the files whose predictions make the answer together.
        task: ``classification`` answers labels, ``probability`` a column a class,
            ``regression`` what the model computes and no labels.
        class_labels: labels in the order of the model's classes.
        feature_names: names of the columns in the model's order.
        accept: the media type of an answer where the request does not say.
        output: names of selectable inference to answer with.
        threads: how many threads a prediction may use.
        trusted_types: further types that a skops file may hold.
    """

    model: str | None = None
    models: tuple[str, ...] = ()
    task: str | None = None
    class_labels: tuple[Label, ...] = ()
    feature_names: tuple[str, ...] = ()
    accept: str | None = None
    output: tuple[str, ...] = ()
    threads: int | None = None
    trusted_types: tuple[str, ...] = ()


class _UnfitError(Exception):
    """A value that a key does not take."""


def describe(model_dir: Path) -> ModelDescription:
    """Return what manymodels.json in ``model_dir`` says; the defaults when there is none.

    Raises ModelLoadError for a file that is not a JSON object, for an unknown key, a value of
    another type and a model file that is not there: the message names the key and what it may be.
    """
    path = model_dir / DESCRIPTION_FILE
    if not path.exists() and not path.is_symlink():
        return ModelDescription()
    values = {key: _value(key, given) for key, given in _read(path).items()}
    description = ModelDescription(**values)
    if description.model and description.models:
        raise ModelLoadError(f"{DESCRIPTION_FILE} has both 'model' and 'models': one of them goes")
    for name in (description.model, *description.models):
        if name is not None and not (model_dir / name).is_file():
            key = "model" if description.model else "models"
            raise ModelLoadError(
                f"{DESCRIPTION_FILE}: {key!r} names {name!r}, which is no file of the directory"
            )
    return description


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # a FIFO would keep us waiting for ever
            raise ModelLoadError(f"{DESCRIPTION_FILE} is not a regular file")
        if path.stat().st_size > _LARGEST:
            raise ModelLoadError(f"{DESCRIPTION_FILE} is larger than {_LARGEST} bytes")
        values = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ModelLoadError(f"{DESCRIPTION_FILE} cannot be read: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ModelLoadError(f"{DESCRIPTION_FILE} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"{DESCRIPTION_FILE} must hold an object with {', '.join(_KEYS)}")
    return values


def _value(key: str, given: Any) -> Any:
    if key not in _KEYS:
        raise ModelLoadError(
            f"{DESCRIPTION_FILE}: unknown key {key!r}; there are {', '.join(_KEYS)}"
        )
    read, wanted = _KEYS[key]
    try:
        return read(given)
    except _UnfitError:
        shown = orjson.dumps(given).decode()[:60]
        raise ModelLoadError(f"{DESCRIPTION_FILE}: {key!r} must be {wanted}, not {shown}") from None


def _require(condition: bool) -> None:
    if not condition:
        raise _UnfitError


def _file(given: Any) -> str:
    _require(isinstance(given, str) and given != "" and "\0" not in given)
    path = PurePosixPath(given)
    _require(not path.is_absolute() and ".." not in path.parts and path.name != "")
    return str(path)


def _files(given: Any) -> tuple[str, ...]:
    _require(isinstance(given, list) and len(given) > 0)
    names = tuple(_file(name) for name in given)
    _require(len(set(names)) == len(names))
    return names


def _task(given: Any) -> str:
    _require(isinstance(given, str) and given in TASKS)
    return str(given)


def _labels(given: Any) -> tuple[Label, ...]:
    _require(isinstance(given, list) and len(given) > 1)
    kinds = {"number" if type(label) in (int, float) else type(label).__name__ for label in given}
    _require(len(kinds) == 1 and kinds <= {"number", "str", "bool"})
    _require(len(set(given)) == len(given))
    return tuple(given)


def _texts(given: Any) -> tuple[str, ...]:
    _require(isinstance(given, list) and len(given) > 0)
    _require(all(isinstance(text, str) and text for text in given))
    _require(len(set(given)) == len(given))
    return tuple(given)


def _accept(given: Any) -> str:
    _require(isinstance(given, str) and "/" in given)
    try:
        content.negotiate(given)
    except NotAcceptable as error:
        raise ModelLoadError(f"{DESCRIPTION_FILE}: 'accept': {error.message}") from error
    return str(given)


def _outputs(given: Any) -> tuple[str, ...]:
    names = _texts(given)
    _require(all(name in OUTPUTS for name in names))
    return names


def _threads(given: Any) -> int:
    _require(type(given) is int and 1 <= given <= _MOST_THREADS)
    return int(given)


_KEYS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "model": (_file, "the name of a file in the directory"),
    "models": (_files, "a list of different names of files in the directory"),
    "task": (_task, f"one of {', '.join(TASKS)}"),
    "class_labels": (_labels, "a list of different labels, all texts, all numbers or all booleans"),
    "feature_names": (_texts, "a list of different names"),
    "accept": (_accept, "a media type"),
    "output": (_outputs, f"a list of {', '.join(OUTPUTS)}"),
    "threads": (_threads, f"a whole number from 1 to {_MOST_THREADS}"),
    "trusted_types": (_texts, "a list of names such as 'package.module.Type'"),
}

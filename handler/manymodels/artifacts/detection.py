"""Which file of a model directory is the model, and who loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from manymodels.artifacts.model import Model
from manymodels.errors import ModelLoadError

_XGBOOST_JSON_START = b'{"learner":'
_NAMES_SHOWN = 20


def load(model_dir: Path) -> Model:
    """Return the one model among the top-level files of ``model_dir``.

    Raises ModelLoadError when there is none, more than one, or it does not load: the message
    names the files. MemoryError passes through.
    """
    files = _visible_files(model_dir)
    candidates = [path for path in files if _is_model(path)]
    if not candidates:
        raise ModelLoadError(
            f"no model in {model_dir}: looked for {', '.join(f'*{s}' for s in LOADERS)} "
            f"(*.json if XGBoost wrote it), found {_names(files)}"
        )
    if len(candidates) > 1:
        raise ModelLoadError(
            f"more than one model in {model_dir}: {_names(candidates)}; leave one at the top level"
        )
    path = candidates[0]
    try:
        return LOADERS[path.suffix.lower()](path)
    except (ModelLoadError, MemoryError):
        raise
    except ModuleNotFoundError as error:
        raise ModelLoadError(
            f"{path.name} needs the module {error.name or str(error)!r}, which is not installed"
        ) from error
    except Exception as error:
        raise ModelLoadError(
            f"{path.name} does not load: {type(error).__name__}: {_first_line(error)}"
        ) from error


def _load_pickle(path: Path) -> Model:
    # A zygote preloads the library; a process that serves another kind never pays for this one.
    from manymodels.artifacts.pickled import load_pickle

    return load_pickle(path)


def _load_booster(path: Path) -> Model:
    from manymodels.artifacts.booster import load_booster

    return load_booster(path)


LOADERS: Mapping[str, Callable[[Path], Model]] = {
    ".joblib": _load_pickle,
    ".pkl": _load_pickle,
    ".pickle": _load_pickle,
    ".ubj": _load_booster,
    ".json": _load_booster,
}


def _visible_files(model_dir: Path) -> list[Path]:
    """Top-level files by name, without dot files (.DS_Store, macOS's ._model.pkl)."""
    try:
        entries = sorted(model_dir.iterdir())
    except OSError as error:
        raise ModelLoadError(f"{model_dir} cannot be read: {error.strerror}") from error
    return [path for path in entries if not path.name.startswith(".") and path.is_file()]


def _is_model(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in LOADERS and (suffix != ".json" or _is_xgboost_json(path))


def _is_xgboost_json(path: Path) -> bool:
    # What XGBoost wrote itself is told by its first bytes: parsing twice would double the load.
    with path.open("rb") as file:
        if file.read(len(_XGBOOST_JSON_START)) == _XGBOOST_JSON_START:
            return True
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and "learner" in content


def _names(paths: list[Path]) -> str:
    shown = [path.name for path in paths[:_NAMES_SHOWN]]
    if len(paths) > _NAMES_SHOWN:
        shown.append(f"{len(paths) - _NAMES_SHOWN} more")
    return ", ".join(shown) or "no files"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]

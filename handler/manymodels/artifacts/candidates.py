"""Which files of a model directory may be its model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from manymodels.artifacts.description import DESCRIPTION_FILE
from manymodels.artifacts.libraries.mxnet_files import MxnetFiles
from manymodels.artifacts.libraries.mxnet_files import candidates as networks_among
from manymodels.artifacts.recognition import (
    CONTENT_DECIDES,
    MODEL_NAMES,
    Format,
    named_as_model,
    recognize,
)
from manymodels.errors import ModelLoadError

_NAMES_SHOWN = 20


@dataclass(frozen=True)
class Candidate:
    """A file that is a model; of a network the graph, with the files that belong to it."""

    path: Path
    format: Format
    network: MxnetFiles | None = None


def find(model_dir: Path, *, safe: bool) -> list[Candidate]:
    """Return the models among the top-level files of ``model_dir``, at least one.

    Files are told by name and content; where no name is a model's, by content alone. Dot files
    (.DS_Store, macOS's ._model.pkl) do not count, nor do directories, pipes and devices. With
    ``safe`` links that lead out of the directory are not followed: ModelLoadError for one that
    is named as a model. ModelLoadError too when there is none: it says what is there instead.
    """
    entries = _entries(model_dir)
    files = [path for path in entries if path.is_file() and path.name != DESCRIPTION_FILE]
    if safe:
        files = [path for path in files if _stays_within(path, model_dir)]
    networks = networks_among(files)
    parts = {path for network in networks for path in (network.params, network.shapes)}
    found = [Candidate(network.symbol, Format.MXNET, network) for network in networks]
    others = [path for path in files if path not in parts]
    found += _recognized([path for path in others if named_as_model(path.name)])
    found = found or _recognized(others)
    if not found:
        raise ModelLoadError(
            f"no model in {model_dir}: looked for {', '.join(MODEL_NAMES)} and, by content, "
            f"{', '.join(f'*{suffix}' for suffix in CONTENT_DECIDES)}; found {_shown(entries)}"
        )
    return found


def chosen(model_dir: Path, names: Sequence[str], *, safe: bool) -> list[Candidate]:
    """Return the models that manymodels.json names; ModelLoadError for a file that is none."""
    found = []
    for name in names:
        path = model_dir / name
        if safe and not _stays_within(path, model_dir):
            raise _leads_out(path)
        networks = [each for each in networks_among(_beside(path)) if each.symbol == path]
        known = Format.MXNET if networks else recognize(path)
        if known is None:
            raise ModelLoadError(
                f"{DESCRIPTION_FILE} names {name}, which is a model in no format known here"
            )
        found.append(Candidate(path, known, networks[0] if networks else None))
    return found


def listed(found: Sequence[Candidate]) -> str:
    """Return the files' names, the first of many."""
    return _joined([candidate.path.name for candidate in found])


def _recognized(paths: Sequence[Path]) -> list[Candidate]:
    known = ((path, recognize(path)) for path in paths)
    return [Candidate(path, found) for path, found in known if found is not None]


def _entries(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        raise ModelLoadError(f"{directory} cannot be read: {error.strerror}") from error
    return [path for path in entries if not path.name.startswith(".")]


def _beside(path: Path) -> list[Path]:
    return [other for other in _entries(path.parent) if other.is_file()]


def _stays_within(path: Path, model_dir: Path) -> bool:
    if path.resolve().is_relative_to(model_dir.resolve()):
        return True
    if named_as_model(path.name):
        raise _leads_out(path)
    return False


def _leads_out(path: Path) -> ModelLoadError:
    return ModelLoadError(
        f"{path.name} is a link out of the model's directory, which MANYMODELS_ARTIFACTS=safe "
        "does not follow"
    )


def _shown(entries: Sequence[Path]) -> str:
    return _joined([_described(path) for path in entries]) or "no files"


def _described(path: Path) -> str:
    if path.is_dir():
        return f"{path.name}/"
    if not path.is_file():
        return f"{path.name} (no regular file)"
    if path.suffix.lower() in CONTENT_DECIDES:
        return f"{path.name} (no model by its content)"
    return path.name


def _joined(names: Sequence[str]) -> str:
    shown = list(names[:_NAMES_SHOWN])
    if len(names) > _NAMES_SHOWN:
        shown.append(f"{len(names) - _NAMES_SHOWN} more")
    return ", ".join(shown)

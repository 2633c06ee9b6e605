"""A model directory becomes a model: which of its files, and who loads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manymodels.artifacts import candidates
from manymodels.artifacts.candidates import Candidate
from manymodels.artifacts.description import DESCRIPTION_FILE, ModelDescription, describe
from manymodels.artifacts.failures import explain
from manymodels.artifacts.model import Model
from manymodels.artifacts.recognition import SAFE_FORMATS, Format
from manymodels.artifacts.tasks import as_described
from manymodels.errors import ManyModelsError, ModelLoadError

_BOOSTERS = (
    Format.XGBOOST_JSON,
    Format.XGBOOST_UBJSON,
    Format.XGBOOST_BINARY,
    Format.PICKLE,
)
"""What AWS's XGBoost container takes several of."""


@dataclass(frozen=True)
class Loading:
    """What holds for all files of one load."""

    description: ModelDescription
    safe: bool


def load(
    model_dir: Path,
    *,
    safe: bool = False,
    ensemble: bool = False,
    description: ModelDescription | None = None,
) -> Model:
    """Return the one model among the top-level files of ``model_dir``.

    With ``safe`` only formats that cannot run code are loaded. With ``ensemble`` several XGBoost
    models answer together. ``description`` is what `describe` returned, if it was asked before.

    Raises ModelLoadError when there is none, more than one, or it does not load: the message
    names the files. MemoryError passes through.
    """
    description = describe(model_dir) if description is None else description
    names = description.models or ((description.model,) if description.model else ())
    if names:
        found = candidates.chosen(model_dir, names, safe=safe)
    else:
        found = candidates.find(model_dir, safe=safe)
    several = bool(names) or (ensemble and all(each.format in _BOOSTERS for each in found))
    if len(found) > 1 and not several:
        raise ModelLoadError(
            f"more than one model in {model_dir}: {candidates.listed(found)}; leave one "
            f'at the top level, or name one in {DESCRIPTION_FILE} as "model"'
        )
    loading = Loading(description, safe)
    models = [_load_one(candidate, loading) for candidate in found]
    model = models[0] if len(models) == 1 else _together(found, models)
    return as_described(model, description)


def _together(found: Sequence[Candidate], models: Sequence[Model]) -> Model:
    if any(model.framework != "xgboost" for model in models):
        pairs = zip(found, models, strict=True)
        held = ", ".join(f"{each.path.name} (a {model.kind})" for each, model in pairs)
        raise ModelLoadError(f"more than one model, and not all of them are XGBoost's: {held}")
    from manymodels.artifacts.libraries.ensemble import ensemble_model

    names = [each.path.name for each in found]
    model = ensemble_model(models, names)
    return replace(model, origin={**model.origin, "file": ", ".join(names)})


def _load_one(candidate: Candidate, loading: Loading) -> Model:
    path, known = candidate.path, candidate.format
    if loading.safe and known not in SAFE_FORMATS:
        raise ModelLoadError(
            f"{path.name} ({known.value}) is not loaded with MANYMODELS_ARTIFACTS=safe, which "
            f"admits {', '.join(each.value for each in SAFE_FORMATS)}: what cannot run code"
        )
    if not path.stat().st_size:
        raise ModelLoadError(f"{path.name} does not load: it is empty")
    try:
        model = _LOADERS[known](candidate, loading)
    except (ManyModelsError, MemoryError):
        raise
    except Exception as error:
        raise ModelLoadError(explain(path, error)) from error
    return replace(model, origin={"file": path.name, "format": known.value, **model.origin})


# A zygote preloads the libraries; a process that serves another kind never pays for these.


def _load_pickle(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.pickled import load_pickle

    return load_pickle(candidate.path, loading.description)


def _load_skops(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.pickled import load_skops

    return load_skops(candidate.path, loading.description, safe=loading.safe)


def _load_booster(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.booster import load_booster

    return load_booster(candidate.path, loading.description.threads)


def _load_old_booster(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.booster import load_old_booster

    return load_old_booster(candidate.path, loading.description.threads)


def _load_lightgbm(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.lightgbm_model import load_lightgbm

    return load_lightgbm(candidate.path, loading.description.threads)


def _load_onnx(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.onnx_model import load_onnx

    description = loading.description
    return load_onnx(candidate.path, description.threads, description.class_labels)


def _load_network(candidate: Candidate, loading: Loading) -> Model:
    from manymodels.artifacts.libraries.mxnet_model import load_mxnet

    if candidate.network is None:
        raise ModelLoadError(f"{candidate.path.name} is no symbol file of a network")
    return load_mxnet(candidate.network)


def _refuse(candidate: Candidate, loading: Loading) -> Model:
    raise ModelLoadError(
        f"{candidate.path.name} does not load: it is neither a model that XGBoost saved (JSON, "
        "UBJSON) nor a pickle"
    )


_LOADERS: Mapping[Format, Callable[[Candidate, Loading], Model]] = {
    Format.PICKLE: _load_pickle,
    Format.SKOPS: _load_skops,
    Format.XGBOOST_JSON: _load_booster,
    Format.XGBOOST_UBJSON: _load_booster,
    Format.XGBOOST_BINARY: _load_old_booster,
    Format.XGBOOST_UNKNOWN: _refuse,
    Format.LIGHTGBM: _load_lightgbm,
    Format.ONNX: _load_onnx,
    Format.MXNET: _load_network,
}

"""A model directory becomes a model, with the functions of its own that it brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymodels import artifacts
from manymodels.artifacts import Model, ModelDescription
from manymodels.artifacts.own_code import requirements, search_path, user_code
from manymodels.artifacts.own_code.user_functions import UserFunctions
from manymodels.errors import ModelLoadError
from manymodels.settings import HandlerSettings


@dataclass(frozen=True)
class Loaded:
    """What a directory became.

    Args:
        model: what the generic handler asks; None where the user's functions ask ``native``.
        native: what the library, or model_fn, loaded.
        functions: the user's, if there are any.
        description: what manymodels.json says.
    """

    model: Model | None
    native: Any
    functions: UserFunctions | None
    description: ModelDescription

    @property
    def summary(self) -> str:
        """Return one line for the log."""
        own = f", with {self.functions.path.name}" if self.functions else ""
        if self.model is None:
            return f"a {type(self.native).__name__}{own}"
        count = self.model.columns.count
        features = "" if count is None else f" of {count} features"
        origin = self.model.origin
        written = origin.get("written_by") or origin.get("running") or self.model.framework
        file = f"{origin['file']}, " if "file" in origin else ""
        return f"a {self.model.kind}{features} ({file}{written}){own}"


def load(model_dir: Path, settings: HandlerSettings, context: Any) -> Loaded:
    """Load a model and its own code; raises as `ModelService.initialize` does."""
    description = artifacts.describe(model_dir)
    functions = _functions(model_dir, settings)
    if functions is not None and "pre_model_fn" in functions:
        functions.call("pre_model_fn", str(model_dir), context=context)
    model, native = _model(model_dir, settings, functions, description, context)
    if description.threads is not None:
        _limit_threads(description.threads)
    if functions is not None and "model_warmup_fn" in functions:
        functions.call("model_warmup_fn", str(model_dir), native, context=context)
    return Loaded(model, native, functions, description)


def _functions(model_dir: Path, settings: HandlerSettings) -> UserFunctions | None:
    if settings.safe and user_code.has_code(model_dir, settings.program):
        raise ModelLoadError(
            "the model brings code of its own, which MANYMODELS_ARTIFACTS=safe refuses"
        )
    program = user_code.find_program(model_dir, settings.program, settings.submit_directory)
    # Beside a mere model file, requirements are those of its training.
    if program is not None or (model_dir / "code").is_dir():
        conflicts = () if settings.safe else search_path.extend(model_dir)
        cache = settings.requirements_cache if settings.install_requirements else None
        requirements.check(model_dir, conflicts, None if settings.safe else cache)
    return None if program is None else user_code.load_functions(program)


def _model(
    model_dir: Path,
    settings: HandlerSettings,
    functions: UserFunctions | None,
    description: ModelDescription,
    context: Any,
) -> tuple[Model | None, Any]:
    if functions is None or "model_fn" not in functions:
        model = artifacts.load(
            model_dir, safe=settings.safe, ensemble=settings.ensemble, description=description
        )
        return model, model.native
    native = functions.call("model_fn", str(model_dir), context=context)
    if "predict_fn" in functions or "transform_fn" in functions:
        return None, native
    return artifacts.adopt(native, description), native


def _limit_threads(threads: int) -> None:
    import threadpoolctl

    threadpoolctl.threadpool_limits(threads)

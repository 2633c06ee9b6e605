"""What the generic handler goes by."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manymodels.settings.environment import Environment, safe_artifacts

REQUIREMENTS_CACHE = "~/.cache/manymodels/requirements"


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """What the generic handler goes by, in whatever worker it runs."""

    program: str = "inference.py"
    submit_directory: Path | None = None
    default_accept: str = "application/json"
    outputs: str | None = None
    ensemble: bool = False
    lines: bool = False
    safe: bool = False
    install_requirements: bool = False
    requirements_cache: Path = Path(REQUIREMENTS_CACHE)

    @classmethod
    def from_environment(cls, variables: Mapping[str, str]) -> HandlerSettings:
        """Read the settings.

        Raises:
            SettingsError: a variable's value has no meaning.
        """
        environment = Environment(variables)
        submitted = environment.text("SAGEMAKER_SUBMIT_DIRECTORY")
        cache = environment.text("MANYMODELS_REQUIREMENTS_CACHE") or REQUIREMENTS_CACHE
        return cls(
            program=environment.text("SAGEMAKER_PROGRAM") or "inference.py",
            submit_directory=Path(submitted) if submitted and os.path.isdir(submitted) else None,
            default_accept=environment.text("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT")
            or "application/json",
            outputs=environment.text("SAGEMAKER_INFERENCE_OUTPUT"),
            ensemble=environment.flag("SAGEMAKER_INFERENCE_ENSEMBLE") or False,
            lines=environment.flag("SAGEMAKER_BATCH") or False,
            safe=safe_artifacts(environment),
            install_requirements=environment.flag("MANYMODELS_INSTALL_REQUIREMENTS") or False,
            requirements_cache=Path(os.path.abspath(os.path.expanduser(cache))),
        )

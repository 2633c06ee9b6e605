"""Why a file did not become a model, in one line that says what to do."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

from manymodels.artifacts.provenance import running, written_by

_EXTRAS = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "onnxruntime": "onnx",
    "skops": "skops",
    "mxnet": "mxnet",
}
"""Our extra that brings a module."""
_MISSING_ATTRIBUTE = re.compile(
    r"Can't get attribute '(?P<name>[^']+)' on <module '(?P<module>[^']+)'"
    r"|module '(?P<plain_module>[^']+)' has no attribute '(?P<plain_name>[^']+)'"
)
"""How the unpickler says it, for protocol 4 on and before."""
_NUMPY_2 = re.compile(r"numpy\._core|is not a known BitGenerator module")


def explain(path: Path, error: Exception) -> str:
    """Return why ``path`` did not load: it names the file, what is missing and the versions."""
    if _NUMPY_2.search(str(error)) and running("numpy").startswith("numpy 1."):
        return f"{path.name} was written with NumPy 2, and {running('numpy')} is here"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return _missing_module(path, error.name)
    missing = _MISSING_ATTRIBUTE.search(str(error))
    if isinstance(error, AttributeError) and missing:
        found = missing.groupdict()
        name, module = (
            found["name"] or found["plain_name"],
            found["module"] or found["plain_module"],
        )
        return _missing_attribute(path, name, module)
    reason = str(error).partition("\n")[0]
    return f"{path.name} does not load: {type(error).__name__}: {reason}{_versions(path)}"


def _missing_module(path: Path, module: str) -> str:
    package = module.partition(".")[0]
    needs = f"{path.name} needs the module {module!r}"
    if package in _EXTRAS and not _is_installed(package):
        extra = _EXTRAS[package]
        return f"{needs}, which is not installed: pip install 'manymodels[{extra}]'"
    if package != module and _is_installed(package):
        return f"{needs}, which {package} here does not have{_versions(path)}"
    return (
        f"{needs}, which is not installed{_versions(path)}: install it, "
        "or put it into the model's code/ or code/lib/"
    )


def _missing_attribute(path: Path, attribute: str, module: str) -> str:
    if module in ("__main__", "__mp_main__", _main_module()):
        return (
            f"{path.name} needs {attribute!r}, which the training script itself defined "
            "(in __main__): move it to a module of its own in the model's code/, import it "
            "from there for training, and write the file again"
        )
    return f"{path.name} needs {attribute!r} of the module {module!r}, which has none here" + (
        _versions(path)
    )


def _main_module() -> str | None:
    """What __main__ is called here: a module that was run with -m shows its own name."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", None)


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # imported by hand, without a spec
        return True


def _versions(path: Path) -> str:
    wrote = written_by(path)
    if wrote is None:
        return ""
    here = running(wrote.partition(" ")[0])
    return "" if wrote == here else f"; it was written by {wrote}, and {here} is here"

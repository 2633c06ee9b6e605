"""What the zygote imports and runs once, so that no model process has to.

A library that starts threads when it is imported must not be in the zygote: a fork carries one
thread, and a native thread pool that exists in the parent hangs every child. The zygote notices
after each import and starts anew without it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterable

from manymodels import service
from manymodels.backend import heap, linux
from manymodels.backend.warm_up import WARM_UPS
from manymodels.settings import DEFAULT_PRELOAD

_MODULES = {
    "scipy": ("scipy.sparse", "scipy.special"),
    "sklearn": (
        "sklearn.calibration",
        "sklearn.cluster",
        "sklearn.compose",
        "sklearn.decomposition",
        "sklearn.ensemble",
        "sklearn.feature_selection",
        "sklearn.impute",
        "sklearn.linear_model",
        "sklearn.naive_bayes",
        "sklearn.neighbors",
        "sklearn.neural_network",
        "sklearn.pipeline",
        "sklearn.preprocessing",
        "sklearn.svm",
        "sklearn.tree",
    ),
    "skops": ("skops.io",),
}
_OURS = (
    "mms.context",
    "mms.metrics.metrics_store",
    "mms.model_loader",
    "mms.service",
)
logger = logging.getLogger(__name__)


class StartsThreads(Exception):
    """Importing or warming up this library left more than one thread in the process."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self.library = library


class _NotInstalled(Exception):
    """A library to preload is not there, which is no news."""


def preload(libraries: Iterable[str], *, safe: bool = False) -> list[str]:
    """Import what is installed of ``libraries`` and run a small model of each kind.

    Returns the names imported. With ``safe`` the models are of formats that safe mode loads.

    Raises:
        StartsThreads: a library started threads; this process must not fork any more.
    """
    for module in _OURS:
        importlib.import_module(module)
    imported = [library for library in libraries if _import(library)]
    logging.disable(logging.INFO)  # of models that are nobody's
    for library, warm_up in WARM_UPS.items():
        if library in imported:
            _guarded(library, functools.partial(warm_up, safe))
    logging.disable(logging.NOTSET)
    service.prepare()
    gc.collect()
    heap.fill_holes()
    gc.freeze()
    return imported


def _import(library: str) -> bool:
    def import_all() -> None:
        if importlib.util.find_spec(library) is None:
            raise _NotInstalled
        for module in (library, *_MODULES.get(library, ())):
            importlib.import_module(module)

    return _guarded(library, import_all)


def _guarded(library: str, step: Callable[[], None]) -> bool:
    """Run a step; a library that fails here can still be imported by the models that need it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step()
    except _NotInstalled:
        if library not in DEFAULT_PRELOAD:
            logger.warning("%s is to be preloaded (MANYMODELS_PRELOAD) but not installed", library)
        succeeded = False
    # A library that exits on import must not end the zygote either.
    except (Exception, SystemExit):
        logger.warning("cannot preload %s; models import it themselves", library, exc_info=True)
        succeeded = False
    else:
        succeeded = True
    if linux.thread_count() > 1:
        raise StartsThreads(library)
    return succeeded

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
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping

from manymodels import service
from manymodels.backend import handlers, heap, linux
from manymodels.backend.inference import Inference
from manymodels.settings import DEFAULT_HANDLER, DEFAULT_PRELOAD, MIB
from manymodels.wire import Load, Parameter, Request, encode_reply

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
}
_OURS = (
    "mms.context",
    "mms.metrics.metrics_store",
    "mms.model_loader",
    "mms.service",
)
_NUMBERS = {"text/csv": b"1,2,3,4", "application/json": b"[[1,2,3,4]]"}
_NAMED = {"text/csv": b"c,a,b\nx,1.5,2\n", "application/json": b'[{"a": 1.5, "b": 2, "c": "x"}]'}
"""Bodies for the warm-up's models, by Content-Type."""
logger = logging.getLogger(__name__)


class StartsThreads(Exception):
    """Importing or warming up this library left more than one thread in the process."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self.library = library


class _NotInstalled(Exception):
    """A library to preload is not there, which is no news."""


def preload(libraries: Iterable[str]) -> list[str]:
    """Import what is installed of ``libraries`` and run a small model of each kind.

    Returns the names imported.

    Raises:
        StartsThreads: a library started threads; this process must not fork any more.
    """
    for module in _OURS:
        importlib.import_module(module)
    imported = [library for library in libraries if _import(library)]
    logging.disable(logging.INFO)  # of models that are nobody's
    for library, warm_up in _WARM_UPS.items():
        if library in imported:
            _guarded(library, warm_up)
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


def _warm_up_sklearn() -> None:
    import joblib
    import numpy as np
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    rows = np.random.RandomState(0).rand(40, 4)
    labels = (rows[:, 0] > 0.5).astype(int)
    for estimator in (
        RandomForestClassifier(n_estimators=2),
        GradientBoostingClassifier(n_estimators=2),
        HistGradientBoostingClassifier(max_iter=2),
        KNeighborsClassifier(),
        SVC(),
        Ridge(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        LogisticRegression(),
    ):
        estimator.fit(rows, labels)
        _rehearse("model.joblib", functools.partial(joblib.dump, estimator))


def _warm_up_pandas() -> None:
    """A model of named columns: it is given a DataFrame."""
    import joblib
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"a": [1.0, 2.0] * 20, "b": range(40), "c": ["x", "y"] * 20})
    columns = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["c"]))
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, frame["c"])
    _rehearse("model.joblib", functools.partial(joblib.dump, pipeline), _NAMED)


def _warm_up_xgboost() -> None:
    import numpy as np
    import xgboost

    rows = np.random.RandomState(0).rand(40, 4)
    data = xgboost.DMatrix(rows, label=(rows[:, 0] > 0.5).astype(int), nthread=1)
    for objective in ("binary:logistic", "reg:squarederror"):
        trained = xgboost.train({"objective": objective, "nthread": 1, "max_depth": 2}, data, 2)
        for name in ("model.json", "model.ubj"):
            _rehearse(name, trained.save_model)


_WARM_UPS: dict[str, Callable[[], None]] = {
    "sklearn": _warm_up_sklearn,
    "pandas": _warm_up_pandas,
    "xgboost": _warm_up_xgboost,
}


def _rehearse(
    file_name: str, save: Callable[[str], object], requests: Mapping[str, bytes] = _NUMBERS
) -> None:
    """Save a model, then load it and have it answer, as a model process will.

    Whatever that touches for the first time is touched here, in pages that all share.
    """
    with tempfile.TemporaryDirectory() as directory:
        save(os.path.join(directory, file_name))
        request = Load("warm-up", directory, 1, DEFAULT_HANDLER, None, "")
        inference = Inference(handlers.load(request), False, MIB)
        for content_type, body in requests.items():
            parameter = Parameter("body", content_type, body)
            asked = [Request("warm-up", [("Content-Type", content_type)], [parameter])]
            answer = inference.predict(asked)[0]
            if answer.status != 200:
                raise RuntimeError(f"{file_name} answers {answer.body!r}")
            encode_reply([answer])

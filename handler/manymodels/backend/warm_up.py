"""Small models of each kind, which the zygote trains, saves, loads and asks before it forks.

Whatever that touches for the first time is touched here, in pages that all model processes share.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from manymodels.backend import handlers
from manymodels.backend.inference import Inference
from manymodels.settings import DEFAULT_HANDLER, MIB
from manymodels.wire import Load, Parameter, Request, encode_reply

_NUMBERS = {"text/csv": b"1,2,3,4", "application/json": b"[[1,2,3,4]]"}
_NAMED = {"text/csv": b"c,a,b\nx,1.5,2\n", "application/json": b'[{"a": 1.5, "b": 2, "c": "x"}]'}
"""Bodies for these models, by Content-Type."""


def _warm_up_sklearn(safe: bool) -> None:
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
    estimators = [
        SVC(),
        Ridge(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        LogisticRegression(),
    ]
    if not safe:  # skops does not trust these by itself
        estimators += [
            RandomForestClassifier(n_estimators=2),
            GradientBoostingClassifier(n_estimators=2),
            HistGradientBoostingClassifier(max_iter=2),
            KNeighborsClassifier(),
        ]
    for estimator in estimators:
        _rehearse_estimator(estimator.fit(rows, labels), safe)


def _warm_up_pandas(safe: bool) -> None:
    """A model of named columns: it is given a DataFrame."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = pd.DataFrame({"a": [1.0, 2.0] * 20, "b": range(40), "c": ["x", "y"] * 20})
    columns = make_column_transformer((StandardScaler(), ["a", "b"]), (OneHotEncoder(), ["c"]))
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, frame["c"])
    _rehearse_estimator(pipeline, safe, _NAMED)


def _warm_up_skops(safe: bool) -> None:
    import numpy as np
    import skops.io
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression().fit(np.eye(4), [0, 0, 1, 1])
    _rehearse("model.skops", functools.partial(skops.io.dump, estimator))


def _warm_up_xgboost(safe: bool) -> None:
    import numpy as np
    import xgboost

    rows = np.random.RandomState(0).rand(40, 4)
    data = xgboost.DMatrix(rows, label=(rows[:, 0] > 0.5).astype(int), nthread=1)
    for objective in ("binary:logistic", "reg:squarederror"):
        trained = xgboost.train({"objective": objective, "nthread": 1, "max_depth": 2}, data, 2)
        for name in ("model.json", "model.ubj"):
            _rehearse(name, trained.save_model)


def _warm_up_lightgbm(safe: bool) -> None:
    import lightgbm
    import numpy as np

    rows = np.random.RandomState(0).rand(40, 4)
    parameters = {"num_threads": 1, "verbose": -1, "min_data_in_leaf": 2}
    trained = lightgbm.train(parameters, lightgbm.Dataset(rows, label=rows[:, 0]), 2)
    _rehearse("model.txt", trained.save_model)


def _warm_up_mxnet(safe: bool) -> None:
    """A Module as users' own handlers bind one, and the generic handler's way with its files."""
    import mxnet as mx

    output = mx.sym.softmax(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2))
    module = mx.mod.Module(output, ["data"], [], context=mx.cpu())
    module.bind(for_training=False, data_shapes=[("data", (1, 4))])
    module.init_params()
    module.forward(mx.io.DataBatch([mx.nd.ones((1, 4))]), is_train=False)
    module.get_outputs()[0].asnumpy()
    if not safe:  # which does not load MXNet's files
        _rehearse("model", functools.partial(module.save_checkpoint, epoch=0))


WARM_UPS: Mapping[str, Callable[[bool], None]] = {
    "sklearn": _warm_up_sklearn,
    "pandas": _warm_up_pandas,
    "skops": _warm_up_skops,
    "xgboost": _warm_up_xgboost,
    "lightgbm": _warm_up_lightgbm,
    "mxnet": _warm_up_mxnet,
}
"""What warms a library up, told whether only what safe mode loads may be loaded."""


def _rehearse_estimator(
    estimator: Any, safe: bool, requests: Mapping[str, bytes] = _NUMBERS
) -> None:
    import joblib

    if not safe:
        _rehearse("model.joblib", functools.partial(joblib.dump, estimator), requests)
    elif importlib.util.find_spec("skops") is not None:
        import skops.io

        _rehearse("model.skops", functools.partial(skops.io.dump, estimator), requests)


def _rehearse(
    file_name: str, save: Callable[[str], object], requests: Mapping[str, bytes] = _NUMBERS
) -> None:
    """Save a model, then load it and have it answer, as a model process will."""
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

"""Models of every kind, and the same rows in every format, for the table of formats."""

from __future__ import annotations

import io
import json
import pickle
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.datasets import load_iris

from manymodels.content.recordio import frame, read_records, record_class

ROWS, CLASSES = load_iris(return_X_y=True)
NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
SPECIES = load_iris().target_names[CLASSES]
ASKED = ROWS[[0, 60, 120]]
MIXED = pd.DataFrame(
    {"zip": ["02134", "10001", "02134", "94105"] * 30, "age": range(120), "income": [1.5] * 120}
)
MIXED_ASKED = pd.DataFrame({"zip": ["02134", "94105"], "age": [33, 44], "income": [1.5, 2.5]})


@dataclass(frozen=True)
class Kind:
    """A kind of model: ``write`` makes its directory, and returns what it answers for ASKED.

    A ``named`` one knows its columns' names.
    """

    write: Callable[[Path], Any]
    asked: Any = None
    needs: str | None = None
    named: bool = False

    @property
    def rows(self) -> Any:
        return pd.DataFrame(ASKED, columns=NAMES) if self.asked is None else self.asked


def _logistic(directory: Path) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(ROWS, SPECIES)
    joblib.dump(model, directory / "model.joblib")
    return model.predict(ASKED)


def _forest(directory: Path) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    model = RandomForestRegressor(20, random_state=0).fit(ROWS, CLASSES)
    (directory / "model.pkl").write_bytes(pickle.dumps(model))
    return model.predict(ASKED)


def _neighbours_of_a_frame(directory: Path) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier().fit(pd.DataFrame(ROWS, columns=NAMES), CLASSES)
    joblib.dump(model, directory / "model.joblib")
    return model.predict(pd.DataFrame(ASKED, columns=NAMES))


def _several_targets(directory: Path) -> Any:
    from sklearn.linear_model import Ridge

    model = Ridge().fit(ROWS, np.stack([CLASSES, ROWS[:, 0]], axis=1))
    joblib.dump(model, directory / "model.joblib")
    return model.predict(ASKED)


def _mixed_columns(directory: Path) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = make_column_transformer(
        (OneHotEncoder(), ["zip"]), (StandardScaler(), ["age", "income"])
    )
    labels = np.where(MIXED["age"] > 40, "yes", "no")
    model = make_pipeline(columns, LogisticRegression()).fit(MIXED, labels)
    joblib.dump(model, directory / "model.joblib")
    return model.predict(MIXED_ASKED)


def _scaler(directory: Path) -> Any:
    from sklearn.preprocessing import StandardScaler

    model = StandardScaler().fit(ROWS)
    joblib.dump(model, directory / "model.joblib")
    return model.transform(ASKED)


def _skops(directory: Path) -> Any:
    import skops.io
    from sklearn.svm import SVC

    model = SVC().fit(ROWS, CLASSES)
    skops.io.dump(model, directory / "model.skops")
    return model.predict(ASKED)


def _booster(name: str) -> Callable[[Path], Any]:
    def write(directory: Path) -> Any:
        import xgboost

        model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, CLASSES)
        model.save_model(directory / name)
        return model.predict_proba(ASKED)

    return write


def _xgboost_pickle(directory: Path) -> Any:
    import xgboost

    model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(ROWS, CLASSES)
    (directory / "xgboost-model").write_bytes(pickle.dumps(model.get_booster()))
    return model.predict(ASKED)


def _xgboost_classifier(directory: Path) -> Any:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(ROWS, CLASSES)
    joblib.dump(model, directory / "model.joblib")
    return model.predict(ASKED)


def _ensemble(directory: Path) -> Any:
    import xgboost

    predictions = []
    for seed in range(3):
        model = xgboost.XGBRegressor(n_estimators=5, n_jobs=1, subsample=0.5, random_state=seed)
        model.fit(ROWS, CLASSES).save_model(directory / f"{seed}.json")
        predictions.append(model.predict(ASKED))
    description = {"models": [f"{seed}.json" for seed in range(3)]}
    (directory / "manymodels.json").write_text(json.dumps(description))
    return np.mean(predictions, axis=0)


def _lightgbm(directory: Path) -> Any:
    import lightgbm

    data = lightgbm.Dataset(ROWS, CLASSES.astype(float), feature_name=list(NAMES))
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, data, 5)
    model.save_model(directory / "model.txt")
    return model.predict(ASKED)


def _onnx(directory: Path) -> Any:
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(ROWS, CLASSES)
    converted = to_onnx(model, ROWS[:1].astype(np.float32), options={"zipmap": False})
    (directory / "model.onnx").write_bytes(converted.SerializeToString())
    return model.predict(ASKED)


def _own_code(directory: Path) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=500).fit(ROWS, CLASSES)
    joblib.dump(model, directory / "weights.bin")
    (directory / "code").mkdir()
    (directory / "code" / "helpers.py").write_text("FILE = 'weights.bin'\n")
    (directory / "code" / "inference.py").write_text(
        textwrap.dedent(
            """
            import os
            import joblib
            import helpers

            def model_fn(model_dir):
                return joblib.load(os.path.join(model_dir, helpers.FILE))

            def predict_fn(data, model):
                return model.predict_proba(data)
            """
        )
    )
    return model.predict_proba(ASKED)


KINDS = {
    "scikit-learn, text labels (.joblib)": Kind(_logistic),
    "scikit-learn forest (.pkl)": Kind(_forest),
    "scikit-learn, trained on a DataFrame": Kind(_neighbours_of_a_frame, named=True),
    "scikit-learn, two targets": Kind(_several_targets),
    "scikit-learn, numbers and text by name": Kind(_mixed_columns, MIXED_ASKED, named=True),
    "scikit-learn transformer": Kind(_scaler),
    "scikit-learn (.skops)": Kind(_skops, needs="skops"),
    "XGBoost (.json)": Kind(_booster("model.json")),
    "XGBoost (.ubj)": Kind(_booster("model.ubj")),
    "XGBoost, pickled Booster (xgboost-model)": Kind(_xgboost_pickle),
    "XGBoost, pickled XGBClassifier": Kind(_xgboost_classifier),
    "XGBoost, an ensemble of three": Kind(_ensemble),
    "LightGBM (.txt)": Kind(_lightgbm, needs="lightgbm", named=True),
    "ONNX (.onnx)": Kind(_onnx, needs="onnxruntime"),
    "code/inference.py": Kind(_own_code),
}


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return json.loads(rows.to_json(orient="records", double_precision=15))


def _npy(rows: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    np.save(file, rows.to_numpy(dtype=float), allow_pickle=False)
    return file.getvalue()


def _npz(rows: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(rows.to_numpy(dtype=float)))
    return file.getvalue()


def _libsvm(rows: pd.DataFrame) -> bytes:
    lines = (
        "0 " + " ".join(f"{index}:{value!r}" for index, value in enumerate(row))
        for row in rows.to_numpy(dtype=float).tolist()
    )
    return "\n".join(lines).encode()


def _recordio(rows: pd.DataFrame) -> bytes:
    body = b""
    for row in rows.to_numpy(dtype=float):
        record = record_class()()
        record.features["values"].float64_tensor.values.extend(row)
        body += frame(record.SerializeToString())
    return body


def _parquet(rows: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    rows.to_parquet(file)
    return file.getvalue()


def _arrow(rows: pd.DataFrame) -> bytes:
    import pyarrow

    table = pyarrow.Table.from_pandas(rows, preserve_index=False)
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


FORMATS: dict[str, tuple[str, Callable[[pd.DataFrame], bytes]]] = {
    "CSV": ("text/csv", lambda rows: rows.to_csv(index=False, header=False).encode()),
    "CSV with a header": (
        "text/csv; header=present",
        lambda rows: rows.to_csv(index=False).encode(),
    ),
    "CSV, its columns the other way round": (
        "text/csv",
        lambda rows: rows.iloc[:, ::-1].to_csv(index=False).encode(),
    ),
    "JSON rows": (
        "application/json",
        lambda rows: json.dumps({"instances": rows.to_numpy(dtype=object).tolist()}).encode(),
    ),
    "JSON records": ("Application/JSON", lambda rows: json.dumps(_records(rows)).encode()),
    "JSON Lines": (
        "application/jsonlines",
        lambda rows: "\n".join(json.dumps(row) for row in _records(rows)).encode(),
    ),
    "NPY": ("application/x-npy", _npy),
    "NPZ, sparse": ("application/x-npz", _npz),
    "libsvm": ("text/x-libsvm", _libsvm),
    "RecordIO": ("application/x-recordio-protobuf", _recordio),
    "Parquet": ("application/x-parquet", _parquet),
    "Arrow": ("application/vnd.apache.arrow.stream", _arrow),
}
BY_NAME = {"CSV, its columns the other way round"}
"""Formats that only a model that knows its columns' names can read."""
ONLY_NUMBERS = {"NPY", "NPZ, sparse", "libsvm", "RecordIO"}
"""Formats that cannot say the mixed columns."""


def read(answer: bytes, media_type: str) -> Any:
    """Return an answer's rows, read by other code than the handler's."""
    if media_type == "application/json":
        return json.loads(answer)
    if media_type == "application/jsonlines":
        return [json.loads(line) for line in answer.splitlines()]
    if media_type == "application/x-npy":
        return np.load(io.BytesIO(answer), allow_pickle=False).tolist()
    if media_type == "application/x-recordio-protobuf":
        return [_label(record) for record in read_records(answer)]
    if media_type == "text/csv":
        frame = pd.read_csv(io.BytesIO(answer), header=None)
        return frame[0].tolist() if frame.shape[1] == 1 else frame.to_numpy().tolist()
    raise AssertionError(media_type)


def _label(record: Any) -> Any:
    value = record.label["score"]
    kind = value.WhichOneof("value")
    if kind == "bytes":
        return value.bytes.value[0].decode()
    values = list(getattr(value, kind).values)
    return values[0] if len(values) == 1 else values

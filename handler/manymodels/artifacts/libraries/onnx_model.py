"""ONNX files and sessions: what their outputs mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.libraries.onnx_inputs import Feed, table_inputs
from manymodels.artifacts.libraries.onnx_labels import class_labels
from manymodels.artifacts.model import Model, Predict, Rows
from manymodels.artifacts.provenance import running
from manymodels.errors import ModelLoadError

_PLACE = re.compile(r"^(?:\[ONNXRuntimeError\] : \d+ : \w+ : )?(?:/\S+\.cc:\d+ [^()]*\(.*\) )?")
_POSITIONS = "tensor(int64)"
_LABELS = (_POSITIONS, "tensor(string)")
_FLOATS = ("tensor(float)", "tensor(double)")


def load_onnx(path: Path, threads: int | None = None, labels: Sequence[Any] = ()) -> Model:
    """Return the model of an .onnx file; ModelLoadError when it takes no table.

    ``labels`` are a classifier's, in the order of its probabilities, for a file that has none.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait by spinning would take the processors of all other models.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ModelLoadError(f"{path.name} does not load: {_reason(error)}") from error
    return session_model(session, path.name, class_labels(path) or labels)


def _reason(error: Exception) -> str:
    """Return the runtime's reason without its codes, our path and its sources' paths."""
    text = str(error).partition("\n")[0]
    _, _, text = text.rpartition(" failed:") if " failed:" in text else ("", "", text)
    return f"{type(error).__name__}: {_PLACE.sub('', text)}"


def session_model(session: Any, name: str, labels: Sequence[Any] = ()) -> Model:
    """Return an onnxruntime InferenceSession as a model; raises as ``load_onnx``."""
    columns, feed = table_inputs(session.get_inputs(), name)
    producer = session.get_modelmeta().producer_name
    origin = {"running": running("onnxruntime")}
    predict = partial(_predict, session, feed)
    classes, chosen, probabilities = _classifier(session, feed, labels)
    return Model(
        "onnx",
        type(session).__name__,
        columns,
        predict,
        session,
        classes,
        chosen,
        probabilities,
        origin={**origin, "written_by": str(producer)} if producer else origin,
    )


def _predict(session: Any, feed: Feed, rows: Rows) -> NDArray[Any]:
    """Return the first output: labels, or values without the second dimension of a column."""
    values = np.asarray(session.run([session.get_outputs()[0].name], feed(rows))[0])
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _classifier(
    session: Any, feed: Feed, labels: Sequence[Any]
) -> tuple[NDArray[Any] | None, Predict | None, Predict | None]:
    """Return classes, labels where the first output is none, and probabilities."""
    first, *others = session.get_outputs()
    known = np.asarray(labels) if len(labels) else None
    if others and first.type in _LABELS:
        if known is not None and first.type == _POSITIONS and known.dtype.kind not in "iu":
            known = np.arange(len(known))  # the labels of manymodels.json, put in later
        return known, None, _probabilities(session, feed, others, known)
    if known is None or others or not _is_score_each(first, len(known)):
        return None, None, None
    # A network's only output: a score a class.
    predict = partial(_predict, session, feed)
    return known, lambda rows: known[predict(rows).argmax(axis=1)], predict


def _is_score_each(output: Any, n_classes: int) -> bool:
    wide = len(output.shape) == 2 and output.shape[1] in (n_classes, None)
    return output.type in _FLOATS and (wide or isinstance(output.shape[-1], str))


def _probabilities(
    session: Any, feed: Feed, outputs: Sequence[Any], classes: NDArray[Any] | None
) -> Predict | None:
    """Read what a converter left: a matrix, a dictionary a row, or an output a class."""
    names = [output.name for output in outputs]
    if outputs[0].type.startswith("seq(map"):

        def from_maps(rows: Rows) -> NDArray[Any]:
            maps = session.run(names[:1], feed(rows))[0]
            keys = list(maps[0]) if classes is None else classes.tolist()
            return np.array([[each[key] for key in keys] for each in maps])

        return from_maps
    if any(output.type not in _FLOATS for output in outputs):
        return None
    if len(outputs[0].shape) == 1:
        return lambda rows: np.column_stack(session.run(names, feed(rows)))
    return lambda rows: session.run(names[:1], feed(rows))[0]

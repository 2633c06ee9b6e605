"""A handler service for MXNet Module checkpoints, as Multi Model Server calls one.

A model is a directory with ``PREFIX-symbol.json``, ``PREFIX-NNNN.params``, ``PREFIX-shapes.json``
(``[{"name": "data", "shape": [1, 64]}]``, the batch first) and ``synset.txt``, a label a line. The
worker runs in that directory, so every path here is relative to it.

A request is rows of numbers, as CSV or as JSON ``{"instances": [[...], ...]}``. The answer is, for
each row, its likeliest labels: ``[[{"label": "3", "probability": 0.98}, ...], ...]``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mms.service import PredictionException

SYMBOL_SUFFIX = "-symbol.json"
NO_MEMORY = re.compile(r"failed to allocate|allocation failed|bad_alloc", re.IGNORECASE)
LABELS_ANSWERED = int(os.environ.get("LABELS_ANSWERED", "5"))


class ModelHandler:
    """One model, loaded at the first call."""

    def __init__(self) -> None:
        self.initialized = False
        self._module: Any = None
        self._labels: list[str] = []

    def initialize(self, context: Any) -> None:
        """Load the model of the working directory.

        Raises:
            MemoryError: MXNet could not allocate what the model needs.
            Exception: a file is missing, or does not fit the others.
        """
        prefix = _prefix()
        gpu = context.system_properties.get("gpu_id")
        with _memory_errors():
            self._module = _bind(prefix, mx.cpu() if gpu is None else mx.gpu(gpu))
        self._labels = Path("synset.txt").read_text(encoding="utf-8").splitlines()
        self.initialized = True
        print(f"{context.model_name}: {prefix} from {context.system_properties['model_dir']}")

    def handle(self, data: Sequence[Any], context: Any) -> list[str]:
        """Return one answer for each request of the batch."""
        answers = []
        for index, request in enumerate(data):
            content_type = context.get_request_header(index, "Content-Type") or ""
            rows = self._preprocess(request.get("body"), content_type.partition(";")[0].strip())
            answers.append(self._postprocess([self._infer(row) for row in rows]))
            context.set_response_content_type(index, "application/json")
            context.metrics.add_counter("Rows", len(rows))
        return answers

    def _preprocess(self, body: Any, content_type: str) -> Any:
        """Return the rows as arrays of the shape that the module is bound for."""
        try:
            rows = _parse(bytes(body or b""), content_type)
            return rows.reshape(-1, *self._module.data_shapes[0].shape)
        except (KeyError, TypeError, ValueError) as error:
            raise PredictionException(f"cannot read the body: {error}", 400) from error

    def _infer(self, row: Any) -> Any:
        with _memory_errors():
            self._module.forward(mx.io.DataBatch([mx.nd.array(row)]), is_train=False)
            return self._module.get_outputs()[0].asnumpy()[0]

    def _postprocess(self, outputs: Sequence[Any]) -> str:
        answers = []
        for output in outputs:
            likeliest = np.argsort(-output, kind="stable")[:LABELS_ANSWERED]
            answers.append(
                [{"label": self._labels[i], "probability": float(output[i])} for i in likeliest]
            )
        return json.dumps(answers)


def _prefix() -> str:
    """Return what the names of the model's files begin with."""
    symbols = sorted(Path().glob(f"*{SYMBOL_SUFFIX}"))
    if len(symbols) != 1:
        raise FileNotFoundError(f"{len(symbols)} files *{SYMBOL_SUFFIX} in {os.getcwd()}, not one")
    return symbols[0].name.removesuffix(SYMBOL_SUFFIX)


def _bind(prefix: str, device: Any) -> Any:
    """Return the checkpoint as a module that is ready to predict."""
    epochs = sorted(Path().glob(f"{prefix}-[0-9][0-9][0-9][0-9].params"))
    if not epochs:
        raise FileNotFoundError(f"no file {prefix}-NNNN.params in {os.getcwd()}")
    symbol, arguments, auxiliary = mx.model.load_checkpoint(prefix, int(epochs[-1].stem[-4:]))
    inputs = json.loads(Path(f"{prefix}-shapes.json").read_text(encoding="utf-8"))
    shapes = [(each["name"], tuple(each["shape"])) for each in inputs]
    # Of no use in a prediction, but the network has them as inputs and the file has none for them.
    labels = [name for name in symbol.list_arguments() if name.endswith("_label")]
    module = mx.mod.Module(symbol, [name for name, _ in shapes], labels, context=device)
    module.bind(for_training=False, data_shapes=shapes)
    module.set_params(arguments, auxiliary, allow_missing=False)
    return module


def _parse(body: bytes, content_type: str) -> Any:
    if content_type == "text/csv":
        return np.array([line.split(b",") for line in body.split()], dtype=np.float32)
    if content_type == "application/json":
        return np.array(json.loads(body)["instances"], dtype=np.float32)
    raise PredictionException(f"cannot read {content_type or 'a body without a type'}", 415)


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise MemoryError where MXNet says that it had no memory: the frontend answers 507."""
    try:
        yield
    except RuntimeError as error:  # MXNet's own, and what binding a module makes of it
        if NO_MEMORY.search(str(error)):
            raise MemoryError(str(error).splitlines()[-1]) from error
        raise


_service = ModelHandler()


def handle(data: Sequence[Any] | None, context: Any) -> list[str] | None:
    """Load the model if that is still to do; answer the requests, if there are any."""
    if not _service.initialized:
        _service.initialize(context)
    return None if data is None else _service.handle(data, context)

"""Apache MXNet's networks: Module checkpoints and Gluon exports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from manymodels.artifacts.libraries.mxnet_files import (
    Graph,
    MxnetFiles,
    Shape,
    candidates,
    has_numpy_shapes,
    read_shapes,
)
from manymodels.artifacts.libraries.mxnet_library import import_mxnet, loading
from manymodels.artifacts.libraries.mxnet_network import Input, Network, batch_of_one
from manymodels.artifacts.model import Model
from manymodels.content import Columns
from manymodels.errors import ModelLoadError

__all__ = ["MxnetFiles", "candidates", "load_mxnet"]

_DEFAULT_INPUT = re.compile(r"data\d*")
"""What Gluon calls the inputs of what it exports, and MXNet's iterators what they yield."""
_NAMES_SHOWN = 5


def load_mxnet(files: MxnetFiles) -> Model:
    """Return the network of a symbol file and its parameters, on the CPU.

    A row holds an input's numbers in C order; of several inputs, one after the other as the
    shapes file lists them. Predictions are the network's outputs, shape (n_rows,) or
    (n_rows, n_outputs): of a softmax the probabilities. Its native object is a Gluon SymbolBlock.

    Raises ModelLoadError when files are missing, damaged or of different networks, or MXNet is
    not here; MemoryError when MXNet finds no memory.
    """
    if files.params is None:
        raise ModelLoadError(
            f"{files.symbol.name} has no parameters beside it, such as {files.prefix}-0000.params"
        )
    graph = Graph(files.symbol)
    shapes = read_shapes(files.shapes) if files.shapes else {}
    mx = import_mxnet()
    params = _read_params(mx, files.params)
    inputs = _inputs(files, graph, params, shapes)
    with loading(mx, files.symbol):
        symbol = mx.sym.load_json(files.symbol.read_text(encoding="utf-8"))
        labels = [name for name in symbol.list_arguments() if name in graph.labels]
        _check_shapes(files, symbol, inputs, params)
        network = Network(mx, symbol, inputs, labels, params)
    return _model(files, graph, network, mx.__version__)


def _model(files: MxnetFiles, graph: Graph, network: Network, version: str) -> Model:
    model = Model(
        framework="mxnet",
        kind="SymbolBlock" if graph.is_gluon else "Module",
        columns=Columns(network.n_features, numbers=True),
        predict_rows=network.predict,
        native=network.block,
        origin={
            "written_by": graph.written_by or "mxnet",
            "running": f"mxnet {version}",
            "epoch": str(files.epoch),
        },
    )
    if not graph.ends_in_softmax or network.n_outputs is None:
        return model
    return replace(
        model,
        classes=np.arange(network.n_outputs),
        labels=lambda rows: network.predict(rows).argmax(axis=1),
        probabilities=network.predict,
    )


def _read_params(mx: Any, path: Path) -> dict[str, Any]:
    """Return arrays by name, without the ``arg:`` and ``aux:`` that a checkpoint puts before.

    What was trained in half precision is widened: on a CPU, MXNet's layers do not compute in it.
    """
    with loading(mx, path), mx.util.np_shape(has_numpy_shapes(path)):
        arrays = mx.nd.load(str(path))
    if not isinstance(arrays, dict):
        raise ModelLoadError(f"{path.name} holds arrays without names, which are no parameters")
    return {
        re.sub("^(arg|aux):", "", name): array.astype(np.float32)
        if array.dtype == np.float16
        else array
        for name, array in arrays.items()
    }


def _inputs(
    files: MxnetFiles, graph: Graph, params: Mapping[str, Any], shapes: Mapping[str, Shape]
) -> list[Input]:
    """Return the variables that a request fills; ModelLoadError if the files do not agree."""
    variables = [name for name in graph.variables if name not in graph.labels]
    if further := params.keys() - set(graph.variables):
        raise _mismatch(files, f"has {_listed(further)}, which the network has not")
    if unknown := shapes.keys() - set(graph.variables):
        raise ModelLoadError(
            f"{files.prefix}-shapes.json has {_listed(unknown)}, which {files.symbol.name} has not"
        )
    empty = [name for name in variables if name not in params]
    names = [name for name in shapes if name in variables] or _named_as_inputs(empty)
    if missing := set(empty) - set(names):
        raise _mismatch(files, f"has no values for {_listed(missing)}")
    if len(names) != 1 and not shapes:
        raise ModelLoadError(
            f"{files.symbol.name} has {len(names)} inputs ({_listed(names)}): their order and "
            f"shapes have to be in {files.prefix}-shapes.json"
        )
    held = {name: array.shape for name, array in params.items()}
    return [Input(name, shapes.get(name) or graph.input_shape(name, held)) for name in names]


def _named_as_inputs(variables: list[str]) -> list[str]:
    return [name for name in variables if _DEFAULT_INPUT.fullmatch(name)] or variables[:1]


def _check_shapes(
    files: MxnetFiles, symbol: Any, inputs: list[Input], params: Mapping[str, Any]
) -> None:
    """Compare now what the first request would, whose error would name neither file."""
    one = batch_of_one(inputs)
    arguments, _, states = symbol.infer_shape(**one) if one else ((), (), ())
    names = [*symbol.list_arguments(), *symbol.list_auxiliary_states()]
    for name, shape in zip(names, [*(arguments or ()), *(states or ())], strict=False):
        if name in params and params[name].shape != shape:
            raise _mismatch(files, f"has {name} of shape {params[name].shape}, the network {shape}")


def _mismatch(files: MxnetFiles, what: str) -> ModelLoadError:
    params = files.params.name if files.params else "nothing"
    return ModelLoadError(f"{params} does not fit {files.symbol.name}: it {what}")


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:_NAMES_SHOWN])
    further = len(ordered) - _NAMES_SHOWN
    return shown if further <= 0 else f"{shown} and {further} more"

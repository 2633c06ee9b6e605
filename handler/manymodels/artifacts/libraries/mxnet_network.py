"""A network of MXNet's that computes: rows become its inputs, its outputs become rows.

It is run as a Gluon SymbolBlock, whatever wrote it: that takes batches of any size as they come,
where a Module is bound anew for each, and it keeps one copy of the parameters, not two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manymodels.artifacts.libraries.mxnet_files import Shape, size
from manymodels.artifacts.libraries.mxnet_library import reason
from manymodels.artifacts.model import Rows
from manymodels.errors import BadRequest

_BATCH_SIZES = 8
"""For so many sizes of batches the arrays that stand for labels are kept."""


@dataclass(frozen=True)
class Input:
    """A part of each row. ``shape`` is without the batch, None where it is not known."""

    name: str
    shape: Shape | None


class Network:
    """A symbol with its parameters.

    Args:
        mx: the package.
        symbol: the graph.
        inputs: what rows hold, from left to right.
        labels: inputs that only a loss looks at.
        params: arrays by name.

    Raises MXNetError.
    """

    def __init__(
        self,
        mx: Any,
        symbol: Any,
        inputs: Sequence[Input],
        labels: Sequence[str],
        params: Mapping[str, Any],
    ) -> None:
        self._mx = mx
        self._symbol = symbol
        self._inputs = inputs
        self._labels = labels
        self._types = _input_types(mx, symbol, inputs, params)
        self._label_arrays = lru_cache(_BATCH_SIZES)(self._make_label_arrays)
        types = {**self._types, **dict.fromkeys(labels, np.float32)}
        self.block = _block(mx, symbol, types, params)
        one = batch_of_one(inputs)
        self.n_features = sum(map(size, one.values())) if one else None
        self.n_outputs = self._infer_n_outputs(one) if one else None

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return the outputs for float64 rows, shape (n_rows,) or (n_rows, n_outputs).

        Outputs of more dimensions are laid flat, several are set side by side. Raises
        MemoryError, MXNetError, and BadRequest for a width that the files could not tell before.
        """
        try:
            outputs = self.block(*self._arrays(rows))
            arrays = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            return _joined([array.asnumpy() for array in arrays], rows.shape[0])
        except self._mx.MXNetError as error:
            message = reason(error)
            if self.n_features is None:
                raise BadRequest(f"the model does not take these values: {message}") from error
            raise self._mx.MXNetError(message) from error

    def _arrays(self, rows: Rows) -> Iterator[Any]:
        dense = rows.toarray() if hasattr(rows, "toarray") else rows
        shapes, start = {}, 0
        for each in self._inputs:
            shape = dense.shape[1:] if each.shape is None else each.shape
            end = start + size(shape)
            shapes[each.name] = (len(dense), *shape)
            values = dense[:, start:end].reshape(shapes[each.name])
            yield self._mx.nd.array(values, dtype=self._types[each.name])
            start = end
        if self._labels:
            yield from self._label_arrays(tuple(shapes.items()))

    def _make_label_arrays(self, shapes: tuple[tuple[str, Shape], ...]) -> list[Any]:
        # No prediction depends on a label, but a loss is not run without one either.
        found, _, _ = self._symbol.infer_shape(**dict(shapes))
        by_name = dict(zip(self._symbol.list_arguments(), found or (), strict=False))
        n_rows = shapes[0][1][0]
        return [self._mx.nd.zeros(by_name.get(name, (n_rows,))) for name in self._labels]

    def _infer_n_outputs(self, one: Mapping[str, Shape]) -> int | None:
        _, outputs, _ = self._symbol.infer_shape(**one)
        return outputs[0][1] if outputs and len(outputs[0]) == 2 else None


def batch_of_one(inputs: Sequence[Input]) -> dict[str, Shape]:
    """Return the shapes of the inputs for one row; none where one of them is not known."""
    shapes = {each.name: (1, *each.shape) for each in inputs if each.shape is not None}
    return shapes if len(shapes) == len(inputs) else {}


def _block(mx: Any, symbol: Any, types: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
    from mxnet import gluon

    block = gluon.SymbolBlock(symbol, [mx.sym.var(name, dtype=types[name]) for name in types])
    block.collect_params().load_dict(params, mx.cpu(), cast_dtype=True, dtype_source="saved")
    block.hybridize()
    return block


def _input_types(
    mx: Any, symbol: Any, inputs: Sequence[Input], params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what each input is of: as the parameters are where these decide, else float32."""
    types: dict[str, Any] = {each.name: np.float32 for each in inputs}
    dtypes = {name: array.dtype for name, array in params.items()}
    if set(dtypes.values()) <= {np.float32}:
        return types
    with contextlib.suppress(mx.MXNetError):  # several types: what is quantized takes float32
        found = symbol.infer_type_partial(**dtypes)[0] or ()
        named = dict(zip(symbol.list_arguments(), found, strict=False))
        types.update({name: named[name] for name in types if named.get(name)})
    return types


def _joined(outputs: list[NDArray[Any]], n_rows: int) -> NDArray[Any]:
    for output in outputs:
        if output.shape[:1] != (n_rows,):
            raise ValueError(f"the network answered shape {output.shape} for {n_rows} rows")
    if len(outputs) == 1 and outputs[0].ndim <= 2:
        return outputs[0]
    return np.concatenate([output.reshape(n_rows, -1) for output in outputs], axis=1)

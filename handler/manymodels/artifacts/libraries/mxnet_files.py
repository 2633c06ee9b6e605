"""Apache MXNet's files, read without MXNet: which belong together, and what a network takes.

A Module checkpoint and a Gluon export are the same files: ``PREFIX-symbol.json``, the graph, and
``PREFIX-NNNN.params``, the parameters of epoch NNNN. Neither says how large the network's input
is; ``PREFIX-shapes.json`` does, if it is there, as SageMaker's MXNet containers have it.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from manymodels.errors import ModelLoadError

Shape = tuple[int, ...]

_SYMBOL = re.compile(r"(.+)-symbol\.json")
_PARAMS = re.compile(r"(.+)-(\d{4,})\.params")
_LOSSES = {
    *("SoftmaxOutput", "Softmax", "SVMOutput"),
    *("LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput"),
}
_SOFTMAX = {"SoftmaxOutput", "Softmax", "softmax", "SoftmaxActivation"}
_WIDTH_KEPT = {
    *("Activation", "BatchNorm", "Cast", "Dropout", "Flatten", "LeakyReLU"),
    *("relu", "sigmoid", "tanh", "_copy"),
    *("_plus_scalar", "_minus_scalar", "_mul_scalar", "_div_scalar"),
}
_IMAGES = {"Convolution", "Deconvolution", "LRN", "Pad", "Pooling", "UpSampling"}
_ARRAYS_HEAD = struct.Struct("<QQQI")
"""A list's magic number, a reserved one, how many arrays there are, the first one's magic."""
_NUMPY_ARRAY = 0xF993FACA
_GLUON_ATTRIBUTES = {"__dtype__", "__lr_mult__", "__wd_mult__"}
_SHAPES_EXAMPLE = '[{"name": "data", "shape": [1, 3, 224, 224]}]'


@dataclass(frozen=True)
class MxnetFiles:
    """The files of one network.

    Args:
        symbol: the graph.
        params: the parameters of the latest epoch; None if there are none, which does not load.
        shapes: the shapes of the inputs, if they are written down.
    """

    symbol: Path
    params: Path | None
    shapes: Path | None = None

    @property
    def prefix(self) -> str:
        return self.symbol.name.removesuffix("-symbol.json")

    @property
    def epoch(self) -> int:
        """The number in the parameters' name; -1 without parameters."""
        found = self.params and _PARAMS.fullmatch(self.params.name)
        return int(found[2]) if found else -1


def candidates(files: Sequence[Path]) -> list[MxnetFiles]:
    """Return the networks among the files of one directory, by the prefix of their names.

    Of several epochs the latest counts: training leaves them behind, and an export has one. A
    symbol file is one by its name and either its content or the parameters beside it, so that
    what is cut short fails as what it is. Reads symbol files only, and imports nothing.
    """
    by_name = {path.name: path for path in files}
    found = []
    for path in files:
        match = _SYMBOL.fullmatch(path.name)
        if match is None:
            continue
        params = _latest(files, match[1])
        if params is not None or _is_graph(_parsed(path)):
            found.append(MxnetFiles(path, params, by_name.get(f"{match[1]}-shapes.json")))
    return found


def _latest(files: Sequence[Path], prefix: str) -> Path | None:
    matches = [match for path in files if (match := _PARAMS.fullmatch(path.name))]
    epochs = {int(match[2]): match[0] for match in matches if match[1] == prefix}
    if not epochs:
        return None
    return next(path for path in files if path.name == epochs[max(epochs)])


class Graph:
    """What a symbol file says of its network; raises ModelLoadError if it is none."""

    def __init__(self, path: Path) -> None:
        content = _parsed(path)
        if not _is_graph(content):
            raise ModelLoadError(f"{path.name} is not a network that MXNet wrote, or cut short")
        self._name = path.name
        self._nodes: list[dict[str, Any]] = content["nodes"]
        self._heads: list[list[int]] = content["heads"]
        self._attributes: dict[str, Any] = content.get("attrs") or {}

    @property
    def variables(self) -> list[str]:
        """Inputs, labels, parameters and states, in the graph's order."""
        return [node["name"] for node in self._nodes if node["op"] == "null"]

    @property
    def labels(self) -> set[str]:
        """The variables that only a loss looks at: of no use in a prediction."""
        found = set()
        for node in self._nodes:
            if node["op"] in _LOSSES and len(node["inputs"]) > 1:
                label = self._nodes[node["inputs"][1][0]]
                if label["op"] == "null":
                    found.add(label["name"])
        return found

    @property
    def ends_in_softmax(self) -> bool:
        """Whether its one output is probabilities of classes."""
        return len(self._heads) == 1 and self._nodes[self._heads[0][0]]["op"] in _SOFTMAX

    @property
    def is_gluon(self) -> bool:
        """Whether Gluon exported it: its parameters are variables with all of their settings."""
        return any(_attributes(node).keys() >= _GLUON_ATTRIBUTES for node in self._nodes)

    @property
    def written_by(self) -> str | None:
        """The version that wrote it, such as ``mxnet 1.9.1``."""
        match self._attributes.get("mxnet_version"):
            case [_, int(number)]:
                return f"mxnet {number // 10000}.{number // 100 % 100}.{number % 100}"
        return None

    def input_shape(self, name: str, params: Mapping[str, Shape]) -> Shape | None:
        """Return an input's shape without its batch, if the graph and the parameters tell.

        They tell where the variable has a shape of its own, and where the first layer is fully
        connected. Raises ModelLoadError where it is one of images, which a row alone is not.
        """
        position = next(i for i, node in enumerate(self._nodes) if node["name"] == name)
        declared = _declared_shape(_attributes(self._nodes[position]))
        return declared or self._shape_behind(position, params)

    def _shape_behind(self, position: int, params: Mapping[str, Shape]) -> Shape | None:
        for reader, node in self._readers(position):
            if node["op"] in _IMAGES:
                raise ModelLoadError(
                    f"{self._name} takes images and does not say of what size: add "
                    f"{self._name.replace('-symbol', '-shapes')} with {_SHAPES_EXAMPLE}"
                )
            if node["op"] == "FullyConnected":
                weight = params.get(self._nodes[node["inputs"][1][0]]["name"], ())
                return weight[1:] or None
            if node["op"] in _WIDTH_KEPT and (shape := self._shape_behind(reader, params)):
                return shape
        return None

    def _readers(self, position: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """The nodes whose first input is a node's output."""
        for reader, node in enumerate(self._nodes):
            if node["inputs"] and node["inputs"][0][0] == position:
                yield reader, node


def read_shapes(path: Path) -> dict[str, Shape]:
    """Return the inputs of a shapes file, in its order, and their shapes without the batch."""
    shapes: dict[str, Shape] = {}
    content = _parsed(path)
    for entry in content if isinstance(content, list) else [None]:
        match entry:
            case {"name": str(name), "shape": [int(), *dimensions]} if all(
                isinstance(size, int) and size > 0 for size in dimensions
            ):
                shapes[name] = tuple(dimensions)
            case _:
                raise ModelLoadError(f"{path.name} is not a list such as {_SHAPES_EXAMPLE}")
    if not shapes:
        raise ModelLoadError(f"{path.name} names no input; it should be as {_SHAPES_EXAMPLE}")
    return shapes


def has_numpy_shapes(path: Path) -> bool:
    """Whether a parameters file was written by MXNet's numpy interface.

    MXNet reads such a file, and no other, only when it is told so before.
    """
    with path.open("rb") as file:
        head = file.read(_ARRAYS_HEAD.size)
    return len(head) == _ARRAYS_HEAD.size and _ARRAYS_HEAD.unpack(head)[-1] == _NUMPY_ARRAY


def size(shape: Shape) -> int:
    """Return how many numbers a shape holds."""
    return math.prod(shape)


def _parsed(path: Path) -> Any:
    """Return a JSON file's content; None if it is not JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        return None


def _is_graph(content: Any) -> bool:
    """Whether every node is one, and refers to nodes that are there."""
    match content:
        case {"nodes": [_, *_] as nodes, "heads": [_, *_] as heads}:
            return all(_is_node(node, len(nodes)) for node in nodes) and _refer(heads, len(nodes))
    return False


def _is_node(node: Any, count: int) -> bool:
    match node:
        case {"op": str(), "name": str(), "inputs": list(inputs)}:
            return _refer(inputs, count)
    return False


def _refer(references: list[Any], count: int) -> bool:
    return all(
        isinstance(each, list) and each and isinstance(each[0], int) and 0 <= each[0] < count
        for each in references
    )


def _attributes(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """MXNet has had three names for them."""
    found = node.get("attrs") or node.get("attr") or node.get("param")
    return found if isinstance(found, dict) else {}


def _declared_shape(attributes: Mapping[str, Any]) -> Shape | None:
    sizes = [int(text) for text in re.findall(r"-?\d+", str(attributes.get("__shape__", "")))]
    shape = tuple(sizes[1:])
    return shape if shape and min(shape) > 0 else None

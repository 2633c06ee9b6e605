"""The class labels in an ONNX file, which its runtime does not tell.

Only the few fields on the way to them are described here, by their numbers in ONNX's schema; the
parser passes over all others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_LARGEST = 1 << 26
_LABELS = ("classlabels_int64s", "classlabels_ints", "classlabels_strings")
"""Attributes of the operators that end a classifier."""


def class_labels(path: Path) -> list[Any] | None:
    """Return a classifier's labels in the order of its probabilities, None if it has no such.

    Files above 64 MiB are not looked into.
    """
    from google.protobuf.message import DecodeError

    if path.stat().st_size > _LARGEST:
        return None
    model = _message_class()()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        return None  # the runtime says what is wrong with it
    attributes = (attribute for node in model.graph.node for attribute in node.attribute)
    found = [_values(attribute) for attribute in attributes if attribute.name in _LABELS]
    found = [labels for labels in found if labels]
    # Classifiers of classifiers, such as a vote, have several: then none is the model's for sure.
    return found[0] if found and all(labels == found[0] for labels in found) else None


def _values(attribute: Any) -> list[Any]:
    return list(attribute.ints) or [text.decode() for text in attribute.strings]


def _message_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(name="labels.proto", package="labels")
    model, graph, node, attribute = (
        file.message_type.add(name=name) for name in ("Model", "Graph", "Node", "Attribute")
    )
    inner = {"type": kinds.TYPE_MESSAGE}
    model.field.add(name="graph", number=7, label=one, type_name=".labels.Graph", **inner)
    graph.field.add(name="node", number=1, label=many, type_name=".labels.Node", **inner)
    node.field.add(name="attribute", number=5, label=many, type_name=".labels.Attribute", **inner)
    attribute.field.add(name="name", number=1, label=one, type=kinds.TYPE_STRING)
    attribute.field.add(name="ints", number=8, label=many, type=kinds.TYPE_INT64)
    attribute.field.add(name="strings", number=9, label=many, type=kinds.TYPE_BYTES)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("labels.Model"))

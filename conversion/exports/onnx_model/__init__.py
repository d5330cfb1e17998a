"""A graph as an ONNX model, node by node."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from conversion.exports.onnx_model import layers, maps, numbers, shapes
from conversion.exports.onnx_model.rows import Row
from conversion.exports.onnx_model.writer import OPSET, UnwritableError, Writer
from unet_core.errors import first_line, shown, some
from unet_core.graph import INPUT, Graph, Node
from unet_core.graph.canonical import FLOATS
from unet_core.graph.sizes import Shape

__all__ = ["OPSET", "ROWS", "UnwritableError", "Writer", "model_of", "write_node"]

ROWS: Mapping[str, Row] = {**layers.ROWS, **maps.ROWS, **shapes.ROWS, **numbers.ROWS}
"""Every operation that has a form in ONNX, by its name."""


def model_of(graph: Graph, tensors: Mapping[str, np.ndarray], *, classes: bool, output: str) -> onnx.ModelProto:
    """What a graph computes in eval mode, in float32; batch and sizes are free where the graph's are.

    Args:
        graph: the network, whose answer is the last node's.
        tensors: by name.
        classes: answer the class of every pixel, as `unet_core.prediction.metrics.decided` tells it of the logits.
        output: what the logits are; and what the answer is called where it is not the classes.

    Raises:
        UnwritableError: it has operations for which ONNX has no form; all are named.
    """
    writer = Writer("classes" if classes else output)
    shapes = dict(graph.shapes)
    writer.take_in(INPUT, shapes[INPUT])
    names = {INPUT: INPUT}
    refused: dict[str, str] = {}
    for node in graph.nodes:
        roles = {role: writer.tensor(name, _narrow(tensors[name])) for role, name in graph.first_names(node).items()}
        try:
            names[node.name] = write_node(writer, node, shapes[node.name], [names[name] for name in node.inputs], roles)
        except UnwritableError as error:
            refused[f"{node.operation} {error}".strip()] = node.name
            names[node.name] = writer.add("Identity", INPUT, name=node.name, shape=shapes[node.name])
    if refused:
        listed = some([f"{operation} ({shown(name)})" for operation, name in refused.items()], most=10)
        raise UnwritableError(f"ONNX has no form for {listed}")
    last = names[graph.nodes[-1].name]
    last = decided(writer, last, output) if classes else last
    if len(graph.sizes.only) == 1:
        writer.shapes[INPUT] = (*writer.shapes[INPUT][:2], *graph.sizes.only[0])
    model = writer.model([INPUT], last, title=graph.title)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise UnwritableError(f"ONNX cannot hold the network: {first_line(error)}") from error
    return model


def write_node(writer: Writer, node: Node, shape: Shape, inputs: Sequence[str], tensors: Mapping[str, str]) -> str:
    """Write what a node computes; returns the name of its answer.

    Args:
        writer: to write to.
        node: the node.
        shape: of its answer.
        inputs: what it takes in, as it is called in the model.
        tensors: by role, its tensors as they are called in the model.

    Raises:
        UnwritableError: ONNX has no form for it.
    """
    if node.operation not in ROWS:
        raise UnwritableError("")
    return ROWS[node.operation](writer, {"name": node.name, "shape": shape}, *inputs, **tensors, **node.attributes)


def decided(w: Writer, logits: str, output: str) -> str:
    """The class of every pixel, as uint8 in a map without channels."""
    n, channels, *size = w.shapes[logits]
    shape = (n, *size)
    zero, axis = w.constant(0), w.constant([1], np.int64)
    if channels == 1:
        flat = w.add("Squeeze", logits, axis, shape=shape)
        return w.cast(w.like("Greater", flat, zero, dtype=bool), np.uint8)
    best = w.add("ArgMax", logits, axis=1, keepdims=0, shape=shape, dtype=np.int64)
    if output == "sigmoid":
        most = w.add("ReduceMax", logits, axis, keepdims=0, shape=shape)
        found = w.like("Greater", most, zero, dtype=bool)
        raised = w.like("Add", best, w.constant(1, np.int64))
        best = w.like("Where", found, raised, w.constant(0, np.int64), dtype=np.int64)
    return w.cast(best, np.uint8)


def _narrow(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype in FLOATS else value

"""The graph of an ONNX model, node by node, sizes as expressions of the picture's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from conversion.sources.onnx_graph import functions, layers, maps, numbers, shapes
from conversion.sources.onnx_graph.rows import ROWS, Attributes, Constant, UnreadableError, Value, Writer
from conversion.sources.onnx_graph.values import Operation, Program
from unet_core.errors import ConfigError, UNetError, shown, some
from unet_core.graph import INPUT, Graph
from unet_core.graph.graph import pruned

__all__ = ["functions", "layers", "maps", "numbers", "shapes", "translated"]


def translated(program: Program) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph, and its tensors by name.

    Raises:
        UNetError: operations have no row, all are named; or one of them is used as no graph says.
    """
    lacking = sorted({one.kind for one in program.operations if one.kind not in ROWS and one.kind != "Constant"})
    if lacking:
        raise UNetError(f"operations that a graph does not have: {some(lacking, most=40)}")
    channels = program.shape[1]
    assert channels is not None
    writer = Writer(channels, program.traced, fixed_batch=program.shape[0] is not None)
    values: dict[str, Value] = {name: Constant(array, name) for name, array in program.constants.items()}
    values[program.picture] = writer.picture
    for operation in program.operations:
        try:
            writer.scope = operation.name or operation.kind
            values.update(_answered(writer, operation, values, program.opset))
        except (UnreadableError, ConfigError, ValueError, TypeError, LookupError, ArithmeticError) as error:
            place = f" ({shown(operation.name)})" if operation.name else ""
            raise UNetError(f"{operation.kind}{place} is used as no graph says: {shown(error)}") from error
    last = writer.map(values[program.output])
    nodes = tuple(pruned(writer.nodes, last.node))
    if last.node == INPUT or last.numbers != "float":
        raise UNetError("it answers no map of numbers that depends on the picture")
    graph = Graph(channels, nodes, writer.described(), len(program.shape) - 2)
    used = {name for node in nodes for name in node.tensors.values()}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in used}
    graph = Graph(channels, nodes, tensors, graph.dimensions)
    return graph, {name: writer.tensors[name] for name in tensors}


def _answered(
    writer: Writer, operation: Operation, values: Mapping[str, Value], opset: int
) -> Iterator[tuple[str, Value]]:
    if operation.kind == "Constant":
        yield operation.outputs[0], _constant(operation.attributes)
        return
    given = [values[name] if name else None for name in operation.inputs]
    attributes = Attributes(operation.kind, operation.attributes, opset, len(operation.outputs))
    found = ROWS[operation.kind](writer, attributes, *given)
    attributes.finish()
    made: Sequence[Value] = found if isinstance(found, tuple) else (found,)
    yield from zip(operation.outputs, made, strict=False)


def _constant(attributes: Mapping[str, Any]) -> Constant:
    (name, value) = next(iter(attributes.items()), ("value", None))
    if name == "value" and isinstance(value, np.ndarray):
        return Constant(value)
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in dtypes:
        raise UnreadableError(f"with {name}")
    return Constant(np.array(value, dtypes[name]))

"""An ONNX file as the program that it is, and as the bytes of that and nothing else, which onnxruntime takes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.frameworks import importing
from conversion.sources.onnx_graph.values import Operation, Program
from unet_core.checkpoints.foreign.onnx_file import contents_of
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_core.graph.graph import MOST_NODES
from unet_core.graph.outputs import place_of

_OPSETS = range(9, 30)
"""The versions of ONNX's operations that are known; later ones would have to be looked at."""


def program_of(path: Path, model: Any, out: int | str | None = None) -> tuple[Program, bytes]:
    """What a file computes, and a model of that alone, its tensors in it.

    Args:
        path: the file.
        model: what `model_at` made of it.
        out: which of several outputs.

    Raises:
        CheckpointError: it is damaged, contradicts itself, or takes something other than one picture in float32.
        MissingFrameworkError: onnx is not installed.
    """
    try:
        return _read(path, model, out)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise CheckpointError(f"{path}: is no sound ONNX file: {first_line(error)}") from error


def _read(path: Path, model: Any, out: int | str | None) -> tuple[Program, bytes]:
    graph, source = model.graph, str(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset not in _OPSETS:
        raise CheckpointError(
            f"{source}: has version {opset} of ONNX's operations; {_OPSETS[0]} to {_OPSETS[-1]} are read"
        )
    if len(graph.node) > MOST_NODES or graph.sparse_initializer:
        raise CheckpointError(f"{source}: has more than {MOST_NODES} operations, or sparse tensors")
    initial = {tensor.name for tensor in graph.initializer}
    outputs = [value.name for value in graph.output]
    output = outputs[place_of(outputs, out)]
    kept = _needed(graph.node, initial, output, [value.name for value in graph.input], source)
    used = {name for node in kept for name in node.input} | {output}
    pictures = [value for value in graph.input if value.name not in initial]
    taken = [value for value in pictures if value.name in used]
    if len(taken) != 1 or len(pictures) != 1:
        raise CheckpointError(
            f"{source}: takes {some([value.name for value in pictures]) or 'nothing'}, not one picture"
        )
    names = [tensor.name for tensor in graph.initializer if tensor.name in used]
    constants = contents_of(path, model).fetch("", names) if names else {}
    operations = tuple(_operation(node, path) for node in kept)
    program = Program(operations, constants, taken[0].name, output, opset, _shape(taken[0], source))
    return program, _bytes(model, program, kept, taken[0])


def _needed(nodes: Sequence[Any], initial: set[str], output: str, inputs: list[str], source: str) -> list[Any]:
    """The operations that an output needs.

    Raises:
        CheckpointError: they are not in the order in which they run, or one name is made twice.
    """
    made = {*initial, *inputs}
    for node in nodes:
        strange = next((name for name in node.input if name and name not in made), None)
        if strange is not None:
            raise CheckpointError(f"{source}: {node.op_type} takes {shown(strange)}, which nothing before it makes")
        for name in node.output:
            if name and name in made:
                raise CheckpointError(f"{source}: {shown(name)} is made twice")
            made.add(name)
    if output not in made:
        raise CheckpointError(f"{source}: answers {shown(output)}, which nothing makes")
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if not wanted.isdisjoint(name for name in node.output if name):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _operation(node: Any, path: Path) -> Operation:
    kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
    outputs = list(node.output)
    while outputs and not outputs[-1]:
        outputs.pop()
    return Operation(node.name, kind, tuple(node.input), tuple(outputs), dict(_attributes(node, path)))


def _attributes(node: Any, path: Path) -> Iterator[tuple[str, Any]]:
    with importing():
        import onnx
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            if attribute.t.data_location == onnx.TensorProto.EXTERNAL:
                raise CheckpointError(f"{path}: has a constant in another file, {shown(node.name)}")
            yield attribute.name, np.asarray(onnx.numpy_helper.to_array(attribute.t))
        elif attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            yield attribute.name, None  # of operations that have no row
        elif attribute.type == onnx.AttributeProto.FLOAT:
            yield attribute.name, float(str(np.float32(attribute.f)))  # what was rounded: 1e-05, not 9.99999974e-06
        else:
            yield attribute.name, onnx.helper.get_attribute_value(attribute)


def _shape(value: Any, source: str) -> tuple[int | None, ...]:
    """Of the picture, free sizes as None."""
    with importing():
        import onnx
    kind = value.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise CheckpointError(f"{source}: takes {name.lower()}; pictures of float are read")
    sizes = [one.dim_value if one.HasField("dim_value") else None for one in kind.shape.dim]
    if len(sizes) not in (4, 5) or sizes[1] is None:
        shape = ", ".join("?" if one is None else str(one) for one in sizes)
        raise CheckpointError(
            f"{source}: takes [{shape}], not a batch of pictures in 2-D or 3-D, their channels in front"
        )
    if any(one is not None and not 0 < one < 2**16 for one in sizes):
        raise CheckpointError(f"{source}: takes a picture of {sizes}")
    return tuple(sizes)


def _bytes(model: Any, program: Program, kept: list[Any], picture: Any) -> bytes:
    with importing():
        import onnx
    output = next(value for value in model.graph.output if value.name == program.output)
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in program.constants.items()]
    graph = onnx.helper.make_graph(kept, "network", [picture], [output], tensors)
    made = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return bytes(made.SerializeToString())

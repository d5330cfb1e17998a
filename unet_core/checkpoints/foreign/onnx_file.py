"""ONNX files: their initialisers, which are weights under the names that the exporter gave them."""

from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from, inside, package
from unet_core.checkpoints.pickled.tensors import DTYPES, sizes
from unet_core.errors import CheckpointError, first_line

_LARGEST = 2**31
"""Bytes; protobuf has no larger messages."""

_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


def contents(path: Path) -> Contents:
    """What the file holds; nothing of its graph is run.

    Raises:
        CheckpointError: it is no such file, is damaged, or refers to files elsewhere.
        MissingFrameworkError: onnx is not installed.
    """
    return contents_of(path, model_at(path))


def model_at(path: Path) -> Any:
    """The model as the package onnx has it, tensors in files beside it unread.

    Raises:
        CheckpointError: it is no such file, or is damaged.
        MissingFrameworkError: onnx is not installed.
    """
    onnx = package("onnx", path)
    if path.stat().st_size > _LARGEST:
        raise CheckpointError(f"{path}: is larger than any ONNX file ({_LARGEST} bytes)")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # whatever protobuf and onnx meet in a damaged file
        raise CheckpointError(f"{path}: is no sound ONNX file: {first_line(error)}") from error


def contents_of(path: Path, model: Any) -> Contents:
    """What the file of a model holds; raises what `contents` raises."""
    onnx = package("onnx", path)
    found, files = {}, set()
    try:
        for tensor in model.graph.initializer:
            if tensor.name in found:
                raise ValueError(f"two tensors are called {tensor.name}")
            name = onnx.TensorProto.DataType.Name(tensor.data_type)
            found[tensor.name] = _tensor(onnx, tensor, DTYPES.get(_NAMES.get(name, name.lower())), path)
            files |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    except Exception as error:  # as above
        raise CheckpointError(f"{path}: is no sound ONNX file: {first_line(error)}") from error
    graph = model.graph
    beside = {
        "operations": str(len(graph.node)),
        "written by": f"{model.producer_name} {model.producer_version}".strip(),
    }
    more = [inside(path.parent, name, path) for name in sorted(files)]
    return contents_from(path, {"": found}, beside=beside, more=more)


def _tensor(onnx: Any, tensor: Any, dtype: np.dtype | None, path: Path) -> Lazy:
    shape = sizes(tuple(tensor.dims), "a shape")

    def load() -> np.ndarray:
        # Of data in another file, onnx takes none that lies outside the folder.
        try:
            return np.asarray(onnx.numpy_helper.to_array(tensor, str(path.parent)))
        except Exception as error:  # whatever it meets there
            raise ValueError(first_line(error)) from error

    return Lazy(shape, dtype, load)

"""A network as an ONNX file, and onnxruntime, which runs it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from conversion.backends.backend import Tool
from conversion.backends.frameworks import importing
from conversion.exports.deployment import Answer, Source, answering, metadata
from unet_core.errors import UNetError, first_line
from unet_core.graph.canonical import FLOATS
from unet_core.graph.folding import folded

METADATA = "deployment"
"""The key of what a deployment has to know, JSON, among the model's metadata."""

_LARGEST = 2**31 - 2**20
"""Bytes of a model: what protobuf takes."""


def write(path: Path, source: Source, answer: Answer) -> None:
    """Write the network to a new file, BatchNorm folded into the convolutions.

    Raises:
        UNetError: ONNX has no form for it, or it is too large for one file.
        MissingFrameworkError: onnx is not installed.
    """
    with importing():
        from onnx import helper

        from conversion.exports.onnx_model import model_of
    graph, tensors = answering(source, answer), source.checkpoint.tensors
    size = sum(value.size for value in tensors.values()) * 4
    if size > _LARGEST:
        raise UNetError(f"{path.name}: its weights have {size / 2**30:.1f} GiB; an ONNX file holds 2")
    wide = {name: value.astype(np.float64) if value.dtype in FLOATS else value for name, value in tensors.items()}
    graph, wide = folded(graph, wide, lambda variance, epsilon: 1 / np.sqrt(variance + epsilon))
    called = "logits" if answer == "network" and source.graph.output == "logits" else answer
    called = "probabilities" if called == "network" else called
    output = source.output if answer == "classes" else called
    model = model_of(graph, wide, classes=answer == "classes", output=output)
    layout = "NCHW" if graph.dimensions == 2 else "NCDHW"
    about = metadata(source, answer, layout)
    helper.set_model_props(model, {METADATA: json.dumps(about)})
    path.write_bytes(model.SerializeToString(deterministic=True))


class Written:
    """See `conversion.exports.programs.Program`: run by onnxruntime, on the CPU."""

    tool: Tool = "onnxruntime"

    def __init__(self, path: Path) -> None:
        with importing():
            import onnxruntime
        self.versions: Mapping[str, str] = {"onnxruntime": onnxruntime.__version__}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class of their own
            raise UNetError(f"{path.name}: onnxruntime does not open it: {first_line(error)}") from error

    def answers(self, pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        (taken,) = self._session.get_inputs()
        found = []
        for picture in pictures:
            try:
                (answer,) = self._session.run(None, {taken.name: np.moveaxis(picture, -1, 1)})
            except Exception as error:  # as above
                raise UNetError(f"onnxruntime does not run what was written: {first_line(error)}") from error
            found.append(np.moveaxis(answer, 1, -1) if answer.ndim == picture.ndim else answer)
        return found

    def exact_answers(self, _: Sequence[np.ndarray]) -> list[np.ndarray] | None:
        return None

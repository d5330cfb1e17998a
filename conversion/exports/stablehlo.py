"""A network as a StableHLO program of `jax.export`: a zip of that, its weights and what a deployment has to know.

Maps are channels last. The size is one, for which JAX has the fastest program; the batch is free where it can be.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.backend import Tool
from conversion.backends.frameworks import importing
from conversion.exports.deployment import Answer, Source, answering, metadata
from conversion.exports.programs import Answers, fresh, in_order, numbered
from unet_core.errors import UNetError, first_line

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
USUAL = ("cpu", "cuda", "tpu")
"""Where a program runs, if nothing is said."""
PROGRAM, WEIGHTS, METADATA = "program.bin", "weights.npz", "metadata.json"
"""What is in the zip."""

LOADER = """
import io, json, zipfile
import jax, numpy as np
from jax import export


def load(path):
    with zipfile.ZipFile(path) as file:
        program = export.deserialize(bytearray(file.read("program.bin")))
        weights = jax.device_put(dict(np.load(io.BytesIO(file.read("weights.npz")))))
        about = json.loads(file.read("metadata.json"))
    return jax.jit(lambda pictures: program.call(weights, pictures)), about
"""
"""What opens the zip, with JAX alone."""


@dataclass(frozen=True)
class Shape:
    """What a program takes, and where it runs."""

    size: tuple[int, ...]
    batch: int | None
    """None: any number of pictures."""
    platforms: tuple[str, ...]


def write(path: Path, source: Source, answer: Answer, shape: Shape, *, double: bool = False) -> None:
    """Write the network to a new file.

    Args:
        path: the file.
        source: the network.
        answer: what it answers.
        shape: what it takes.
        double: in float64.

    Raises:
        UNetError: JAX cannot export it so.
        MissingFrameworkError: JAX, or flatbuffers, is not installed.
    """
    with importing():
        import jax
    with jax.enable_x64(double):
        program, weights = _exported(source, answer, shape, np.dtype(np.float64 if double else np.float32))
    more = {"size": list(shape.size), "batch": shape.batch, "platforms": list(shape.platforms)}
    layout = "NHWC" if len(shape.size) == 2 else "NDHWC"
    about = metadata(source, answer, layout, **more)
    buffer = io.BytesIO()
    np.savez(buffer, **weights)  # type: ignore[arg-type]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, content in ((PROGRAM, program), (WEIGHTS, buffer.getvalue()), (METADATA, _json(about))):
            file.writestr(zipfile.ZipInfo(name), content)  # without the time, so that equal networks are equal files


def _json(about: Mapping[str, Any]) -> bytes:
    return (json.dumps(about, indent=1) + "\n").encode()


def _exported(source: Source, answer: Answer, shape: Shape, dtype: np.dtype) -> tuple[bytes, dict[str, np.ndarray]]:
    """The program, and the weights that it takes."""
    import jax
    from jax import export

    from unet_core.graph.canonical import FLOATS
    from unet_jax import rewrites
    from unet_jax.execution import Execution, execute

    graph = answering(source, answer)
    tensors = {
        name: value.astype(dtype) if value.dtype in FLOATS else value
        for name, value in source.checkpoint.tensors.items()
    }
    only = shape.platforms[0] if len(shape.platforms) == 1 else None
    frozen = rewrites.frozen(graph, tensors, only)
    graph, weights = frozen.graph, frozen.tensors
    how = Execution(rewrites=False, prepared=True)
    finish = _decided(source.output) if answer == "classes" else lambda logits: logits

    def predict(weights: dict[str, Any], pictures: Any) -> Any:
        if shape.batch is not None:
            return finish(execute(graph, weights, pictures, how).answer)
        one = jax.vmap(lambda picture: execute(graph, weights, picture[None], how).answer[0])
        return finish(one(pictures))  # the forms of its operations are chosen by the size of one picture

    batch = ("b",) if shape.batch is None else (shape.batch,)
    (named,) = export.symbolic_shape(str(batch[0])) if shape.batch is None else batch
    given = jax.ShapeDtypeStruct((named, *shape.size, graph.in_channels), dtype)
    specs = {name: jax.ShapeDtypeStruct(value.shape, value.dtype) for name, value in weights.items()}
    try:
        with jax.default_matmul_precision("highest"):
            exported = export.export(jax.jit(predict), platforms=shape.platforms)(specs, given)
    except jax.errors.InconclusiveDimensionOperation as error:
        raise UNetError("the network's program depends on the number of pictures: say --batch N") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UNetError(f"jax.export cannot write the network: {first_line(error)}") from error
    return bytes(exported.serialize()), {name: np.asarray(value) for name, value in weights.items()}


def _decided(output: str) -> Callable[[Any], Any]:
    """As `unet_core.prediction.metrics.decided`."""
    import jax.numpy as jnp

    def classes(logits: Any) -> Any:
        if logits.shape[-1] == 1:
            return (logits[..., 0] > 0).astype(jnp.uint8)
        best = logits.argmax(-1)
        return (jnp.where(logits.max(-1) > 0, best + 1, 0) if output == "sigmoid" else best).astype(jnp.uint8)

    return classes


class Written:
    """See `conversion.exports.programs.Program`: opened by a Python of its own that has JAX alone.

    Args:
        path: the file.
        double: writes the same network in float64 to a new file; None: it is not judged in that.
    """

    tool: Tool = "jax"
    trains = False

    def __init__(self, path: Path, double: Callable[[Path], None] | None = None) -> None:
        import jax

        self.path, self.double = path, double
        self.versions: Mapping[str, str] = {"jax": jax.__version__}

    def run(self, pictures: Sequence[np.ndarray], _: np.ndarray) -> Answers:
        """See there."""
        script = LOADER + _CALLS.format(path=str(self.path.absolute()))
        if self.double is not None:
            partial = self.path.with_name(f"float64.{self.path.name}")
            self.double(partial)
            script += _CALLS_WIDE.format(path=str(partial.absolute()))
        found = fresh(script, **numbered(pictures))
        return Answers(in_order(found, "narrow."), None if self.double is None else in_order(found, "wide."))


_CALLS = """
model, about = load({path!r})
found |= {{f"narrow.{{name}}": np.asarray(model(pictures)) for name, pictures in given.items()}}
"""

_CALLS_WIDE = """
with jax.enable_x64(True):
    model, about = load({path!r})
    found |= {{f"wide.{{name}}": np.asarray(model(pictures.astype(np.float64))) for name, pictures in given.items()}}
"""

"""A `torch.export` archive (.pt2), which is the graph itself."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from conversion.sources.archive_check import harmless
from conversion.sources.named import NamedCode
from conversion.sources.packages import quiet
from conversion.sources.recorded import Recorded
from unet_core.errors import CheckpointError, first_line, some


def read(path: Path, *, trust: bool = False) -> NamedCode:
    """The network of an archive, under the names of the `state_dict` that was exported.

    `torch.export.load` unpickles what an archive asks it to, evaluates its expressions of sizes, and writes Python from
    the names in it. Without `trust` it is given an archive that was made anew from what is plain data in this one: the
    graph in torch's own operators, and tensors as raw bytes. Anything else is refused.

    Args:
        path: the file.
        trust: load the file as it is.

    Raises:
        CheckpointError: the archive is damaged, takes something other than one picture, was exported in training mode,
            or holds what only `trust` may load.
    """
    try:
        with silent(), quiet():
            archive, version = (path, None) if trust else harmless(path)
            program = torch.export.load(io.BytesIO(archive) if isinstance(archive, bytes) else archive)
    except CheckpointError:
        raise
    except Exception as error:  # whatever torch's reader meets in a damaged file, or in one of another version
        raise CheckpointError(f"{path}: torch {torch.__version__} cannot load it: {first_line(error)}") from error
    notes = ["is the graph that torch.export recorded; sizes that were fixed then are fixed here"]
    if version not in (None, torch.__version__):
        notes.append(f"written by torch {version}; this is {torch.__version__}")
    shape = _input_shape(program, str(path))
    if any(_trains(node) for node in program.graph.nodes):
        raise CheckpointError(f"{path}: was exported in training mode; export model.eval() instead")
    signature = program.graph_signature  # an archive has tensors with two names side by side
    order = dict.fromkeys((*signature.parameters, *signature.buffers, *program.state_dict))
    state = {name: program.state_dict[name] for name in order if name in program.state_dict}
    parameters = {name for name, tensor in state.items() if isinstance(tensor, nn.Parameter)}
    module, more = as_module(program, str(path), shape, state, parameters)
    return NamedCode(
        module,
        name=path.name,
        version="exported by torch" if version is None else f"exported by torch {version}",
        in_channels=shape[1],
        size=shape[2:],
        files=(path,),
        notes=(*notes, *more),
    )


def as_module(
    program: ExportedProgram, source: str, shape: tuple[int, ...], state: Mapping[str, Tensor], parameters: set[str]
) -> tuple[nn.Module, list[str]]:
    """The program as a module in eval mode, and what to know of it; arguments as of `Recorded`.

    Raises:
        CheckpointError: the program contradicts itself.
    """
    try:
        with quiet(), silent():
            module = Recorded(program, shape, state, parameters).eval()
            fixed = module.batch
            if fixed is not None and not module.treats_pictures_alike(shape):
                raise CheckpointError(f"{source}: takes batches of {fixed} only; export it with a batch of any number")
    except CheckpointError:
        raise
    except Exception as error:  # whatever torch meets in such a program
        raise CheckpointError(f"{source}: torch cannot run it: {first_line(error)}") from error
    alike = f"recorded for a batch of {fixed}; other numbers of pictures were tried, and each is treated as if alone"
    return module, [] if fixed is None else [alike]


def _trains(node: torch.fx.Node) -> bool:
    """Whether an operation renews running statistics."""
    if node.target is torch.ops.aten.batch_norm.default:
        return node.args[3] is not None and node.args[5] is True
    return "native_batch_norm" in str(node.target) and "no_training" not in str(node.target)


def _input_shape(program: ExportedProgram, source: str) -> tuple[int, ...]:
    """That of the batch of pictures that it was exported with."""
    names = program.graph_signature.user_inputs
    shapes = {node.name: node.meta["val"].shape for node in program.graph.nodes if node.name in names}
    if len(names) != 1 or len(shapes) != 1:
        raise CheckpointError(f"{source}: takes {some(names) or 'nothing'}, not one picture")
    shape = tuple(_hint(size) for size in next(iter(shapes.values())))
    if len(shape) not in (4, 5):
        raise CheckpointError(f"{source}: takes {len(shape)} axes, not a batch of pictures in 2-D or 3-D")
    return shape


def _hint(size: Any) -> int:
    """The number that a size had when it was exported."""
    return size if isinstance(size, int) else int(size.node.hint)


@contextmanager
def silent() -> Iterator[None]:
    """Keep torch from logging the traceback of an error that is told in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)

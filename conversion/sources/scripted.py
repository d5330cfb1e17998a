"""A TorchScript archive: a program that torch interprets."""

from pathlib import Path

import torch
from torch import Tensor, nn

from conversion.sources.exported import as_module, silent
from conversion.sources.named import NamedCode
from conversion.sources.packages import quiet
from unet_core.errors import CheckpointError, first_line

_SIZES = {4: (64, 64), 5: (32, 32, 32)}
_CLOSE = 1e-5
"""Of the largest value: the interpreter may fuse operations, which rounds them otherwise."""


def read(path: Path) -> NamedCode:
    """The network of a TorchScript file that the user trusts, as `torch.export` follows it.

    Raises:
        CheckpointError: the file is damaged, its weights have no names (as after `torch.jit.freeze`), or torch.export
            cannot follow it.
    """
    try:
        with quiet():
            script = torch.jit.load(path, map_location="cpu").eval()
            state: dict[str, Tensor] = script.state_dict()
    except Exception as error:  # whatever torch's reader meets in a damaged file
        raise CheckpointError(f"{path}: not a sound TorchScript file: {first_line(error)}") from error
    kernel = next((tensor for tensor in state.values() if tensor.ndim in _SIZES), None)
    if kernel is None:
        raise CheckpointError(f"{path}: has no kernels by name, as after torch.jit.freeze; save the module before that")
    channels, size = kernel.shape[1], _SIZES[kernel.ndim]
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0))
    module = _followed(script, x, state, str(path))
    _check(module, script, torch.randn(1, channels, *(2 * edge for edge in size)), str(path))
    return NamedCode(
        module,
        name=str(getattr(script, "original_name", "ScriptModule")),
        version=f"the TorchScript of {path.name}",
        in_channels=channels,
        size=size,
        files=(path,),
        notes=(
            "its program was followed by torch.export, and gave the same outputs",
            "a traced program knows only the way that its example took",
        ),
    )


def _followed(script: torch.jit.ScriptModule, x: Tensor, state: dict[str, Tensor], source: str) -> nn.Module:
    from torch._export.converter import TS2EPConverter

    try:
        with quiet(), silent():
            program = TS2EPConverter(script, (x,)).convert()
        parameters = {name for name, _ in script.named_parameters(remove_duplicate=False)}
        return as_module(program, source, tuple(x.shape), state, parameters)[0]
    except CheckpointError:
        raise
    except Exception as error:  # whatever the converter, which torch calls experimental, does not know
        raise CheckpointError(
            f"{source}: torch.export cannot follow its TorchScript ({first_line(error)}); name the code with --module"
        ) from error


def _check(module: nn.Module, script: torch.jit.ScriptModule, x: Tensor, source: str) -> None:
    """Refuse a module whose output differs from that of the program it comes from."""
    with torch.no_grad(), quiet():
        try:
            output, wanted = module(x), script(x)
        except Exception as error:  # a program that takes other sizes only says so in its own words
            raise CheckpointError(f"{source}: does not run on {tuple(x.shape)}: {first_line(error)}") from error
    same = isinstance(output, Tensor) and isinstance(wanted, Tensor) and output.shape == wanted.shape
    if not same or (output - wanted).abs().max() > _CLOSE * wanted.abs().max():
        raise CheckpointError(f"{source}: torch.export follows its TorchScript wrongly; name the code with --module")

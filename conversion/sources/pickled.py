"""A whole module in a pickle, as `torch.save(model, path)` writes it: loading it runs code."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from conversion.sources.building import input_of
from conversion.sources.named import NamedCode
from conversion.sources.packages import quiet
from unet_core.errors import CheckpointError, first_line, shown, some
from unet_torch.canonical import unwrapped

_SIZE = {2: (64, 64), 3: (32, 32, 32)}


def read(path: Path) -> NamedCode:
    """The module of a file that the user trusts. Its classes are imported, from the working folder too.

    Raises:
        CheckpointError: a class is not found, the file is damaged, or has no module at its top.
    """
    sys.path.append(str(Path.cwd()))
    try:
        with quiet():
            loaded: Any = torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{path}: its class is in the module {shown(error.name)}, which is not found; run this where it can be "
            "imported, or save model.state_dict() and name the code with --module"
        ) from error
    except Exception as error:  # whatever the code of a pickle meets
        raise CheckpointError(f"{path}: cannot be loaded: {first_line(error)}") from error
    finally:
        sys.path.remove(str(Path.cwd()))
    module, place = _module_in(loaded, str(path))
    module = unwrapped(module).eval()
    channels, dimensions = input_of(module, str(path))
    return NamedCode(
        module,
        name=f"{type(module).__module__}.{type(module).__qualname__}",
        version=f"as {path.name} has it",
        in_channels=channels,
        size=_SIZE[dimensions],
        files=(path,),
        notes=(f"loading {path.name} ran code from it, as --trust allows", *place),
    )


def _module_in(loaded: Any, source: str) -> tuple[nn.Module, tuple[str, ...]]:
    """The module that a file is, or the one among what it holds."""
    if isinstance(loaded, nn.Module):
        return loaded, ()
    found = {name: item for name, item in loaded.items() if isinstance(item, nn.Module)} if _is_dict(loaded) else {}
    if len(found) != 1:
        held = f"several modules: {some(found)}" if found else "no module at its top"
        raise CheckpointError(f"{source}: holds {held}; save the state_dict of one and name its code with --module")
    ((name, module),) = found.items()
    return module, (f"the module under {shown(name)}",)


def _is_dict(loaded: object) -> bool:
    return isinstance(loaded, dict)

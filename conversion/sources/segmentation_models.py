"""A folder of segmentation_models_pytorch, as its `save_pretrained` writes it."""

import inspect
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from conversion.sources.building import built, weights_in
from conversion.sources.configs import read_run_config, value
from conversion.sources.named import NamedCode
from conversion.sources.packages import SEGMENTATION_MODELS
from unet_core.checkpoints.safetensors_file import read_tensors
from unet_core.errors import CheckpointError, shown
from unet_torch.canonical import as_torch
from unet_torch.contents import opened

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_SIZE = (128, 128)
"""Its encoders halve the size up to five times, and PAN once or twice more."""


def read(folder: Path) -> NamedCode:
    """The network of a folder that has weights: those of its encoder are among them and never downloaded.

    Raises:
        CheckpointError: the folder is not as `save_pretrained` writes it.
        MissingFrameworkError: segmentation_models_pytorch is not installed.
    """
    source = str(folder / CONFIG)
    config = read_run_config(folder / CONFIG)
    if "_model_class" not in config:
        raise CheckpointError(f"{source}: names no class (_model_class), as segmentation_models_pytorch does")
    name = value(config, "_model_class", str, source)
    package = SEGMENTATION_MODELS.imported(source)
    kind = getattr(package, name, None) if name in package.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise CheckpointError(f"{source}: {SEGMENTATION_MODELS.version} has no network {shown(name)}")
    arguments = {key: item for key, item in config.items() if not key.startswith("_")}
    _check(kind, arguments, source)
    weights = next(folder / file for file in WEIGHTS if (folder / file).is_file())
    module = built(kind, arguments | {"encoder_weights": None}, _tensors(weights), str(folder))
    return NamedCode(
        module,
        name=f"{SEGMENTATION_MODELS.module}.{name}",
        version=SEGMENTATION_MODELS.version,
        in_channels=value({"in_channels": 3} | arguments, "in_channels", int, source),
        size=_SIZE,
        files=(folder / CONFIG, weights),
    )


def _check(kind: type[nn.Module], arguments: dict[str, Any], source: str) -> None:
    """Refuse what would make the encoder's library look for weights elsewhere."""
    encoder = arguments.get("encoder_name", "")
    if not isinstance(encoder, str) or not re.fullmatch(r"[\w.-]*", encoder):
        raise CheckpointError(f"{source}: encoder_name {shown(repr(encoder))} is no name of an encoder")
    known = inspect.signature(kind).parameters
    for name, item in arguments.items():  # those of the class; others go to the encoder, and may name files
        if name not in known and not isinstance(item, bool | int | float | None):
            raise CheckpointError(f"{source}: {shown(name)} is no argument of {kind.__name__}")


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return {key: as_torch(tensor, copy=False) for key, tensor in read_tensors(path).items()}
    return weights_in(opened(path), str(path))

"""Which module reads and writes which kind of checkpoint; each is imported when it is first needed."""

from pathlib import Path
from typing import Any

from conversion.frameworks import needed
from unet_core.checkpoint import Checkpoint
from unet_core.containers import Container, existing_container
from unet_core.reading import NO_HINTS, Hints

_MODULES = {
    Container.TORCH: "unet_torch.checkpoint",
    Container.SAFETENSORS: "unet_core.safetensors_file",
    Container.ORBAX: "unet_jax.checkpoint",
}


def module_of(container: Container) -> Any:
    """The module whose `read(path)`, `examine(path)` and `write(path, checkpoint)` serve this kind.

    Raises:
        MissingFrameworkError: it needs a framework that is not installed.
    """
    return needed(_MODULES[container])


def read(path: Path, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check a checkpoint of any kind.

    Raises:
        CheckpointError: it is missing, damaged, of another network, or not sound; one line says which.
        MissingFrameworkError: the kind needs a framework that is not installed.
    """
    checkpoint: Checkpoint = module_of(existing_container(path)).read(path, hints)
    return checkpoint

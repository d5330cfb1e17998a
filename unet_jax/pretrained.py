"""How networks in JAX come from the Hub. `unet_torch/pretrained.py` is the twin."""

from pathlib import Path
from typing import Any

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.hub import pretrained


class Pretrained(pretrained.Pretrained):
    """`from_pretrained`, `save_pretrained` and `push_to_hub`."""

    @classmethod
    def _read(cls, path: Path, **how: Any) -> Any:
        from unet_jax.checkpoint import load

        return load(path, **how)

    def _checkpoint(self) -> Checkpoint:
        from unet_jax.checkpoint import to_checkpoint

        return to_checkpoint(self)  # type: ignore[arg-type]

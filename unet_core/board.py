"""TensorBoard files beside the history, which is the truth."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from unet_core.errors import MissingFrameworkError


class Board:
    """Writes event files.

    Args:
        folder: where to.
        step: where the training goes on; TensorBoard then drops what an interrupted process wrote of later ones.

    Raises:
        MissingFrameworkError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingFrameworkError(
                "training needs tensorboardX: pip install -e '.[train]' -c constraints.txt"
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point on each of some curves."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, name: str, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        """A picture under a slider of steps."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring it to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush, and write no more."""
        self._writer.close()

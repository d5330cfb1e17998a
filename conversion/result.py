"""What a conversion comes back with."""

from dataclasses import dataclass
from pathlib import Path

from conversion.proof.certificate import Certificate
from conversion.proof.proof import Proof
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import UNetError
from unet_core.training.state import TrainingState


@dataclass(frozen=True)
class Conversion:
    """What `conversion.convert` did.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> conversion.convert("model.pt", "model.safetensors", verify=False).checkpoint.config.features
        (4, 8)
    """

    src: Path
    dst: Path
    checkpoint: Checkpoint
    """The network."""
    proof: Proof | None
    """None where the proof was not asked for."""
    state: TrainingState | None = None
    """Of a conversion of a whole training, all of it."""
    left: tuple[str, ...] = ()
    """Of a script's training file, the names of what was left behind, as the caller said."""
    certificate: Certificate | None = None
    """What was proven; it lies next to `dst`. None where nothing was proven, or no certificate was asked for."""


class DifferentError(UNetError):
    """What was converted is not what it was made from; nothing was written.

    Examples:
        >>> import conversion
        >>> def convert(src, dst):
        ...     try:
        ...         conversion.convert(src, dst)
        ...     except conversion.DifferentError as error:
        ...         print(error.proof.verdict)
    """

    def __init__(self, message: str, proof: Proof) -> None:
        super().__init__(message)
        self.proof = proof

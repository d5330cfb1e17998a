"""PyTorch's side of the comparison. `unet_compare/backends/jax_backend.py` is the twin."""

import numpy as np
import torch

from conversion.backends.torch_backend import parity
from unet_compare.backends.backend import Pictures, Precision, in_dtype
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.training.train_config import TrainConfig
from unet_torch.canonical import to_canonical
from unet_torch.checkpoint import from_checkpoint
from unet_torch.device import chosen_device
from unet_torch.predict import Predictor
from unet_torch.training.step import new_state, placed, updater

_TF32 = (8, 0)
"""The compute capability that has it."""


class Trainer:
    """See `unet_compare.backends.backend.Trainer`; torch has nothing to compile."""

    def __init__(self, train_config: TrainConfig) -> None:
        self._recipe = train_config

    def start(self, checkpoint: Checkpoint) -> "Training":
        return Training(checkpoint, self._recipe)


class Training:
    """See `unet_compare.backends.backend.Training`."""

    def __init__(self, checkpoint: Checkpoint, train_config: TrainConfig) -> None:
        self._recipe, self._device = train_config, chosen_device()
        self._state = new_state(checkpoint, train_config, self._device)
        self._update = updater(train_config, self._state)
        self._made = 0

    def step(self, batch: Batch, rate: float) -> tuple[float, float]:
        with parity():
            loss, norm = self._update(*placed(batch, self._recipe, self._device), rate, 1.0, self._made).tolist()
        self._made += 1
        self._state.optimizer.zero_grad()  # the other trainings need the memory
        return loss, norm

    def tensors(self) -> dict[str, np.ndarray]:
        return to_canonical(self._state.model)

    def logits(self, pictures: Pictures) -> list[np.ndarray]:
        predictor = Predictor(self._state.model)
        with parity():
            return [predictor.logits(picture) for picture in pictures]


def lacks_tf32() -> str | None:
    """See `unet_compare.backends.backend.Backend`."""
    if chosen_device().type == "cpu":
        return "PyTorch runs on a CPU"
    if torch.cuda.get_device_capability() < _TF32:
        return f"{torch.cuda.get_device_name()} has none"
    return None


def predict(checkpoint: Checkpoint, precision: Precision, pictures: Pictures) -> list[np.ndarray]:
    """See `unet_compare.backends.backend.Backend`."""
    wide = precision == "float64"
    device, dtype = chosen_device(), torch.float64 if wide else torch.float32
    model = from_checkpoint(in_dtype(checkpoint, "float64" if wide else "float32")).to(device)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # of nn.Module, as documented
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    found = []
    with torch.inference_mode(), parity(tf32=precision == "tf32"), autocast:
        for picture in pictures:
            logits = model.logits(torch.from_numpy(picture[None]).permute(0, 3, 1, 2).to(device, dtype))
            found.append(logits[0].permute(1, 2, 0).to(dtype).cpu().numpy())
    return found

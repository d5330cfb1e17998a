"""Runs a torch module for the proof: any `nn.Module` with the hub's `state_dict` keys."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conversion.runners import Framework, Precision, Step, input_name
from unet_core.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.hub import Tensors, check_tensors, infer_config, tensor_specs
from unet_torch.checkpoint import from_checkpoint
from unet_torch.hub import as_numpy, fill, to_hub, unwrapped

_DTYPES: dict[Precision, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}


class TorchRunner:
    """See `conversion.runners.Runner`. The module itself is never touched: every call runs a copy."""

    framework: Framework = "torch"

    def __init__(self, model: nn.Module, name: str) -> None:
        model = unwrapped(model)
        self.name = name
        self.tensors = to_hub(model)
        config = getattr(model, "config", None)
        if not isinstance(config, UNetConfig):
            config = infer_config({key: value.shape for key, value in self.tensors.items()}, name)
        self.config = config
        check_tensors(self.tensors, self.config, name)
        self.versions = {"torch": torch.__version__}
        parameter = next(model.parameters())
        self.device = _device_name(parameter.device)
        self._model = model
        self._device = parameter.device

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> "TorchRunner":
        return cls(from_checkpoint(checkpoint), name)

    def with_tensors(self, tensors: Tensors) -> "TorchRunner":
        model = copy.deepcopy(self._model)
        fill(model, tensors)
        return TorchRunner(model.to(self._device), self.name)

    def predict(self, x: np.ndarray, precision: Precision) -> np.ndarray:
        with torch.inference_mode(), _parity():
            return _nhwc(self._logits(self._copy(precision).eval(), x, precision))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        model = self._copy(precision).train().requires_grad_(True)  # frozen ones too: the network is judged
        with torch.enable_grad(), _parity():
            logits = self._logits(model, x, precision)
            loss = (logits * self._nchw(cotangent, precision)).mean()
            loss.backward()
        gradients = {
            key: as_numpy(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
            for key, parameter in model.named_parameters()
        }
        specs = tensor_specs(self.config)
        statistics = {key: value for key, value in to_hub(model).items() if not specs[key].trained}
        return Step(_nhwc(logits), gradients, statistics)

    def layers(self, x: np.ndarray, precision: Precision, *, training: bool) -> dict[str, np.ndarray]:
        model = self._copy(precision).train(training)
        record: dict[str, np.ndarray] = {}
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.register_forward_hook(_recorder(record, name, input_name(name)))
        with torch.no_grad(), _parity():
            model(self._nchw(x, precision))
        return record

    def _copy(self, precision: Precision) -> nn.Module:
        return copy.deepcopy(self._model).to(_DTYPES[precision])

    def _nchw(self, x: np.ndarray, precision: Precision) -> Tensor:
        return torch.from_numpy(x).to(self._device, _DTYPES[precision]).permute(0, 3, 1, 2)

    def _logits(self, model: nn.Module, x: np.ndarray, precision: Precision) -> Tensor:
        """What the layer `out` answers: the logits of any class, whatever its `forward` makes of them."""
        answers: list[Tensor] = []
        handle = model.get_submodule("out").register_forward_hook(
            lambda _module, _inputs, output: answers.append(output)
        )
        model(self._nchw(x, precision))
        handle.remove()
        return answers[0]


def _recorder(record: dict[str, np.ndarray], name: str, before: str | None) -> Callable[..., None]:
    def hook(_module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if before is not None:
            record[before] = _nhwc(inputs[0])
        record[name] = _nhwc(output)

    return hook


def _nhwc(x: Tensor) -> np.ndarray:
    # A copy: an in-place ReLU comes next.
    return np.array(as_numpy(x.permute(0, 2, 3, 1)), order="C")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def _parity() -> Iterator[None]:
    """Full float32 on GPUs: no TF32 in convolutions (torch's default there) nor in matrix products."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before

"""Runs a torch module for the proof: the twin, or any `nn.Module` whose `state_dict` is that of a dialect."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conversion.modules import read_module
from conversion.runners import Controls, Forced, Framework, Precision, Step, Trace, Tracer, input_name
from unet_core.batches import Batch
from unet_core.checkpoint import Checkpoint
from unet_core.errors import UNetError, first_line
from unet_core.hub import Tensors, contiguous, tensor_specs
from unet_core.reading import NO_HINTS, Hints
from unet_core.recipe import Recipe
from unet_core.settings import Optimizer
from unet_core.training_state import TrainingState
from unet_torch.checkpoint import from_checkpoint
from unet_torch.hub import as_numpy, as_torch, fill, to_hub, unwrapped
from unet_torch.layers import OUTPUTS
from unet_torch.model import UNet
from unet_torch.optimizers import optimizer_of
from unet_torch.states import hub_form, saved_form
from unet_torch.step import new_state, placed, updater

_DTYPES: dict[Precision, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}


class TorchRunner:
    """See `conversion.runners.Runner`. The module itself is never touched: every call runs a copy."""

    framework: Framework = "torch"

    def __init__(self, model: nn.Module, name: str, hints: Hints = NO_HINTS) -> None:
        model = unwrapped(model)
        checkpoint = read_module(model, hints, name)
        self.name = name
        self.config = checkpoint.config
        self.tensors = checkpoint.tensors
        self.versions = {"torch": torch.__version__}
        self.flags = _flags()
        parameter = next(model.parameters())
        self.device = _device_name(parameter.device)
        self._model = model
        self._hints = hints
        self._device = parameter.device
        self._keys = checkpoint.reading.keys
        self.output: str = checkpoint.config.output
        self._layers = {key.rpartition(".")[0]: hub.rpartition(".")[0] for hub, key in self._keys.items()}
        self.odd_sizes = True
        if not isinstance(model, UNet):
            self.output, self.odd_sizes = self._tried()

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> "TorchRunner":
        return cls(from_checkpoint(checkpoint), name)

    def with_tensors(self, tensors: Tensors) -> "TorchRunner":
        model = copy.deepcopy(self._model)
        named = {self._keys[key]: value for key, value in tensors.items() if key in self._keys}
        fill(model, {**to_hub(model), **named})
        return TorchRunner(model.to(self._device), self.name, self._hints)

    def predict(self, x: np.ndarray, precision: Precision) -> np.ndarray:
        with torch.inference_mode(), parity():
            return _nhwc(self._logits(self._copy(precision).eval(), x, precision))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        model = self._copy(precision).train().requires_grad_(True)  # frozen ones too: the network is judged
        with torch.enable_grad(), parity():
            logits = self._logits(model, x, precision)
            loss = (logits * self._nchw(cotangent, precision)).mean()
            loss.backward()
        return Step(_nhwc(logits), self._gradients(model), self._statistics(model))

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        def trace(x: np.ndarray, cotangent: np.ndarray | None = None, forced: Forced | None = None) -> Trace:
            model = self._copy(precision).train(training).requires_grad_(cotangent is not None)
            if isinstance(model, UNet):
                model.low_resolution = False  # makes no `join`, and calls not every layer
            outputs: dict[str, np.ndarray] = {}
            cotangents: dict[str, np.ndarray] = {}
            for name, module in model.named_modules():
                if name in self._layers:
                    module.register_forward_hook(_Noter(self._layers[name], outputs, cotangents, forced))
            with torch.set_grad_enabled(cotangent is not None), parity():
                logits = self._logits(model, x, precision)
                if cotangent is not None:
                    (logits * self._nchw(cotangent, precision)).mean().backward()
            if cotangent is None:
                return Trace(outputs, {}, {}, self._statistics(model))
            tapped = set(self._layers.values())  # what the loss does not depend on has the gradient 0
            backward = {name: cotangents.get(name, 0 * y) for name, y in outputs.items() if name in tapped}
            return Trace(outputs, backward, self._gradients(model), self._statistics(model))

        return trace

    def stepped(self, gradients: Sequence[Tensors], settings: Optimizer, precision: Precision) -> Tensors:
        before = {key: self.tensors[key].astype(precision) for key in gradients[0]}
        owners = {key: nn.Parameter(as_torch(value).to(self._device)) for key, value in before.items()}
        optimizer = optimizer_of(settings, owners.values())
        for given in gradients:
            for key, owner in owners.items():
                owner.grad = as_torch(given[key].astype(precision)).to(self._device)
            optimizer.step()
        return {key: as_numpy(owner) - before[key] for key, owner in owners.items()}

    def _tried(self) -> tuple[str, bool]:
        """What a foreign module really makes of its logits, and whether it takes odd sizes, by trying."""
        side = 2 * self.config.minimum_size
        x = np.random.default_rng(0).standard_normal((1, side + 1, side + 1, self.config.in_channels), np.float32)
        model = self._copy("float64").eval()
        returned: list[Any] = []
        with torch.inference_mode(), parity():
            try:
                self._logits(model, x, "float64")
                odd_sizes = True
            except UNetError:
                odd_sizes = False
            handle = model.register_forward_hook(lambda _module, _inputs, output: returned.append(output))
            logits = self._logits(model, x[:, :side, :side], "float64")
            handle.remove()
        for name, function in OUTPUTS.items():
            if isinstance(returned[0], Tensor) and torch.equal(returned[0], function(logits)):
                return name, odd_sizes
        return "something else than sigmoid, softmax or logits", odd_sizes

    def _gradients(self, model: nn.Module) -> Tensors:
        parameters, specs = dict(model.named_parameters()), tensor_specs(self.config)
        return {key: as_numpy(_gradient(parameters[name])) for key, name in self._keys.items() if specs[key].trained}

    def _statistics(self, model: nn.Module) -> Tensors:
        after, specs = to_hub(model), tensor_specs(self.config)
        return {key: after[name] for key, name in self._keys.items() if not specs[key].trained}

    def _copy(self, precision: Precision) -> nn.Module:
        return copy.deepcopy(self._model).to(_DTYPES[precision])

    def _nchw(self, x: np.ndarray, precision: Precision) -> Tensor:
        return torch.from_numpy(x).to(self._device, _DTYPES[precision]).permute(0, 3, 1, 2)

    def _logits(self, model: nn.Module, x: np.ndarray, precision: Precision) -> Tensor:
        """What the last layer answers: the logits of any class, whatever its `forward` makes of them."""
        answers: list[Tensor] = []
        head = next(name for name, layer in self._layers.items() if layer == "out")
        handle = model.get_submodule(head).register_forward_hook(
            lambda _module, _inputs, output: answers.append(output.clone())  # an in-place sigmoid may come next
        )
        try:
            model(self._nchw(x, precision))
        except RuntimeError as error:  # torch's own word for shapes that do not fit
            size = "x".join(map(str, x.shape[1:3]))
            least = self.config.minimum_size
            raise UNetError(
                f"{self.name}: does not run on {size} pixels ({first_line(error)}); "
                f"choose a size of which {least} is a divisor, such as {4 * least}x{6 * least}"
            ) from error
        finally:
            handle.remove()
        return answers[0]


def update(
    state: TrainingState, recipe: Recipe, batch: Batch, controls: Controls
) -> tuple[float, Tensors, TrainingState]:
    """One update by the trainer's own code; see `conversion.updates.Update`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    live = new_state(state.network, recipe, device)
    live.load_state_dict(saved_form(state, recipe, controls[0]))
    with parity():
        values = updater(recipe, live)(*placed(batch, recipe, device), *controls)
    gradients = {name: contiguous(as_numpy(_gradient(value))) for name, value in live.model.named_parameters()}
    after = hub_form(live.state_dict(state.step + 1), state.network, recipe, "the state after an update")
    return values[0].item(), gradients, after


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


class _Noter:
    """A forward hook that notes what a layer takes in and answers, and the gradient by that; and may force both."""

    def __init__(
        self, layer: str, outputs: dict[str, np.ndarray], cotangents: dict[str, np.ndarray], forced: Forced | None
    ) -> None:
        self.layer, self.outputs, self.cotangents, self.forced = layer, outputs, cotangents, forced

    def __call__(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        before = input_name(self.layer)
        if before is not None:
            self.outputs[before] = _nhwc(inputs[0])
        self.outputs[self.layer] = _nhwc(output)
        handed_on: Tensor = _HandedOn.apply(output, self)
        return handed_on


class _HandedOn(torch.autograd.Function):
    """What a layer hands on to the next, and what it hands back to the one before."""

    @staticmethod
    def forward(context: Any, y: Tensor, noter: _Noter) -> Tensor:
        context.noter = noter
        return (_like(y, noter.forced.outputs[noter.layer]) if noter.forced else y).clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        noter = context.noter
        noter.cotangents[noter.layer] = _nhwc(gradient)
        return (_like(gradient, noter.forced.cotangents[noter.layer]) if noter.forced else gradient), None


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    """The values, NHWC, as such a tensor, NCHW."""
    return torch.tensor(values, device=tensor.device, dtype=tensor.dtype).permute(0, 3, 1, 2)


def _nhwc(x: Tensor) -> np.ndarray:
    # A copy: an in-place ReLU comes next.
    return np.array(as_numpy(x.permute(0, 2, 3, 1)), order="C")


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _flags() -> dict[str, bool | str]:
    with parity():
        return {
            "torch.backends.cuda.matmul.allow_tf32": torch.backends.cuda.matmul.allow_tf32,
            "torch.backends.cudnn.allow_tf32": torch.backends.cudnn.allow_tf32,
            "torch.get_float32_matmul_precision": torch.get_float32_matmul_precision(),
        }


@contextmanager
def parity(*, tf32: bool = False) -> Iterator[None]:
    """Full float32 on GPUs: no TF32 in convolutions (torch's default there) nor in matrix products; or in both."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with torch.backends.cudnn.flags(allow_tf32=tf32):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before

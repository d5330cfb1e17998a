"""Runs networks in PyTorch for the proof: a twin, and any module by its own code."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conversion.backends.backend import (
    Controls,
    Forced,
    Framework,
    Precision,
    Roles,
    Sizes,
    Step,
    Trace,
    Tracer,
    Values,
    draws,
)
from conversion.backends.torch_taps import Notes, copied
from conversion.code import Live, of_theirs
from conversion.modules import is_own, read_module
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.graph import Node
from unet_core.graph.canonical import Tensors, contiguous, tensor_specs, under_all_names
from unet_core.graph.family import graph_of
from unet_core.training.settings import Optimizer
from unet_core.training.state import TrainingState
from unet_core.training.train_config import TrainConfig
from unet_torch import execution
from unet_torch.canonical import as_numpy, as_torch, fill, to_canonical, unwrapped
from unet_torch.checkpoint import from_checkpoint
from unet_torch.device import chosen_device
from unet_torch.network import Network
from unet_torch.reading.code import float64, quiet
from unet_torch.reading.draws import Drawn, Draws
from unet_torch.training.optimizers import optimizer_of
from unet_torch.training.states import canonical_form, saved_form
from unet_torch.training.step import new_state, placed, updater

_DTYPES: dict[Precision, torch.dtype] = {"float64": torch.float64, "float32": torch.float32}


class TorchRunner:
    """See `conversion.backends.backend.Runner`. The model itself is never touched: every call runs a copy."""

    framework: Framework = "torch"

    def __init__(self, model: nn.Module, checkpoint: Checkpoint, name: str, *, whole: bool = False) -> None:
        """Of a `unet_torch.UNet` or `Network`, and what it holds."""
        self.name = name
        self.config, self.tensors = checkpoint.config, checkpoint.tensors
        self.origin, self.evidence = checkpoint.origin, checkpoint.evidence
        self.output: str = checkpoint.config.output
        self.whole = whole
        self.versions: Mapping[str, str] = {"torch": torch.__version__}
        self.flags: Mapping[str, bool | str] = _flags()
        self._model = model
        self._device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        self.device = _device_name(self._device)

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint, name: str) -> "TorchRunner":
        return TorchRunner(from_checkpoint(checkpoint), checkpoint, name)

    def with_tensors(self, tensors: Tensors) -> "TorchRunner":
        model = copy.deepcopy(self._model)
        fill(model, {**self.tensors, **tensors})
        return self._like(model.to(self._device), tensors, whole=self.whole)

    def as_called(self) -> "TorchRunner":
        return self._like(self._model, self.tensors, whole=True)

    def predict(self, x: np.ndarray, precision: Precision) -> np.ndarray:
        with torch.no_grad(), parity():
            return _last(self._answer(self._copy(precision).eval(), x, precision))

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        model = self._copy(precision).train().requires_grad_(True)  # frozen ones too: the network is judged
        with torch.enable_grad(), parity():
            answer = self._answer(model, x, precision)
            loss = (answer * self._first(cotangent, precision)).mean()
            loss.backward()
        return Step(_last(answer), self._gradients(model), self._statistics(model))

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        def trace(x: np.ndarray, cotangent: np.ndarray | None = None, forced: Forced | None = None) -> Trace:
            model = self._as_graph(precision).train(training).requires_grad_(cotangent is not None)
            outputs: dict[str, np.ndarray] = {}
            cotangents: dict[str, np.ndarray] = {}
            with torch.set_grad_enabled(cotangent is not None), parity():
                notes = Notes(outputs, cotangents, forced)
                logits = model.logits(self._first(x, precision), tap=notes.of_node)
                if cotangent is not None:
                    (logits * self._first(cotangent, precision)).mean().backward()
            if cotangent is None:
                return Trace(outputs, {}, {}, self._statistics(model))
            # What the loss does not depend on has the gradient 0.
            backward = {name: cotangents.get(name, 0 * y) for name, y in outputs.items()}
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

    def _like(self, model: nn.Module, tensors: Tensors, *, whole: bool) -> "TorchRunner":
        """The same network with this model."""
        other = copy.copy(self)
        other._model, other.tensors, other.whole = model, tensors, whole
        return other

    def _answer(self, model: Any, x: np.ndarray, precision: Precision) -> Tensor:
        given = self._first(x, precision)
        if isinstance(model, Network):
            model._draw = _drawn  # type: ignore[method-assign]
        answer: Tensor = model(given) if self.whole else model.logits(given)
        return answer

    def _as_graph(self, precision: Precision) -> Network:
        """A copy that is run node by node."""
        twin = Checkpoint(graph_of(self.config), self.tensors, evidence=self.evidence)
        model: Any = from_checkpoint(twin)
        model._draw = _drawn
        found: Network = model.to(self._device, _DTYPES[precision])
        return found

    def _gradients(self, model: nn.Module) -> Tensors:
        parameters, specs = dict(model.named_parameters()), tensor_specs(self.config)
        return {key: as_numpy(_gradient(parameters[key])) for key, spec in specs.items() if spec.trained}

    def _statistics(self, model: nn.Module) -> Tensors:
        after, specs = to_canonical(model), tensor_specs(self.config)
        return {key: after[key] for key, spec in specs.items() if not spec.trained}

    def _copy(self, precision: Precision) -> nn.Module:
        return copy.deepcopy(self._model).to(_DTYPES[precision])

    def _first(self, x: np.ndarray, precision: Precision) -> Tensor:
        """In torch's layout."""
        return torch.from_numpy(x).to(self._device, _DTYPES[precision]).movedim(-1, 1).contiguous()


class ModuleRunner(TorchRunner):
    """A torch module of anybody's, run by its own code; layer by layer, the graph that was read from it."""

    def __init__(self, live: Live, checkpoint: Checkpoint, name: str) -> None:
        super().__init__(live.module, checkpoint, name, whole=True)
        self._live = live

    def with_tensors(self, tensors: Tensors) -> "TorchRunner":
        model = copy.deepcopy(self._model).double()
        state = {name: as_torch(value) for name, value in under_all_names(tensors, self.config).items()}
        model.load_state_dict({**model.state_dict(), **state})
        return self._like(model, tensors, whole=True)

    def _answer(self, model: Any, x: np.ndarray, precision: Precision) -> Tensor:
        with of_theirs(self.name), drawing_alike(precision):
            return self._live.picked(model(self._first(x, precision)))


def runner_of(model: nn.Module, name: str) -> TorchRunner:
    """A runner of a live module: by its own code, where it is not what this project's classes build."""
    model = unwrapped(model)
    checkpoint = read_module(model, name)
    if is_own(model):
        return TorchRunner(model, checkpoint, name)
    return ModuleRunner(Live(model), checkpoint, name)


runner_of_checkpoint = TorchRunner.of_checkpoint


@contextmanager
def drawing_alike(precision: Precision = "float64") -> Iterator[None]:
    """Run a module's own code so that what it drops at random are the `draws` of a proof."""
    with quiet(), float64() if precision == "float64" else nullcontext(), Drawn(_Same(0)):
        yield


class _Same(Draws):
    """Draws what a graph draws, whatever was drawn before."""

    def __call__(self, shape: Sequence[int]) -> Tensor:
        return _drawn(shape)


def _drawn(shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(draws(shape))


def evaluated(node: Node, inputs: Values, roles: Roles, sizes: Sizes, *, training: bool) -> np.ndarray:
    """The output of a node alone, in float64; see `conversion.backends.backend.Values`."""
    tensors = {role: as_torch(value) for role, value in roles.items()}
    with torch.no_grad(), parity():
        given = [as_torch(value) for value in inputs]
        return as_numpy(execution.evaluated(node, given, tensors, sizes, training=training, draw=_drawn))


def gradients(
    node: Node, inputs: Values, roles: Roles, sizes: Sizes, back: np.ndarray, *, training: bool
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """The gradients by what it takes in, and by its tensors, of what it hands back."""
    given = [as_torch(value).requires_grad_() for value in inputs]
    tensors = {role: as_torch(value) for role, value in roles.items()}
    floats = {role: value.requires_grad_() for role, value in tensors.items() if value.is_floating_point()}
    with torch.enable_grad(), parity():
        answer = execution.evaluated(node, given, {**tensors, **floats}, sizes, training=training, draw=_drawn)
        leaves = [*given, *floats.values()]
        found = torch.autograd.grad(answer, leaves, as_torch(back), materialize_grads=True, allow_unused=True)
    arrays = [as_numpy(value) for value in found]
    return arrays[: len(given)], dict(zip(floats, arrays[len(given) :], strict=True))


def update(
    state: TrainingState, config: TrainConfig, batch: Batch, controls: Controls
) -> tuple[float, Tensors, TrainingState]:
    """One update by the trainer's own code; see `conversion.backends.backend.Backend`."""
    device = chosen_device()
    live = new_state(state.network, config, device)
    live.load_state_dict(saved_form(state, config, controls[0]))
    with parity():
        values = updater(config, live)(*placed(batch, config, device), *controls)
    gradients = {name: contiguous(as_numpy(_gradient(value))) for name, value in live.model.named_parameters()}
    after = canonical_form(live.state_dict(state.step + 1), state.network, config, "the state after an update")
    return values[0].item(), gradients, after


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _last(x: Tensor) -> np.ndarray:
    """With the channels last."""
    return copied(x.movedim(1, -1))


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

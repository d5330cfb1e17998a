"""PyTorch's side of the speed measurement. `unet_compare/speed/jax_backend.py` is the twin."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unet_compare.speed.plan import Precision, Setup
from unet_core.data.batches import Batch
from unet_core.errors import UNetError
from unet_core.graph.canonical import Description
from unet_torch.checkpoint import from_checkpoint
from unet_torch.device import chosen_device
from unet_torch.reading.read import picked
from unet_torch.training.optimizers import optimizer_of
from unet_torch.training.step import TrainState, new_state, placed, updater

DEVICE = chosen_device()
ON_GPU = DEVICE.type == "cuda"


def use(precision: Precision) -> None:
    """See `unet_compare.speed.worker.SpeedBackend`."""
    if ON_GPU:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"


def describe() -> dict[str, Any]:
    """Platform, device, and settings."""
    matmul, convolution = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    return {
        "platform": "gpu" if ON_GPU else "cpu",
        "device": torch.cuda.get_device_name() if ON_GPU else "cpu",
        "threads": torch.get_num_threads(),
        "tf32": ON_GPU and torch.cuda.get_device_capability() >= (8, 0) and matmul and convolution,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "fused_optimizer": True,
    }


class Theirs(nn.Module):
    """Code of another project, called as the modules of this one.

    Args:
        module: the code.
        config: what was read from it.
    """

    def __init__(self, module: nn.Module, config: Description) -> None:
        super().__init__()
        self.module = module
        self.config = config

    def forward(self, x: Tensor) -> Tensor:
        """What the code returns; of several tensors the first."""
        answer = self.module(x)
        return answer if isinstance(answer, Tensor) else picked(answer)

    def logits(self, x: Tensor) -> Tensor:
        """The same, where that is logits."""
        if self.config.output != "logits":
            raise UNetError("its code answers no logits, which training starts from; leave --module out")
        return self(x)


class Job:
    """A candidate in one case."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.checkpoint = setup.subject.checkpoint()
        self.channels = self.checkpoint.config.in_channels
        words = setup.candidate.words
        self.compile, self.last, self.low = (word in words for word in ("compile", "channels_last", "low-resolution"))
        self.mode = "max-autotune" if "max-autotune" in words else None
        if "frozen" in words:
            import torch._inductor.config

            torch._inductor.config.freezing = True
        training = setup.case.kind == "training"
        self.run = self._training() if training else self._inference()

    def placed(self, batch: Batch) -> Any:
        image, labels = placed(batch, self.setup.recipe, DEVICE)
        synchronize()
        return (image if self.last else image.contiguous()), labels

    def call(self, inputs: Any) -> Tensor:
        output = self.run(*inputs)
        synchronize()
        return output

    def answer(self, output: Tensor) -> np.ndarray:
        output = output.float().cpu()
        return (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).numpy()

    def settle(self) -> None:
        self.clear()
        gc.collect()
        if ON_GPU:
            torch.cuda.empty_cache()  # the other candidates wait on the same device

    def memory_peak(self) -> int | None:
        return torch.cuda.max_memory_allocated() if ON_GPU else None

    def _inference(self) -> Callable[[Tensor, Tensor], Tensor]:
        own = self.setup.subject.own_code(self.checkpoint)
        model: Any = from_checkpoint(self.checkpoint) if own is None else Theirs(own, self.checkpoint.config).eval()
        model = model.to(DEVICE, memory_format=self._format)
        model.low_resolution = self.low
        network = torch.compile(model, mode=self.mode) if self.compile else model
        self.clear: Callable[[], object] = lambda: None

        def run(image: Tensor, _: Tensor) -> Tensor:
            narrow = torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.setup.precision == "bfloat16")
            with torch.inference_mode(), narrow:
                return network(image)

        return run

    def _training(self) -> Callable[[Tensor, Tensor], Tensor]:
        train_config = self.setup.recipe
        state = new_state(self.checkpoint, train_config, DEVICE)
        own = self.setup.subject.own_code(self.checkpoint)
        if own is not None:
            model: Any = Theirs(own, state.model.config).to(DEVICE).train()
            trained = [one for one in own.parameters() if one.requires_grad]
            state = TrainState(model, optimizer_of(train_config.optimizer, trained), None)
        state.model.to(memory_format=self._format)  # type: ignore[call-overload]
        state.model.low_resolution = self.low
        for group in state.optimizer.param_groups:
            group["fused"] = True
        if self.mode:
            state.model.logits = torch.compile(state.model.logits, mode=self.mode)  # type: ignore[method-assign]
        update = updater(train_config, state)
        self.clear = state.optimizer.zero_grad
        return lambda image, labels: update(image, labels, train_config.optimizer.rate, 1.0)

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.last else torch.contiguous_format


def memory_used() -> int | None:
    """Bytes that tensors have on the GPU."""
    return torch.cuda.memory_allocated() if ON_GPU else None


def reset_peak() -> None:
    """Begin anew."""
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()


def matmul(precision: str) -> tuple[int, Callable[[], None]]:
    """A product of large matrices, in this precision; several in flight on a GPU, where one is short."""
    size, times = (8192, 2) if ON_GPU else (2048, 1)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=DEVICE).to(kind) for _ in range(2))

    def multiply() -> None:
        for _ in range(times):
            torch.mm(a, b)
        synchronize()

    return 2 * size**3 * times, multiply


def synchronize() -> None:
    """Wait for the GPU."""
    if ON_GPU:
        torch.cuda.synchronize()

"""The UNet in Flax NNX. `unet_torch/model.py` is its twin: the same names, the same network."""

import dataclasses
from typing import Unpack

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from unet_core.checkpoints.evidence import OURS
from unet_core.config import Options, UNetConfig
from unet_core.graph.family import graph
from unet_jax.canonical import fill
from unet_jax.execution import How
from unet_jax.initial import initial_tensors
from unet_jax.network import Network


class Kinds(How, total=False):
    """How a `UNet` is kept and run."""

    param_dtype: DTypeLike


class OptionsAndKinds(Options, Kinds, total=False):
    """Both."""


class UNet(Network):
    """A UNet with BatchNorm (after Ronneberger et al., arXiv:1505.04597), of the family of `UNetConfig`, NHWC.

    It is the `Network` of `unet_core.graph.family.graph(config)`, which reads block by block as the twin's module does:
    down1, down2, ... and bottom, each (3x3 convolution, BatchNorm, ReLU) twice, a max-pool between two of them; upN,
    ..., up1, each upsampled to the size of the skip connection and concatenated with it; out. A parameter of the
    twin, such as `down1.conv.0.weight`, has the same name, layout and values here.

    A new network is in training mode: `model.eval()` before it predicts, `model.train()` before it learns. It runs
    under `nnx.jit`, or under `jax.jit` with `nnx.split` and `nnx.merge`; BatchNorm's statistics are `nnx.BatchStat`.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        rngs: `nnx.Rngs(seed)`, a key, or the seed itself: the same seed is the same network in `unet_torch.UNet`,
            bit for bit.
            None leaves every variable at zero, for a network that is filled next.
        options: `features`, `upsampling`, `align_corners` and so on, as in `unet_core.UNetConfig`; `param_dtype` as in
            `Network`; `dtype`, `remat`, `norm_parts` and `rewrites` as in `unet_jax.execution.Execution`.

    Raises:
        unet_core.ConfigError: arguments that describe no network.

    Examples:
        >>> import jax.numpy as jnp, unet_jax
        >>> from flax import nnx
        >>> model = unet_jax.UNet(3, 1, rngs=nnx.Rngs(0), features=(4, 8))
        >>> model.eval()
        >>> model(jnp.zeros((1, 20, 15, 3))).shape  # probabilities
        (1, 20, 15, 1)
    """

    def __init__(
        self,
        in_channels: int = UNetConfig.in_channels,
        out_channels: int = UNetConfig.out_channels,
        *,
        rngs: nnx.Rngs | Array | int | None,
        **options: Unpack[OptionsAndKinds],
    ) -> None:
        kinds = {name: options.pop(name) for name in Kinds.__annotations__ if name in options}  # type: ignore[misc]
        config = UNetConfig(in_channels, out_channels, **options)  # type: ignore[misc]
        super().__init__(graph(config), evidence=OURS, **kinds)
        self._config = config
        if rngs is not None:
            fill(self, initial_tensors(config, rngs), keep_dtypes=False)

    @property
    def config(self) -> UNetConfig:
        """Of which it has the graph."""
        return self._config

    @classmethod
    def from_config(cls, config: UNetConfig, *, rngs: nnx.Rngs | Array | int | None, **kinds: Unpack[Kinds]) -> "UNet":
        """The network that `config` describes."""
        return cls(**dataclasses.asdict(config), **kinds, rngs=rngs)

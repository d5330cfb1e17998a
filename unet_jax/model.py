"""The UNet in Flax NNX. `unet_torch/model.py` is its twin: same names, same order."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from unet_core.checkpoint import Origin
from unet_core.config import Fit, Output, UNetConfig, Upsampling
from unet_core.evidence import OURS
from unet_core.windows import upsampling_taps
from unet_jax.hub import fill
from unet_jax.initial import initial_tensors
from unet_jax.layers import OUTPUTS, BatchNorm, Convolution, TransposedConvolution, activated, fit, max_pool


class DoubleConv(nnx.Module):
    """(3x3 convolution, BatchNorm, ReLU) twice; without biases in the convolutions unless `config` says so.

    In a decoder with transposed upsampling, `up` is the transposed convolution that precedes the concatenation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        config: UNetConfig,
        middle_channels: int | None = None,
        up: tuple[int, int] | None = None,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
    ) -> None:
        middle_channels = middle_channels or out_channels
        kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        self.config = config
        self.up = TransposedConvolution(*up, **kinds) if up else None
        self.conv1 = Convolution(in_channels, middle_channels, 3, bias=config.conv_bias, **kinds)
        self.norm1: BatchNorm | None = BatchNorm(middle_channels, config=config, **kinds)
        self.conv2 = Convolution(middle_channels, out_channels, 3, bias=config.conv_bias, **kinds)
        self.norm2: BatchNorm | None = BatchNorm(out_channels, config=config, **kinds)

    def __call__(
        self, x: Float[Array, "n h w c"], skip: Float[Array, "n H W e"] | None = None
    ) -> Float[Array, "n H W d"]:
        """Of an encoder's input, or of the map below and the skip connection."""
        x = activated(self.conv1(x) if skip is None else self._joined(x, skip), self.norm1)
        return activated(self.conv2(x), self.norm2)

    def _joined(self, x: Array, skip: Array) -> Array:
        """The first convolution of `x`, upsampled, and the skip connection."""
        height, width = skip.shape[1:3]
        taps = None
        if self.up is not None:
            x = fit(self.up(x), height, width, self.config)
        else:
            rows, columns = (
                upsampling_taps(self.config, size, below, 0, size + size % 2)
                for size, below in ((height, x.shape[1]), (width, x.shape[2]))
            )
            taps = rows, columns
        return self.conv1.joined(x, skip, taps, skip_first=self.config.skip_first)

    def fold(self, platform: str | None = None, skip: int = 0) -> None:
        """Make BatchNorm, as it predicts, a part of the convolutions, and prepare these for the platform.

        Args:
            platform: as in `UNet.fold`.
            skip: channels of the skip connection, in a decoder.
        """
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            if norm is not None:
                conv.fold(*norm.predicting())
        self.norm1 = self.norm2 = None
        if platform != "cpu":
            return
        convolutions = [self.conv2]
        if skip:
            convolutions.append(self.conv1.split(skip, skip_first=self.config.skip_first))
        if not skip or self.up is not None:  # `convolve_upsampled` takes the kernel as it is
            convolutions.append(self.conv1)
        for convolution in convolutions:
            convolution.prepare()


class UNet(nnx.Module):
    """A UNet with BatchNorm (after Ronneberger et al., arXiv:1505.04597), of the family of `UNetConfig`, NHWC.

    A new network is in training mode: `model.eval()` before it predicts, `model.train()` before it learns. It runs
    under `nnx.jit`, or under `jax.jit` with `nnx.split` and `nnx.merge`; BatchNorm's statistics are `nnx.BatchStat`.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        features: channels of each level, the last one being the bottom; a max-pool lies between two levels.
        upsampling, align_corners, skip_first, fit, conv_bias, output, decoder_features, middle_features,
        upsampled_features, norm_epsilon, norm_momentum: as in `unet_core.UNetConfig`.
        dtype: computes in this dtype (BatchNorm in float32 at least); None: in the common one of input and parameters.
        param_dtype: keeps the parameters in this one, and the statistics in float32 at least.
        remat: keeps only each block's input for the backward pass and computes the rest again: less memory, more time.
        rngs: `nnx.Rngs(seed)`, a key, or the seed itself: the same seed is the same network in `unet_torch.UNet`,
            bit for bit.
            None leaves every kernel at zero, for a network that is filled next.

    Raises:
        unet_core.ConfigError: arguments that describe no network.
    """

    def __init__(
        self,
        in_channels: int = UNetConfig.in_channels,
        out_channels: int = UNetConfig.out_channels,
        *,
        features: tuple[int, ...] = UNetConfig.features,
        upsampling: Upsampling = UNetConfig.upsampling,
        align_corners: bool = UNetConfig.align_corners,
        skip_first: bool = UNetConfig.skip_first,
        fit: Fit = UNetConfig.fit,
        conv_bias: bool = UNetConfig.conv_bias,
        output: Output = UNetConfig.output,
        decoder_features: tuple[int, ...] | None = UNetConfig.decoder_features,
        middle_features: tuple[int, ...] | None = UNetConfig.middle_features,
        upsampled_features: tuple[int, ...] | None = UNetConfig.upsampled_features,
        norm_epsilon: float = UNetConfig.norm_epsilon,
        norm_momentum: float = UNetConfig.norm_momentum,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs | Array | int | None,
    ) -> None:
        self.config = config = UNetConfig(
            in_channels=in_channels,
            out_channels=out_channels,
            features=features,
            upsampling=upsampling,
            align_corners=align_corners,
            skip_first=skip_first,
            fit=fit,
            conv_bias=conv_bias,
            output=output,
            decoder_features=decoder_features,
            middle_features=middle_features,
            upsampled_features=upsampled_features,
            norm_epsilon=norm_epsilon,
            norm_momentum=norm_momentum,
        )
        self.origin, self.evidence = Origin(), OURS
        self.remat = remat
        kinds: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        for name, before, middle, after, up in (*config.encoder_blocks, *config.decoder_blocks):
            block = DoubleConv(before, after, config=config, middle_channels=middle, up=up, **kinds)
            setattr(self, name, block)
        self.out = Convolution(config.decoder_blocks[-1].after, config.out_channels, 1, bias=True, **kinds)
        if rngs is not None:
            fill(self, initial_tensors(config, rngs), keep_dtypes=False)

    @classmethod
    def from_config(
        cls,
        config: UNetConfig,
        *,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        rngs: nnx.Rngs | Array | int | None,
    ) -> "UNet":
        """The network that `config` describes."""
        return cls(**dataclasses.asdict(config), dtype=dtype, param_dtype=param_dtype, remat=remat, rngs=rngs)

    @property
    def training(self) -> bool:
        """Whether BatchNorm takes the batch's statistics, as after `train()`; False after `eval()`."""
        norm: BatchNorm | None = getattr(self, "bottom").norm1  # noqa: B009  (set by name in __init__)
        return norm is not None and not norm.use_running_average

    def logits(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w k"]:
        """The answer before the sigmoid or softmax.

        Raises:
            ValueError: another number of channels than the config's, less than `config.minimum_size` pixels of height
                or width, or, in training mode, a single value per channel at some BatchNorm.
        """
        _, height, width, channels = x.shape
        self.config.check_input(height, width, channels)
        run = nnx.remat(self._block) if self.remat else self._block
        skips: list[Array] = []
        for block in self.config.encoder_blocks:
            if skips:
                x = self._pool(x)
            x = run(getattr(self, block.name), x)
            skips.append(x)
        skips.pop()
        for block in self.config.decoder_blocks:
            level = getattr(self, block.name)
            x = run(level, x, skips.pop())
        return self.out(x)

    @staticmethod
    def _block(level: DoubleConv, x: Array, skip: Array | None = None) -> Array:
        """How a level is run, rematerialised or not."""
        return level(x, skip)

    @staticmethod
    def _pool(x: Array) -> Array:
        """What lies between two encoder blocks."""
        return max_pool(x)

    def fold(self, platform: str | None = None) -> "UNet":
        """A copy that only predicts: BatchNorm's running statistics are a part of its convolutions.

        Its logits are those of this network in eval mode, to rounding. It cannot be trained, saved or converted.

        Args:
            platform: where it will predict. On a "cpu" its wide convolutions take fewer multiplications, and their
                kernels about twice the memory (`unet_jax.winograd`); None: anywhere.
        """
        folded = nnx.clone(self)
        folded.eval()
        *encoders, bottom = self.config.encoder_blocks
        for block in (*encoders, bottom):
            getattr(folded, block.name).fold(platform)
        for block, beside in zip(self.config.decoder_blocks, reversed(encoders), strict=True):
            getattr(folded, block.name).fold(platform, beside.after)
        return folded

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w k"]:
        """What `config.output` makes of `logits`, by default their sigmoid: probabilities. Raises what that raises."""
        return OUTPUTS[self.config.output](self.logits(x))

"""The UNet in PyTorch. `unet_jax/model.py` is its twin: same names, same order."""

import dataclasses
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_core.checkpoints.checkpoint import Origin
from unet_core.checkpoints.evidence import OURS
from unet_core.config import Options, UNetConfig
from unet_core.graph.initial import SEEDS, check_seed, initial_tensors
from unet_torch.canonical import as_torch
from unet_torch.layers import OUTPUTS, convolution, join, max_pool, norm, transposed_convolution
from unet_torch.pretrained import Pretrained
from unet_torch.upsampled import convolve_joined, saves


class DoubleConv(nn.Module):
    """(3x3 convolution, BatchNorm, ReLU) twice; without biases in the convolutions unless `config` says so.

    In a decoder with transposed upsampling, `up` is the transposed convolution that precedes the concatenation.

    Examples:
        >>> import torch
        >>> from unet_torch import DoubleConv, UNetConfig
        >>> DoubleConv(3, 8, config=UNetConfig())(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        config: UNetConfig,
        middle_channels: int | None = None,
        up: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        middle_channels = middle_channels or out_channels
        self.up = transposed_convolution(*up) if up else None
        self.conv = nn.Sequential(
            convolution(in_channels, middle_channels, 3, bias=config.conv_bias),
            norm(middle_channels, config),
            nn.ReLU(inplace=True),
            convolution(middle_channels, out_channels, 3, bias=config.conv_bias),
            norm(out_channels, config),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        return self.conv(x)


class UNet(Pretrained, nn.Module):
    """A UNet with BatchNorm (after Ronneberger et al., arXiv:1505.04597), of the family of `UNetConfig`, NCHW.

    Its `state_dict` has the keys `{down1..,bottom,..up1}.conv.{0,1,3,4}.*`, `up*.up.*` where the upsampling is
    transposed, `out.weight` and `out.bias`. A new network is in training mode.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        seed: the same seed is the same network in `unet_jax.UNet`, bit for bit. Left out, it is drawn from torch's
            global generator, so that `torch.manual_seed` governs it.
        low_resolution: compute the decoder's first convolutions at the low resolution where that takes fewer
            operations and the upsampling is bilinear (`unet_torch.upsampled`). The same parameters and outputs, to
            rounding; hooks of these convolutions are not called. An attribute, which may be changed at any time.
        options: `features`, `upsampling`, `align_corners` and so on, as in `unet_core.UNetConfig`.

    Raises:
        unet_core.ConfigError: arguments that describe no network.

    Examples:
        >>> import torch, unet_torch
        >>> model = unet_torch.UNet(3, 1, seed=0, features=(4, 8)).eval()
        >>> model(torch.zeros(1, 3, 20, 15)).shape  # probabilities
        torch.Size([1, 1, 20, 15])
    """

    def __init__(
        self,
        in_channels: int = UNetConfig.in_channels,
        out_channels: int = UNetConfig.out_channels,
        *,
        seed: int | None = None,
        low_resolution: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        self.low_resolution = low_resolution
        self.config = config = UNetConfig(in_channels, out_channels, **options)
        self.origin, self.evidence = Origin(), OURS
        with torch.device("meta"):
            for name, before, middle, after, up in (*config.encoder_blocks, *config.decoder_blocks):
                self.add_module(name, DoubleConv(before, after, config=config, middle_channels=middle, up=up))
            self.out = convolution(config.decoder_blocks[-1].after, config.out_channels, 1, bias=True)
        if torch.get_default_device().type != "meta":
            self._initialise(int(torch.randint(len(SEEDS), (), device="cpu")) if seed is None else check_seed(seed))

    @classmethod
    def from_config(cls, config: UNetConfig, *, seed: int | None = None, low_resolution: bool = False) -> "UNet":
        """The network that `config` describes."""
        return cls(**dataclasses.asdict(config), seed=seed, low_resolution=low_resolution)

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """The output before the sigmoid or softmax.

        Raises:
            ValueError: another number of channels than the config's, less than `config.minimum_size` pixels of height
                or width, or, in training mode, a single value per channel at some BatchNorm.
        """
        _, channels, height, width = x.shape
        self.config.check_input(height, width, channels)
        skips: list[Tensor] = []
        for block in self.config.encoder_blocks:
            if skips:
                x = max_pool(x)
            x = getattr(self, block.name)(x)
            skips.append(x)
        skips.pop()
        for block in self.config.decoder_blocks:
            x = self._decoded(getattr(self, block.name), x, skips.pop())
        return self.out(x)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """What `config.output` makes of `logits`, by default their sigmoid: probabilities. Raises what that raises."""
        return OUTPUTS[self.config.output](self.logits(x))

    def _decoded(
        self, level: DoubleConv, x: Float[Tensor, "n c h w"], skip: Float[Tensor, "n e H W"]
    ) -> Float[Tensor, "n d H W"]:
        """What a level of the decoder makes of the map below and the skip connection."""
        if self.low_resolution and self.config.upsampling == "bilinear" and saves(*x.shape[1:]):
            return level.conv[1:](convolve_joined(level.conv[0], x, skip, self.config))  # type: ignore[arg-type]
        return level(join(x, skip, self.config, level.up))

    def _initialise(self, seed: int) -> None:
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        values = {key: as_torch(value) for key, value in initial_tensors(self.config, seed).items()}
        self.load_state_dict(
            {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in values.items()},
            assign=True,
        )

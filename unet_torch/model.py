"""The UNet in PyTorch. `unet_jax/model.py` is its twin: same names, same order."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_core.config import UNetConfig
from unet_core.initial import SEEDS, check_seed, initial_tensors
from unet_torch.hub import as_torch
from unet_torch.layers import batch_norm, convolution, join, max_pool


class DoubleConv(nn.Module):
    """(3x3 convolution without bias, BatchNorm, ReLU) twice."""

    def __init__(self, in_channels: int, out_channels: int, *, config: UNetConfig) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            convolution(in_channels, out_channels, 3, bias=False),
            batch_norm(out_channels, config),
            nn.ReLU(inplace=True),
            convolution(out_channels, out_channels, 3, bias=False),
            batch_norm(out_channels, config),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        return self.conv(x)


class UNet(nn.Module):
    """A UNet with BatchNorm and bilinear upsampling (after Ronneberger et al., arXiv:1505.04597), NCHW.

    Its `state_dict` has the keys `{down1..,bottom,..up1}.conv.{0,1,3,4}.*`, `out.weight` and `out.bias`. A new network
    is in training mode.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the logits.
        features: channels of each level, the last one being the bottom; a max-pool lies between two levels.
        align_corners, skip_first, norm_epsilon, norm_momentum: as in `unet_core.UNetConfig`.
        seed: the same seed is the same network in `unet_jax.UNet`, bit for bit. Left out, it is drawn from torch's
            global generator, so that `torch.manual_seed` governs it.

    Raises:
        unet_core.ConfigError: arguments that describe no network.
    """

    def __init__(
        self,
        in_channels: int = UNetConfig.in_channels,
        out_channels: int = UNetConfig.out_channels,
        *,
        features: tuple[int, ...] = UNetConfig.features,
        align_corners: bool = UNetConfig.align_corners,
        skip_first: bool = UNetConfig.skip_first,
        norm_epsilon: float = UNetConfig.norm_epsilon,
        norm_momentum: float = UNetConfig.norm_momentum,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config = UNetConfig(
            in_channels=in_channels,
            out_channels=out_channels,
            features=features,
            align_corners=align_corners,
            skip_first=skip_first,
            norm_epsilon=norm_epsilon,
            norm_momentum=norm_momentum,
        )
        with torch.device("meta"):
            for name, before, after in (*config.encoder_blocks, *config.decoder_blocks):
                self.add_module(name, DoubleConv(before, after, config=config))
            self.out = convolution(config.features[0], config.out_channels, 1, bias=True)
        if torch.get_default_device().type != "meta":
            self._initialise(int(torch.randint(len(SEEDS), (), device="cpu")) if seed is None else check_seed(seed))

    @classmethod
    def from_config(cls, config: UNetConfig, *, seed: int | None = None) -> "UNet":
        """The network that `config` describes."""
        return cls(**dataclasses.asdict(config), seed=seed)

    def logits(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """The answer before the sigmoid.

        Raises:
            ValueError: another number of channels than the config's, less than `config.minimum_size` pixels of height
                or width, or, in training mode, a single value per channel at some BatchNorm.
        """
        _, channels, height, width = x.shape
        self.config.check_input(height, width, channels)
        skips: list[Tensor] = []
        for name, _, _ in self.config.encoder_blocks:
            if skips:
                x = max_pool(x)
            x = getattr(self, name)(x)
            skips.append(x)
        skips.pop()
        for name, _, _ in self.config.decoder_blocks:
            x = getattr(self, name)(join(x, skips.pop(), self.config))
        return self.out(x)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
        """Probabilities: the sigmoid of `logits`; raises what that raises."""
        return torch.sigmoid(self.logits(x))

    def _initialise(self, seed: int) -> None:
        device, dtype = torch.get_default_device(), torch.get_default_dtype()
        values = {key: as_torch(value) for key, value in initial_tensors(self.config, seed).items()}
        self.load_state_dict(
            {key: value.to(device, dtype if value.is_floating_point() else None) for key, value in values.items()},
            assign=True,
        )

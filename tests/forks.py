"""A small UNet under this project's own names, and forks of it that keep every name and compute something else."""

import re
from pathlib import Path

import torch

ARGUMENTS = "n_channels=3 n_classes=2"

SOURCE = '''
import torch
from torch import nn
from torch.nn import functional


class Norm(nn.Module):
    """GroupNorm, with all that BatchNorm keeps."""

    def __init__(self, channels):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        return functional.group_norm(x, 2, self.weight, self.bias)


def double(before, after):
    parts = []
    for channels in (before, after):
        parts += [
            nn.Conv2d(channels, after, 3, padding=PADDING, bias=False),
            NORM(after),
            ACTIVATION,
        ]
    return nn.Sequential(*parts)


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.conv = double(before, after)

    def forward(self, x):
        return self.conv(x)


class UNet(nn.Module):
    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.down1, self.down2, self.bottom = Block(n_channels, 4), Block(4, 6), Block(6, 8)
        self.up2, self.up1 = Block(14, 6), Block(10, 4)
        self.out = nn.Conv2d(4, n_classes, 1)

    def join(self, x, skip):
        x = functional.interpolate(x, size=skip.shape[2:], UPSAMPLING)
        return torch.cat([x, skip], dim=1)

    def forward(self, x):
        skips = []
        for block in (self.down1, self.down2):
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
            SKIPS
        x = self.bottom(x)
        for block in (self.up2, self.up1):
            x = block(self.join(x, skips.pop()))
        return OUTPUT
'''

PLAIN = {
    "PADDING": "1",
    "NORM": "nn.BatchNorm2d",
    "ACTIVATION": "nn.ReLU(inplace=True)",
    "UPSAMPLING": 'mode="bilinear", align_corners=True',
    "SKIPS": "pass",
    "OUTPUT": "torch.sigmoid(self.out(x))",
}
FORKS = {
    "none": {},
    "half-pixel corners": {"UPSAMPLING": 'mode="bilinear", align_corners=False'},
    "nearest": {"UPSAMPLING": 'mode="nearest"'},
    "LeakyReLU": {"ACTIVATION": "nn.LeakyReLU(0.01, inplace=True)"},
    "another epsilon": {"NORM": "(lambda channels: nn.BatchNorm2d(channels, eps=1e-3))"},
    "no sigmoid": {"OUTPUT": "self.out(x)"},
    "unpadded, pooled skips": {"PADDING": "0", "SKIPS": "skips[-1] = x"},
    "GroupNorm": {"NORM": "Norm"},
}
"""What is planted, by what a person would call it."""
OF_THE_FAMILY = ("none", "half-pixel corners", "another epsilon", "no sigmoid")


def written(fork: str, folder: Path) -> Path:
    """The file of a fork."""
    path = folder / f"{re.sub(r'[^a-z]+', '_', fork.lower())}.py"
    text = SOURCE
    for name, value in {**PLAIN, **FORKS[fork]}.items():
        text = re.sub(rf"\b{name}\b", lambda _, value=value: value, text)
    path.write_text(text)
    return path


def built(path: Path) -> torch.nn.Module:
    """The network of such a file, with what some training would leave in it; the same in every fork."""
    found: dict = {}
    exec(compile(path.read_text(), path, "exec"), found)
    module, rng = found["UNet"](3, 2), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("tracked"):
                value.fill_(17)
            elif value.ndim == 4:
                value.copy_(torch.randn(value.shape, generator=rng) * (2 / value[0].numel()) ** 0.5)
            else:
                middle = 1.0 if name.endswith(("weight", "var")) else 0.0
                value.copy_(middle + 0.3 * (2 * torch.rand(value.shape, generator=rng) - 1))
    return module.eval()

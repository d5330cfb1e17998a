"""UNets as other projects have them: the names, shapes and forward semantics of their state dicts, at any width.

Written anew from the behaviour of milesial/Pytorch-UNet and mateuszbuda/brain-segmentation-pytorch, and of three
ways in which such networks are written in many places.
"""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional


def double(before, after, middle=None, *, bias=False):
    middle = middle or after
    return nn.Sequential(
        nn.Conv2d(before, middle, 3, padding=1, bias=bias),
        nn.BatchNorm2d(middle),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, after, 3, padding=1, bias=bias),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Holder(nn.Module):
    """A module whose only part has this name."""

    def __init__(self, name, part):
        super().__init__()
        self.add_module(name, part)

    def forward(self, x):
        (part,) = self.children()
        return part(x)


def padded(x, skip):
    rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
    return functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])


class Milesial(nn.Module):
    """Since 2020; with `bias`, its releases of that year. `width` is 64 in the project."""

    inner, pooled = "double_conv", "maxpool_conv"

    def __init__(self, n_channels, n_classes, bilinear=False, *, width=64, bias=False):
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        factor = 2 if bilinear else 1
        widths[-1] //= factor
        self.bilinear = bilinear
        self.inc = Holder(self.inner, double(n_channels, widths[0], bias=bias))
        for level in range(1, 5):
            block = Holder(self.inner, double(widths[level - 1], widths[level], bias=bias))
            self.add_module(f"down{level}", Holder(self.pooled, nn.Sequential(nn.MaxPool2d(2), block)))
        for rank in range(1, 5):
            before = width * 2 ** (5 - rank)
            after = before // 2 // (factor if rank < 4 else 1)
            self.add_module(f"up{rank}", self.decoder(before, after, bias=bias))
        self.outc = Holder("conv", nn.Conv2d(width, n_classes, 1))

    def decoder(self, before, after, *, bias):
        part = nn.Module()
        if self.bilinear:
            part.conv = Holder(self.inner, double(before, after, before // 2, bias=bias))
        else:
            part.up = nn.ConvTranspose2d(before, before // 2, 2, stride=2)
            part.conv = Holder(self.inner, double(before, after, bias=bias))
        return part

    def forward(self, x):
        skips = [self.inc(x)]
        for level in range(1, 5):
            skips.append(getattr(self, f"down{level}")(skips[-1]))
        x = skips.pop()
        for rank in range(1, 5):
            part, skip = getattr(self, f"up{rank}"), skips.pop()
            if self.bilinear:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            else:
                x = part.up(x)
            x = part.conv(torch.cat([skip, padded(x, skip)], dim=1))
        return self.outc(x)


class Milesial2019(Milesial):
    """Until 2019: biases, another bilinear decoder, a transposed convolution that keeps the channels."""

    inner, pooled = "conv", "mpconv"

    def __init__(self, n_channels, n_classes, bilinear=True, *, width=64):
        super().__init__(n_channels, n_classes, True, width=width, bias=True)
        self.bilinear = bilinear
        self.inc = Holder(self.inner, self.inc)
        for rank in range(1, 5):
            before = width * 2 ** (5 - rank)
            after = max(before // 4, width)
            part = nn.Module()
            if not bilinear:
                part.up = nn.ConvTranspose2d(before // 2, before // 2, 2, stride=2)
            part.conv = Holder(self.inner, double(before, after, bias=True))
            setattr(self, f"up{rank}", part)

    def forward(self, x):
        return torch.sigmoid(super().forward(x))


class MateuszBuda(nn.Module):
    def __init__(self, in_channels=3, out_channels=1, init_features=32):
        super().__init__()
        widths = [init_features * 2**level for level in range(5)]
        for level in range(1, 5):
            before = in_channels if level == 1 else widths[level - 2]
            self.add_module(f"encoder{level}", self.block(before, widths[level - 1], f"enc{level}"))
        self.bottleneck = self.block(widths[3], widths[4], "bottleneck")
        for level in range(4, 0, -1):
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(widths[level], widths[level - 1], 2, stride=2))
            self.add_module(f"decoder{level}", self.block(2 * widths[level - 1], widths[level - 1], f"dec{level}"))
        self.conv = nn.Conv2d(init_features, out_channels, 1)

    @staticmethod
    def block(before, after, name):
        parts = zip(("conv1", "norm1", "relu1", "conv2", "norm2", "relu2"), double(before, after), strict=True)
        return nn.Sequential(OrderedDict((name + end, part) for end, part in parts))

    def forward(self, x):
        skips = []
        for level in range(1, 5):
            x = getattr(self, f"encoder{level}")(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for level in range(4, 0, -1):
            x = torch.cat((getattr(self, f"upconv{level}")(x), skips.pop()), dim=1)
            x = getattr(self, f"decoder{level}")(x)
        return torch.sigmoid(self.conv(x))


class ListedUNet(nn.Module):
    """Module lists, the decoder's registered before the encoder's; transposed, [skip, up], resized, logits."""

    def __init__(self, in_channels=3, out_channels=1, features=(8, 16, 32)):
        super().__init__()
        self.ups, self.downs = nn.ModuleList(), nn.ModuleList()
        for before, after in zip((in_channels, *features), features, strict=False):
            self.downs.append(Holder("conv", double(before, after)))
        for width in reversed(features):
            self.ups.append(nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.ups.append(Holder("conv", double(2 * width, width)))
        self.bottleneck = Holder("conv", double(features[-1], 2 * features[-1]))
        self.final_conv = nn.Conv2d(features[0], out_channels, 1)

    def forward(self, x):
        skips = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for up, block in zip(self.ups[::2], self.ups[1::2], strict=True):
            x, skip = up(x), skips.pop()
            if x.shape != skip.shape:
                x = functional.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat((skip, x), dim=1))
        return self.final_conv(x)


class FlatUNet(nn.Module):
    """Bilinear with half-pixel corners, biases, decoder blocks named from the top, [up, skip], a softmax."""

    def __init__(self, in_channels=1, out_channels=4, width=6):
        super().__init__()
        widths = [width * 2**level for level in range(4)]
        for level in range(4):
            before = in_channels if level == 0 else widths[level - 1]
            self.add_module(f"dconv_down{level + 1}", double(before, widths[level], bias=True))
        for level in (3, 2, 1):
            self.add_module(f"dconv_up{level}", double(widths[level] + widths[level - 1], widths[level - 1], bias=True))
        self.conv_last = nn.Conv2d(width, out_channels, 1)

    def forward(self, x):
        skips = []
        for level in (1, 2, 3):
            x = getattr(self, f"dconv_down{level}")(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.dconv_down4(x)
        for level in (3, 2, 1):
            skip = skips.pop()
            x = functional.interpolate(x, skip.shape[2:], mode="bilinear", align_corners=False)
            x = getattr(self, f"dconv_up{level}")(torch.cat([x, skip], dim=1))
        return torch.softmax(self.conv_last(x), dim=1)


class AttributeBlock(nn.Module):
    def __init__(self, before, after, below=None):
        super().__init__()
        if below is not None:
            self.up = nn.ConvTranspose2d(below, after, 2, stride=2)
        self.conv1, self.conv2 = (nn.Conv2d(channels, after, 3, padding=1) for channels in (before, after))
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)

    def forward(self, x, skip=None):
        if skip is not None:
            x = torch.cat([self.up(x), skip], dim=1)
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class AttributeUNet(nn.Module):
    """Layers as attributes, both convolutions of a block before both BatchNorms; transposed, [up, skip], sigmoid."""

    def __init__(self, width=5):
        super().__init__()
        self.e1, self.e2 = AttributeBlock(3, width), AttributeBlock(width, 2 * width)
        self.b = AttributeBlock(2 * width, 4 * width)
        self.d1, self.d2 = AttributeBlock(4 * width, 2 * width, 4 * width), AttributeBlock(2 * width, width, 2 * width)
        self.outputs = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        s1 = self.e1(x)
        s2 = self.e2(functional.max_pool2d(s1, 2))
        x = self.b(functional.max_pool2d(s2, 2))
        return torch.sigmoid(self.outputs(self.d2(self.d1(x, s2), s1)))


def trained(model, seed=0):
    """The model with the parameters and statistics that some training would leave, in eval mode."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5)):
                    uniform(tensor, low, low + 1)
                for tensor in (module.bias, module.running_mean):
                    uniform(tensor, -0.3, 0.3)
                module.num_batches_tracked.fill_(17)
            elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                for tensor in (module.weight, module.bias):
                    if tensor is not None:
                        uniform(tensor, -(module.weight[0].numel() ** -0.5), module.weight[0].numel() ** -0.5)
    return model.eval()

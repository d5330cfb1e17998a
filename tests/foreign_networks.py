"""Networks with the traits of those that people bring, tiny, and written for the tests: what a reader of code meets."""

import torch
from torch import nn
from torch.nn import functional as F


def block(before, after, norm=nn.BatchNorm2d):
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        norm(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, 3, padding=1),
        norm(after),
        nn.ReLU(inplace=True),
    )


class Small(nn.Module):
    """Two levels; what lies between them is what is tested."""

    def __init__(self, width=4, channels=3):
        super().__init__()
        self.down = block(channels, width)
        self.bottom = block(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.joined = block(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(skip, 2)))
        x = F.interpolate(x, skip.shape[2:])
        return self.out(self.joined(torch.cat([skip, x], 1)))


class AttentionGates(Small):
    def __init__(self, width=4):
        super().__init__(width)
        self.gate = nn.Sequential(nn.Conv2d(width, 2, 1), nn.BatchNorm2d(2))
        self.skip = nn.Sequential(nn.Conv2d(width, 2, 1), nn.BatchNorm2d(2))
        self.psi = nn.Sequential(nn.Conv2d(2, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x):
        skip = self.down(x)
        x = F.interpolate(self.up(self.bottom(F.max_pool2d(skip, 2))), skip.shape[2:])
        weights = self.psi(F.relu(self.gate(x) + self.skip(skip)))
        return self.out(self.joined(torch.cat([skip * weights, x], 1)))


class Recurrent(nn.Module):
    """The same convolution and BatchNorm, several times."""

    def __init__(self, width=4, times=2):
        super().__init__()
        self.times = times
        self.first = nn.Conv2d(3, width, 1)
        self.conv = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        x = self.first(x)
        y = self.conv(x)
        for _ in range(self.times):
            y = self.conv(x + y)
        return self.out(x + y)


class NestedSkips(nn.Module):
    """Nested skip connections with deep supervision: a list of maps."""

    def __init__(self, width=3):
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv00, self.conv10, self.conv20 = block(3, width), block(width, width), block(width, width)
        self.conv01, self.conv11, self.conv02 = (
            block(2 * width, width),
            block(2 * width, width),
            block(3 * width, width),
        )
        self.final1, self.final2 = nn.Conv2d(width, 2, 1), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x00 = self.conv00(x)
        x10 = self.conv10(self.pool(x00))
        x20 = self.conv20(self.pool(x10))
        x01 = self.conv01(torch.cat([x00, self.up(x10)], 1))
        x11 = self.conv11(torch.cat([x10, self.up(x20)], 1))
        x02 = self.conv02(torch.cat([x00, x01, self.up(x11)], 1))
        return [self.final1(x01), self.final2(x02)]


class Unpadded(nn.Module):
    """Convolutions without padding, and skips that are cropped."""

    def __init__(self, width=4):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU())
        self.bottom = nn.Sequential(nn.Conv2d(width, width, 3), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.joined = nn.Sequential(nn.Conv2d(2 * width, width, 3), nn.ReLU())
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(skip, 2)))
        top, left = ((skip.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
        skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        return self.out(self.joined(torch.cat([skip, x], 1)))


class CroppedFromBothEnds(Unpadded):
    def forward(self, x):
        skip = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(skip, 2)))
        rows, columns = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
        skip = F.pad(skip, [-(columns // 2), -(columns - columns // 2), -(rows // 2), -(rows - rows // 2)])
        return self.out(self.joined(torch.cat([skip, x], 1)))


class AveragePools(nn.Module):
    """Average pools, InstanceNorm without affine, and reflected padding to the skip's size."""

    def __init__(self, width=4):
        super().__init__()

        def part(before, after):
            return nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False), nn.InstanceNorm2d(after), nn.LeakyReLU(0.2)
            )

        self.down, self.bottom, self.joined = part(1, width), part(width, width), part(2 * width, width)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2, bias=False)
        self.out = nn.Conv2d(width, 1, 1)

    def padding(self, x, skip):
        return [0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2]]

    def pads(self, padding):
        return True

    def forward(self, x):
        skip = self.down(x)
        x = self.up(self.bottom(F.avg_pool2d(skip, kernel_size=2, stride=2, padding=0)))
        padding = self.padding(x, skip)
        if self.pads(padding):
            x = F.pad(x, padding, "reflect")
        return self.out(self.joined(torch.cat([x, skip], dim=1)))


class BranchOnTensor(AveragePools):
    """A branch on the value of a tensor that is made of sizes."""

    def padding(self, x, skip):
        return [0, int(x.shape[-1] != skip.shape[-1]), 0, int(x.shape[-2] != skip.shape[-2])]

    def pads(self, padding):
        return torch.sum(torch.tensor(padding)) != 0


class BranchOnPicture(nn.Module):
    """A branch on the picture itself: no graph."""

    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.out(x) if x.mean() > 0 else -self.out(x)


class BranchOnSize(Small):
    """Something else at odd sizes, and where it is small."""

    def forward(self, x):
        skip = self.down(x)
        x = self.up(self.bottom(F.max_pool2d(skip, 2)))
        if x.shape != skip.shape[:1] + x.shape[1:2] + skip.shape[2:]:
            x = F.interpolate(x, skip.shape[2:], mode="bilinear")
            x = x * 2
        return self.out(self.joined(torch.cat([skip, x], 1)))


class FixedSize(nn.Module):
    """Something else at every size."""

    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        return self.out(x) * sum(range(int(x.shape[2]))) / int(x.shape[3])


class Antialiased(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first, self.out = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 1, 1)

    def forward(self, x):
        y = F.relu(self.first(x))
        half = F.interpolate(y, scale_factor=0.5, mode="bilinear", antialias=True, recompute_scale_factor=True)
        return self.out(y - F.interpolate(half, y.shape[2:], mode="bicubic", align_corners=False))


class VGG(nn.Module):
    """A flat list of layers as encoder, of which some are taken."""

    def __init__(self, width=4):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2, ceil_mode=True)),
        )
        self.center = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(2 * width, width, 3, padding=1), nn.ELU(inplace=True)
        )
        self.out = nn.Conv2d(width, 3, 1)

    def forward(self, x):
        size, skips = x.shape[-2:], []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                skips.append(x)
        x = torch.cat([self.center(x), skips[-1]], 1)
        return torch.log_softmax(F.interpolate(self.out(self.up(x)), size, mode="bilinear"), dim=1)


class Residual(nn.Module):
    """A ResNet's block and stem, squeeze and excitation, and bottleneck with groups."""

    def __init__(self, width=4):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, 2, 1, groups=2, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.shortcut = nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 2), nn.SiLU(), nn.Linear(2, 2 * width)
        )
        self.out = nn.Conv2d(2 * width, 2, 1)

    def forward(self, x):
        y = self.pool(self.stem(x))
        z = self.bn1(self.conv1(y))
        z = z * F.hardsigmoid(self.squeeze(z))[:, :, None, None]
        z += self.shortcut(y)
        z.relu_()
        return F.interpolate(self.out(z), size=x.shape[-2:], mode="bilinear", align_corners=False)


class Dictionary(Small):
    """A dict of maps, of which one lies deeper."""

    def forward(self, x):
        y = super().forward(x)
        return {"aux": {"deep": [F.max_pool2d(y, 2), torch.sigmoid(y[:, :1])]}, "out": torch.sigmoid(y)}


class OtherInTraining(Small):
    """More answers in training than in eval mode."""

    def forward(self, x):
        y = super().forward(x)
        return (y, F.avg_pool2d(y, 2)) if self.training else y


class Dropouts(nn.Module):
    """Dropout of maps, of numbers, of no number, and at all times in eval mode of none."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.maps, self.numbers, self.nothing = nn.Dropout2d(0.3), nn.Dropout(0.2), nn.Dropout(0.0)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x = self.maps(F.relu(self.first(x)))
        x = self.numbers(F.relu(self.second(x)))
        return self.out(self.nothing(F.dropout(x, 0.1, self.training)))


class NoGradient(Dropouts):
    """Writes to what its gradient needs."""

    def forward(self, x):
        return self.out(F.dropout(torch.sigmoid(self.first(x)), 0.2, self.training, inplace=True))


class DropoutAlways(Dropouts):
    def forward(self, x):
        return self.out(F.dropout(F.relu(self.first(x)), 0.4, training=True))


class DropPath(nn.Module):
    """Whole branches that are dropped at random, in the two ways in which code draws for that."""

    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.one, self.two = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 2, 1)

    def drawn(self, x, keep=0.7):
        return x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep) * x

    def floored(self, x, keep=0.8):
        random = keep + torch.rand((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device)
        return x / keep * random.floor()

    def forward(self, x):
        x = self.first(x)
        one, two = self.one(x), self.two(x)
        if self.training:
            one, two = self.drawn(one), self.floored(two)
        return self.out(F.gelu(x + one + two))


class Norms(nn.Module):
    """GroupNorm, a LayerNorm of channels, InstanceNorm that tracks, and BatchNorm without tracking or affine."""

    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.ModuleList(nn.Conv2d(3 if not number else width, width, 3, padding=1) for number in range(5))
        self.group, self.layer = nn.GroupNorm(2, width), nn.LayerNorm(width, eps=1e-3)
        self.instance = nn.InstanceNorm2d(width, affine=True, track_running_stats=True)
        self.batch = nn.BatchNorm2d(width, track_running_stats=False)
        self.plain = nn.BatchNorm2d(width, affine=False, momentum=0.3)
        self.cumulative = nn.BatchNorm2d(width, momentum=None)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        x = F.mish(self.group(self.conv[0](x)))
        x = self.layer(self.conv[1](x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = F.softplus(self.instance(self.conv[2](x)))
        x = torch.tanh(self.batch(self.conv[3](x)))
        return self.out(F.selu(self.cumulative(self.plain(self.conv[4](x)))))


class FrozenNorm(Small):
    """A BatchNorm that stays in eval mode."""

    def train(self, mode=True):
        super().train(mode)
        self.down[1].eval()
        return self


class AttentionBlock(nn.Module):
    """Self-attention over the pixels of the lowest level, with position embeddings, in three spellings."""

    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Conv2d(3, width, 4, stride=4)
        self.scale = nn.Parameter(torch.ones(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = nn.MultiheadAttention(width, 2, batch_first=True)
        self.out = nn.Conv2d(width, 32, 1)
        self.shuffle = nn.PixelShuffle(4)

    def forward(self, x):
        x = self.first(x)
        n, c, h, w = x.shape
        y = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(y) * self.scale).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        y = y + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c))
        weights = torch.einsum("nic,njc->nij", y, y).softmax(-1)
        y = y + torch.bmm(weights, y)
        y = y + self.heads(y, y, y, need_weights=False)[0]
        return self.shuffle(self.out(y.transpose(1, 2).view(n, c, h, w)))


class Convolutions(nn.Module):
    """All ways in which a convolution pads, strides and dilates."""

    def __init__(self, width=4):
        super().__init__()
        self.circular = nn.Conv2d(3, width, 3, padding=1, padding_mode="circular")
        self.reflect = nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect", stride=2)
        self.same = nn.Conv2d(width, width, (2, 4), padding="same", dilation=(1, 2))
        self.depthwise = nn.Conv2d(width, width, 3, padding=2, dilation=2, groups=width)
        self.prelu, self.one = nn.PReLU(width), nn.PReLU()
        self.up = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.out = nn.Conv2d(width, 1, (1, 1), padding="valid")

    def forward(self, x):
        y = self.reflect(self.circular(x))
        y = self.depthwise(self.one(self.same(self.prelu(y))))
        return self.out(F.hardswish(self.up(y)))


class InPlace(nn.Module):
    """Writes to maps, and to parts of them."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.out = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2, 1)

    def forward(self, x):
        y = self.first(x)
        view = y.permute(0, 2, 3, 1)
        y += 1
        y[:, :1] *= 2
        y[:, 1, 2:-1].clamp_(min=0)
        y[:, 2:].mul_(y[:, :2].sigmoid())
        view.neg_()
        canvas = torch.zeros_like(y)
        canvas[:, :, 1:] = y[:, :, :-1]
        return self.out(F.relu_(canvas) + y)


class Twice(nn.Module):
    """A module under two names, one of its own tensors by itself, and tensors that nothing uses."""

    def __init__(self, width=4):
        super().__init__()
        conv, norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv, self.norm = conv, norm
        self.all = nn.Sequential(conv, norm, nn.ReLU())
        self.factor = nn.Parameter(torch.full((1, width, 1, 1), 0.5))
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 1, 3]))
        self.register_buffer("kept", torch.tensor(0.7), persistent=False)
        self.unused = nn.Linear(2, 2)
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        y = self.all(x - self.mean) * self.factor
        return self.out(y[:, self.order] * self.kept + torch.tensor([1.0, 2.0]).repeat(2)[:, None, None])


class Tied(nn.Module):
    """Two convolutions with one kernel."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(F.relu(self.one(x)))


class Volume(nn.Module):
    """In three dimensions."""

    def __init__(self, width=3):
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(2, width, 3, padding=1), nn.InstanceNorm3d(width, affine=True), nn.PReLU())
        self.bottom = nn.Sequential(nn.Conv3d(width, width, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(width))
        self.drop = nn.Dropout3d(0.2)
        self.up = nn.Upsample(scale_factor=(1, 2, 2), mode="trilinear", align_corners=False)
        self.out = nn.Conv3d(2 * width, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        x = F.interpolate(self.up(self.drop(self.bottom(skip))), skip.shape[2:], mode="nearest")
        return self.out(torch.cat((skip, x), dim=1))


class WithoutGradient(Small):
    """A part of the code that has no gradient."""

    def forward(self, x):
        with torch.no_grad():
            mean = x.mean((2, 3), keepdim=True)
        return super().forward(x - mean)


class Detached(Small):
    def forward(self, x):
        return super().forward(x - self.down(x).mean(1, keepdim=True).detach())


class WeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.out(self.conv(x))


class OldWeightNorm(WeightNorm):
    def __init__(self):
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1))


class Standardised(nn.Conv2d):
    """A convolution that standardises its kernel."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


class WithoutRow(nn.Module):
    """Operations that no graph has."""

    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.out(torch.cumsum(torch.erfinv(x.clamp(-0.9, 0.9)), 3))


class TwoPictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Conv2d(3, 1, 1)

    def forward(self, x, other):
        return self.out(x + other)


def filled(module, seed=0):
    """The same in eval mode, with weights and statistics that no constructor gives, and no part of it dead."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(5)
        elif tensor.ndim > 1:
            scale = max(0.1, (2 * len(tensor) / tensor.numel()) ** 0.5)
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
        elif tensor.is_floating_point():
            low, high = (-0.3, 0.3) if name.endswith(("bias", "running_mean")) else (0.5, 1.5)
            tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))
    return module.eval()

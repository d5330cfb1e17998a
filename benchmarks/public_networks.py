"""Networks that others wrote, with random weights: MONAI's, nnU-Net's and those of segmentation_models_pytorch.

Each at a small width where its constructor has one. Their packages are imported where a network is built.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from benchmarks.torchvision_operators import register_torchvision


@dataclass(frozen=True)
class Public:
    """A network that someone else wrote."""

    build: Callable[[], nn.Module]
    size: tuple[int, ...]
    """At which to try it; height and width, before them depth where it is 3-D."""
    channels: int = 3
    package: str = ""

    @property
    def dimensions(self) -> int:
        return len(self.size)


def built(name: str, seed: int = 0) -> nn.Module:
    """The network of this name in eval mode, with weights and statistics that no constructor gives."""
    register_torchvision()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return disturbed(NETWORKS[name].build()).eval()


def wide(name: str) -> nn.Module:
    """The network of this name in `WIDE`, as `built` gives the small ones."""
    register_torchvision()
    return disturbed(WIDE[name].build()).eval()


def disturbed(module: nn.Module) -> nn.Module:
    """The same, after statistics, affines and biases were made such as some training leaves them."""
    for part in module.modules():
        own = dict(part.named_parameters(recurse=False))
        for name, tensor in own.items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                near = 1.0 if name == "weight" and part.__class__.__name__ != "PReLU" else 0.0
                tensor.data = near + 0.2 * torch.randn_like(tensor) if near else 0.2 * torch.rand_like(tensor)
        for name, tensor in part.named_buffers(recurse=False):
            if name == "running_mean":
                tensor.data = 0.3 * torch.randn_like(tensor)
            elif name == "running_var":
                tensor.data = 0.5 + torch.rand_like(tensor)
            elif name == "num_batches_tracked":
                tensor.data = torch.tensor(7)
    return module


def _monai(name: str, **given) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from monai.networks import nets

        return getattr(nets, name)(**given)

    return build


def _smp(name: str, encoder: str, **given) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=2, **given)

    return build


def _nnunet(name: str, dimensions: int, *, deep: bool = False, **given) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from dynamic_network_architectures.architectures import unet

        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if dimensions == 2 else nn.InstanceNorm3d
        blocks = "n_blocks_per_stage" if name.startswith("Residual") else "n_conv_per_stage"
        return getattr(unet, name)(
            input_channels=2,
            n_stages=4,
            features_per_stage=(4, 8, 12, 16),
            conv_op=convolution,
            kernel_sizes=3,
            strides=(1, 2, 2, 2),
            num_classes=3,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=norm,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=deep,
            **{blocks: 2},
            **given,
        )

    return build


def _networks() -> dict[str, Public]:
    flat, solid = {"spatial_dims": 2}, {"spatial_dims": 3}
    ends = {"in_channels": 2, "out_channels": 3}
    unet = {**ends, "channels": (4, 8, 12, 16), "strides": (2, 2, 2), "num_res_units": 2}
    attention = {**ends, "channels": (4, 8, 12), "strides": (2, 2)}
    dyn = {
        **ends,
        "kernel_size": (3, 3, 3, 3),
        "strides": (1, 2, 2, 2),
        "upsample_kernel_size": (2, 2, 2),
        "filters": (4, 8, 12, 16),
    }
    seg = {**ends, "init_filters": 8, "blocks_down": (1, 2, 2), "blocks_up": (1, 1)}
    found = {
        "monai.BasicUNet": (_monai("BasicUNet", **flat, **ends, features=(4, 4, 8, 12, 16, 4)), (64, 48)),
        "monai.BasicUNet-3d": (_monai("BasicUNet", **solid, **ends, features=(4, 4, 8, 12, 16, 4)), (32, 32, 16)),
        "monai.UNet": (_monai("UNet", **flat, **unet, dropout=0.2), (64, 48)),
        "monai.UNet-batch": (_monai("UNet", **flat, **unet, norm="batch"), (64, 48)),
        "monai.UNet-3d": (_monai("UNet", **solid, **unet), (32, 24, 16)),
        "monai.AttentionUnet": (_monai("AttentionUnet", **flat, **attention), (32, 48)),
        "monai.AttentionUnet-3d": (_monai("AttentionUnet", **solid, **attention, dropout=0.1), (16, 24, 16)),
        "monai.DynUNet": (_monai("DynUNet", **flat, **dyn), (64, 48)),
        "monai.DynUNet-3d": (_monai("DynUNet", **solid, **dyn, res_block=True), (32, 24, 16)),
        "monai.SegResNet": (_monai("SegResNet", **flat, **seg), (64, 48)),
        "monai.SegResNet-3d": (_monai("SegResNet", **solid, **seg, dropout_prob=0.2), (16, 24, 16)),
    }
    networks = {name: Public(build, size, 2, "monai") for name, (build, size) in found.items()}
    found = {
        "nnunet.PlainConvUNet": (_nnunet("PlainConvUNet", 2), (64, 48)),
        "nnunet.PlainConvUNet-3d": (_nnunet("PlainConvUNet", 3, deep=True), (24, 32, 16)),
        "nnunet.ResidualEncoderUNet": (_nnunet("ResidualEncoderUNet", 2), (64, 48)),
        "nnunet.ResidualEncoderUNet-3d": (_nnunet("ResidualEncoderUNet", 3), (24, 32, 16)),
    }
    networks |= {name: Public(build, size, 2, "dynamic_network_architectures") for name, (build, size) in found.items()}
    narrow = {"decoder_channels": (16, 12, 8, 8, 4)}
    found = {
        "smp.Unet-resnet34": _smp("Unet", "resnet34", **narrow),
        "smp.Unet-scse": _smp("Unet", "resnet18", decoder_attention_type="scse", decoder_channels=(32, 24, 16, 16, 16)),
        "smp.Unet-efficientnet-b0": _smp("Unet", "efficientnet-b0", **narrow),
        "smp.Unet-mit_b0": _smp("Unet", "mit_b0", **narrow),
        "smp.UnetPlusPlus-resnet18": _smp("UnetPlusPlus", "resnet18", **narrow),
        "smp.FPN-resnet18": _smp("FPN", "resnet18", decoder_pyramid_channels=32, decoder_segmentation_channels=32),
        "smp.DeepLabV3Plus-resnet18": _smp("DeepLabV3Plus", "resnet18", decoder_channels=16),
    }
    networks |= {name: Public(build, (96, 64), 3, "segmentation_models_pytorch") for name, build in found.items()}
    return networks


NETWORKS = _networks()
"""By name, `package.Class` and what is special."""


def _wide() -> dict[str, Public]:
    def plain() -> nn.Module:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet

        return PlainConvUNet(
            input_channels=1,
            n_stages=7,
            features_per_stage=(32, 64, 128, 256, 512, 512, 512),
            conv_op=nn.Conv2d,
            kernel_sizes=3,
            strides=(1, 2, 2, 2, 2, 2, 2),
            n_conv_per_stage=2,
            num_classes=2,
            n_conv_per_stage_decoder=2,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )

    ends = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    size = (256, 256)
    return {
        "smp.Unet-resnet34": Public(_smp("Unet", "resnet34"), size),
        "smp.Unet-resnet50": Public(_smp("Unet", "resnet50"), size),
        "monai.BasicUNet": Public(_monai("BasicUNet", **ends), size, 1),
        "nnunet.PlainConvUNet": Public(plain, size, 1),
        "smp.FPN-resnet34": Public(_smp("FPN", "resnet34"), size),
        "smp.Unet-efficientnet-b0": Public(_smp("Unet", "efficientnet-b0"), size),
        "smp.DeepLabV3Plus-resnet34": Public(_smp("DeepLabV3Plus", "resnet34"), size),
        "monai.SegResNet": Public(_monai("SegResNet", **ends, init_filters=32), size, 1),
    }


WIDE = _wide()
"""Some of them at their usual widths, for timing."""

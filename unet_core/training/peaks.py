"""What devices compute at most, for the utilisation of one: operations per second over these.

Figures of the vendors, dense (half of those with 2:4 sparsity), multiplied in the format and added up in float32:

- TPU: https://cloud.google.com/tpu/docs (v3, v4, v5e, v5p, v6e, tpu7x: "peak compute per chip"); v2: Jouppi et al.,
  CACM 63(7), 2020. A chip of v2, v3 and TPU7x is two devices in JAX. Products of float32 arrays are by default one pass
  in bfloat16, so that they have its figure.
- NVIDIA: the data sheets under https://www.nvidia.com/en-us/data-center/ of V100, T4, A10, A30, A40, A100, L4, L40,
  L40S, H100, H200, GH200, HGX B200 and GB200; the appendices of the white papers on GA102, Ada and RTX Blackwell.
"""

from collections.abc import Mapping
from typing import NamedTuple

from unet_core.training.train_config import Precision


class Peak(NamedTuple):
    """TFLOP/s of one device, by the format of the factors; None where it has no units for that."""

    float32: float
    tf32: float | None = None
    bfloat16: float | None = None


_A100, _H100, _H100_NVL = Peak(19.5, 156, 312), Peak(67, 494.7, 989.4), Peak(60, 417.5, 835.5)

PEAKS: Mapping[str, Peak] = {
    "TPU v2": Peak(23, None, 23),
    "TPU v3": Peak(61.5, None, 61.5),
    "TPU v4": Peak(275, None, 275),
    "TPU v5 lite": Peak(197, None, 197),
    "TPU v5e": Peak(197, None, 197),
    "TPU v5": Peak(459, None, 459),
    "TPU v5p": Peak(459, None, 459),
    "TPU v6 lite": Peak(918, None, 918),
    "TPU v6e": Peak(918, None, 918),
    "TPU7x": Peak(1153.5, None, 1153.5),
    "Tesla V100-PCIE-16GB": Peak(14),
    "Tesla V100-PCIE-32GB": Peak(14),
    "Tesla V100S-PCIE-32GB": Peak(16.4),
    "Tesla V100-SXM2-16GB": Peak(15.7),
    "Tesla V100-SXM2-32GB": Peak(15.7),
    "Tesla T4": Peak(8.1),
    "NVIDIA A10": Peak(31.2, 62.5, 125),
    "NVIDIA A30": Peak(10.3, 82, 165),
    "NVIDIA A40": Peak(37.4, 74.8, 149.7),
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA L4": Peak(30.3, 60, 121),
    "NVIDIA L40": Peak(90.5, 90.5, 181),
    "NVIDIA L40S": Peak(91.6, 183, 362),
    "NVIDIA H100 PCIe": Peak(51, 378, 756),
    "NVIDIA H100 NVL": _H100_NVL,
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H200": _H100,
    "NVIDIA H200 NVL": _H100_NVL,
    "NVIDIA GH200 480GB": _H100,
    "NVIDIA B200": Peak(75, 1125, 2250),
    "NVIDIA GB200": Peak(80, 1250, 2500),
    "NVIDIA RTX A6000": Peak(38.7, 77.4, 154.8),
    "NVIDIA RTX 6000 Ada Generation": Peak(91.1, 182.1, 364.2),
    "NVIDIA GeForce RTX 3090": Peak(35.6, 35.6, 71),
    "NVIDIA GeForce RTX 4090": Peak(82.6, 82.6, 165.2),
    "NVIDIA GeForce RTX 5090": Peak(104.8, 104.8, 209.5),
}
"""By the whole name that the framework gives the device: a part of one (MIG) and a laptop's have other names."""


def peak(device: str, precision: Precision, *, tf32: bool) -> float | None:
    """FLOP/s of one device; None where the figure is not known, as of any CPU.

    Args:
        device: `device_kind` in JAX, `torch.cuda.get_device_name` in PyTorch.
        precision: what the network computes in.
        tf32: whether products of float32 arrays may be in TF32.
    """
    found = PEAKS.get(device)
    if found is None or precision == "float64":
        return None
    single = (found.tf32 if tf32 else None) or found.float32
    figure = found.bfloat16 if precision == "bfloat16" else single
    return None if figure is None else figure * 1e12

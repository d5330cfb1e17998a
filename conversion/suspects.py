"""Why a layer departs: each known mistake is tried on the recorded numbers, and named where it explains them."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from conversion.runners import Runner
from unet_core.config import UNetConfig
from unet_core.hub import Tensors
from unet_core.resize import interpolation_matrix

_CLOSE = 1e-9
"""A suspect explains float64 numbers when it reproduces them this well, relative to the largest."""

_AXES: Mapping[tuple[int, ...], str] = {
    (0, 1, 3, 2): "height and width of the kernel are swapped",
    (1, 0, 2, 3): "input and output channels of the kernel are swapped",
    (1, 0, 3, 2): "the kernel's channels are swapped, and its height and width",
    (2, 3, 1, 0): "the kernel lies in HWIO order but was taken for OIHW",
    (3, 2, 0, 1): "the kernel lies in OIHW order but was taken for HWIO",
}


@dataclass(frozen=True)
class Scene:
    """What the two networks had and did where they part."""

    a: Runner
    b: Runner
    layer: str
    x: np.ndarray
    answers: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]
    """Every layer's answer in float64, of a and of b."""
    training: bool


def forward_cause(scene: Scene) -> str | None:
    """The likely cause of a layer's departure in the forward pass; None where no known one explains it."""
    if scene.layer.endswith(".join"):
        return _join_cause(scene)
    return parameter_cause(scene.layer, scene.a.tensors, scene.b.tensors) or _norm_cause(scene)


def parameter_cause(layer: str, a: Tensors, b: Tensors) -> str | None:
    """How the parameters and statistics of one layer differ; None where they do not."""
    names = [key for key in a if key.rpartition(".")[0] == layer and not np.array_equal(_wide(a[key]), _wide(b[key]))]
    if not names:
        return None
    bad = [key for key in names if not np.isfinite(_wide(b[key])).all() or not np.isfinite(_wide(a[key])).all()]
    if bad:
        return f"{', '.join(bad)} holds values that are not finite"
    kernel = f"{layer}.weight"
    if kernel in names and a[kernel].ndim == 4:
        return _kernel_cause(_wide(a[kernel]), _wide(b[kernel])) or _plain_difference(names, a, b)
    for one, other in permutations(names, 2):
        if a[one].shape == b[other].shape and np.array_equal(_wide(a[one]), _wide(b[other])):
            return f"{one} and {other} are swapped"
    return _plain_difference(names, a, b)


def statistics_cause(layer: str, a: Runner, after: tuple[Tensors, Tensors], count: int) -> str | None:
    """Why running statistics depart after a step in which the forward passes agree.

    Args:
        after: the statistics after the step, of a and of b.
        count: values per channel that the layer saw.
    """
    momentum = a.config.norm_momentum
    mean, variance = f"{layer}.running_mean", f"{layer}.running_var"
    old, ours, theirs = (_wide(source[variance]) for source in (a.tensors, *after))
    batch = (ours - (1 - momentum) * old) / momentum
    if _same(theirs, (1 - momentum) * old + momentum * batch * (count - 1) / count):
        return f"the variance tracked is the biased one (divided by n = {count} instead of n - 1)"
    moved, reference = (_wide(source[mean]) - _wide(a.tensors[mean]) for source in (after[1], after[0]))
    largest = np.abs(reference).argmax()
    found = momentum * moved[largest] / reference[largest] if reference[largest] else momentum
    if not np.isclose(found, momentum) and _same(moved, reference * (found / momentum)):
        return f"the momentum is {found:.6g} instead of {momentum:.6g} (torch's convention)"
    return None


def precision_cause(error: float) -> str | None:
    """Why a layer errs in float32 while the networks agree in float64."""
    if 1e-5 < error < 1e-1:
        return "its products are rounded to TF32 or bfloat16"
    return None


def _plain_difference(names: list[str], a: Tensors, b: Tensors) -> str:
    worst = max(np.abs(_wide(b[key]) - _wide(a[key])).max() for key in names)
    return f"the values of {', '.join(names)} differ, by up to {worst:.3g}"


def _kernel_cause(a: np.ndarray, b: np.ndarray) -> str | None:
    for axes in permutations(range(4)):
        # Reshaped, as a copy that forgot to transpose would be; the same as a transposition where the sizes agree.
        if axes != (0, 1, 2, 3) and np.array_equal(a.transpose(axes).reshape(a.shape), b):
            return _AXES.get(axes, f"the kernel's axes are permuted, by {axes} from OIHW")
    if np.array_equal(a[:, :, ::-1, ::-1], b):
        return "the kernel is turned by 180 degrees (a true convolution, not a cross-correlation)"
    if np.array_equal(np.sort(a, axis=None), np.sort(b, axis=None)):
        return "the kernel has the same values in another order"
    return None


def _join_cause(scene: Scene) -> str | None:
    """Another meaning of the join: the concatenation order, the upsampling, the fit to the skip connection."""
    config = scene.a.config
    level = int(scene.layer.removeprefix("up").removesuffix(".join"))
    answers, theirs = scene.answers[0], scene.answers[1][scene.layer]
    below = "bottom" if level == config.depth else f"up{level + 1}"
    low = np.maximum(answers[f"{below}.conv.4"], 0)
    skip = np.maximum(answers[f"down{level}.conv.4"], 0)
    raised = answers.get(f"up{level}.up")
    plain = _join(low, skip, raised, config, _bilinear)
    odd = _same(plain, theirs)  # then it is A's own code that does not do what its config says
    target = answers[scene.layer] if odd else theirs
    for changes in _OTHER_MEANINGS:
        known = dataclasses.asdict(config) | {"nearest": False}
        changed = {name: _OTHER[name, known[name]] for name in changes}
        variant = dataclasses.replace(config, **{name: value for name, value in changed.items() if name != "nearest"})
        candidate = _join(low, skip, raised, variant, _nearest if "nearest" in changed else _bilinear)
        if _same(candidate, target) and not _same(candidate, plain):
            return ("in A, " if odd else "") + ", and ".join(_SAID[change] for change in changed.items())
    return None


_SAID: Mapping[tuple[str, Any], str] = {
    ("align_corners", False): "the upsampling uses half-pixel corners instead of align_corners",
    ("align_corners", True): "the upsampling uses align_corners, not half-pixel corners",
    ("nearest", True): "the upsampling uses nearest-neighbour instead of bilinear upsampling",
    ("fit", "pad"): "an odd size is padded with zeros instead of resized",
    ("fit", "resize"): "an odd size is resized instead of padded with zeros",
    ("skip_first", True): "the concatenation order is swapped: [skip, upsampled]",
    ("skip_first", False): "the concatenation order is swapped: [upsampled, skip]",
}
"""How a report says that a join means something else."""

_OTHER: Mapping[tuple[str, Any], Any] = {
    (name, before): after
    for name, after in _SAID
    for before in (("pad", "resize") if name == "fit" else (True, False))
    if before != after
}
_ALONE = ("skip_first",), ("align_corners",), ("nearest",), ("fit",)
_OTHER_MEANINGS = (*_ALONE, *((*change, "skip_first") for change in _ALONE[1:]))


def _bilinear(x: np.ndarray, height: int, width: int, *, align_corners: bool) -> np.ndarray:
    rows, columns = (
        interpolation_matrix(size, target, align_corners=align_corners)
        for size, target in ((x.shape[1], height), (x.shape[2], width))
    )
    return np.einsum("Hh,nhwc,Ww->nHWc", rows, x, columns, optimize=True)


def _nearest(x: np.ndarray, height: int, width: int, *, align_corners: bool) -> np.ndarray:  # noqa: ARG001
    rows, columns = (np.arange(target) * size // target for size, target in ((x.shape[1], height), (x.shape[2], width)))
    return x[:, rows][:, :, columns]


def _join(
    low: np.ndarray, skip: np.ndarray, raised: np.ndarray | None, config: UNetConfig, resize: Callable[..., np.ndarray]
) -> np.ndarray:
    """What `layers.join` of both twins answers, in NumPy; `raised` is the transposed convolution's answer."""
    height, width = skip.shape[1:3]
    x = low if raised is None else raised
    if raised is None and config.fit == "pad":
        x = resize(x, 2 * x.shape[1], 2 * x.shape[2], align_corners=config.align_corners)
    if config.fit == "resize":
        x = resize(x, height, width, align_corners=config.align_corners)
    rows, columns = height - x.shape[1], width - x.shape[2]
    x = np.pad(x, ((0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)))
    return np.concatenate((skip, x) if config.skip_first else (x, skip), axis=-1)


def _norm_cause(scene: Scene) -> str | None:
    """BatchNorm with equal parameters but another epsilon or another variance."""
    block, _, place = scene.layer.partition(".")
    before = {"conv.1": f"{block}.conv.0", "conv.4": f"{block}.conv.3"}.get(place)
    if before is None:
        return None
    x = scene.answers[0][before]
    theirs = scene.answers[1][scene.layer]
    weight, bias, mean, variance = (
        _wide(scene.a.tensors[f"{scene.layer}.{name}"]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    if scene.training:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    epsilon = scene.a.config.norm_epsilon
    count = x.size // x.shape[-1]

    def normalised(variance: np.ndarray, epsilon: float) -> np.ndarray:
        return (x - mean) / np.sqrt(variance + epsilon) * weight + bias

    if scene.training and _same(theirs, normalised(variance * count / max(count - 1, 1), epsilon)):
        return "the batch is normalised with the unbiased variance (n - 1) instead of the biased one (n)"
    if _same(theirs, normalised(variance, epsilon)):  # it is A's own code that does not do what its config says
        theirs = scene.answers[0][scene.layer]
    # Where theirs moves farthest from the bias, the ratio to ours tells their epsilon.
    ours = normalised(variance, epsilon) - bias
    farthest = np.unravel_index(np.abs(ours).argmax(), ours.shape)
    channel = farthest[-1]
    moved = theirs[farthest] - bias[channel]
    if moved == 0:
        return None
    found = (ours[farthest] / moved) ** 2 * (variance[channel] + epsilon) - variance[channel]
    if found > 0 and not np.isclose(found, epsilon, rtol=1e-3) and _same(theirs, normalised(variance, found), 1e-6):
        return f"epsilon is {found:.3g} instead of {epsilon:.3g}"
    return None


def _same(a: np.ndarray, b: np.ndarray, tolerance: float = _CLOSE) -> bool:
    return a.shape == b.shape and bool(np.abs(a - b).max() <= tolerance * np.abs(a).max())


def _wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float64)

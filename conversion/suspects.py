"""Why a layer departs: one semantic after the other is switched in a model of it, and what each leaves is measured."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from conversion.differences import UNITS, distance
from conversion.runners import Precision, Runner
from unet_core.config import UNetConfig
from unet_core.hub import Tensors
from unet_core.resize import interpolation_matrix

_EXPLAINED = 1e-4
"""A switch explains a difference of which it leaves no more than this part (or no more than rounding does)."""

_AXES: Mapping[tuple[int, ...], str] = {
    (0, 1, 3, 2): "height and width of the kernel are swapped",
    (1, 0, 2, 3): "input and output channels of the kernel are swapped",
    (1, 0, 3, 2): "the kernel's channels are swapped, and its height and width",
    (2, 3, 1, 0): "the kernel lies in HWIO order but was taken for OIHW",
    (3, 2, 0, 1): "the kernel lies in OIHW order but was taken for HWIO",
}


Rounding = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """What two networks had and did at the layer where they part."""

    a: Runner
    b: Runner
    layer: str
    inputs: Mapping[str, np.ndarray]
    """In float64, what the layers before it handed on, and what it took in, by the names of `Trace.outputs`."""
    x: np.ndarray
    """The network's input."""
    ours: np.ndarray
    """The layer's answer in A, in float64."""
    theirs: np.ndarray
    """The layer's answer in B."""
    precision: Precision
    """Of B's answer."""
    training: bool
    budget: float
    """The difference that rounding makes: the norm, relative to that of the answer."""


class Suspect(NamedTuple):
    """What the layer would answer, were it otherwise."""

    said: str
    answer: np.ndarray


@dataclass(frozen=True)
class Trial:
    """A suspect that was tried."""

    switch: str
    """What was switched, as a person would say it."""
    remaining: float
    """How far B is from the switched layer: the norm of the difference, relative to that of the answer."""
    vanishes: bool
    """Whether that is nothing: the switch explains the difference."""


def trials(scene: Scene) -> tuple[Trial, ...]:
    """Every switch that the layer has, what is left of the difference with it; the best first."""
    model = _Layer(scene)
    return tried(model.suspects, model.plain, scene.ours, scene.theirs, scene.precision, scene.budget)


def tried(
    suspects: Callable[[np.ndarray], Iterable[Suspect]],
    plain: np.ndarray | None,
    ours: np.ndarray,
    theirs: np.ndarray,
    precision: Precision,
    budget: float,
) -> tuple[Trial, ...]:
    """What each suspect leaves of the difference, the best first; it vanishes where that is no more than rounding does.

    Args:
        suspects: of the answer that they are to explain: some are fitted to it.
        plain: what A should answer by its config, where that is known. One that A does not give, but B does, is A's own
            fault: then A's answer is what is to be explained.
        ours, theirs: what A and B answer.
        precision: of B's answer.
        budget: the difference that rounding makes.
    """
    target, side = theirs, ""
    enough = max(budget, _EXPLAINED * distance(theirs, ours))
    if plain is not None and precision == "float64" and distance(theirs, plain) <= enough < distance(ours, plain):
        target, side = ours, "in A, "
    others = ((side + said, answer) for said, answer in suspects(target))
    return _tried((one for one in others if plain is None or not np.array_equal(one[1], plain)), target, enough)


def _tried(suspects: Iterable[tuple[str, np.ndarray]], target: np.ndarray, enough: float) -> tuple[Trial, ...]:
    left: dict[str, float] = {}
    for said, answer in suspects:
        left.setdefault(said, distance(target, answer))
    found = (Trial(said, remaining, bool(remaining <= enough)) for said, remaining in left.items())
    return tuple(sorted(found, key=lambda trial: np.nan_to_num(trial.remaining, nan=np.inf)))


def forward_cause(scene: Scene) -> str | None:
    """The likely cause of a layer's departure in the forward pass; None where no known one explains it."""
    return parameter_cause(scene.layer, scene.a.tensors, scene.b.tensors) or cause_of(trials(scene))


def cause_of(found: tuple[Trial, ...]) -> str | None:
    """The switch that makes the difference vanish; None where none does."""
    return found[0].switch if found and found[0].vanishes else None


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


def statistics_trials(
    layer: str, a: Runner, ours: Tensors, theirs: Tensors, count: int, budget: float
) -> tuple[Trial, ...]:
    """As `trials`, of running statistics that depart after a step in which the forward passes agree.

    Args:
        layer: the BatchNorm.
        a: with the statistics before the step.
        ours, theirs: the statistics after it, of A and B.
        count: values per channel that the layer saw.
        budget: as in `Scene`.
    """
    assert isinstance(a.config, UNetConfig)
    momentum = a.config.norm_momentum
    names = [f"{layer}.running_{name}" for name in ("mean", "var")]
    old, expected, found = ([_wide(source[name]) for name in names] for source in (a.tensors, ours, theirs))
    mean, variance = ((new - (1 - momentum) * before) / momentum for new, before in zip(expected, old, strict=True))

    def after(variance: np.ndarray, momentum: float) -> np.ndarray:
        return np.stack([(1 - momentum) * b + momentum * new for b, new in zip(old, (mean, variance), strict=True)])

    moved, reference = found[0] - old[0], expected[0] - old[0]
    largest = np.abs(reference).argmax()
    other = float(momentum * moved[largest] / reference[largest]) if reference[largest] else momentum
    suspects = {
        f"the variance tracked is the biased one (divided by n = {count} instead of n - 1)": after(
            variance * (count - 1) / count, momentum
        ),
        f"the momentum is {other:.6g} instead of {momentum:.6g} (torch's convention)": after(variance, other),
        f"the momentum is {1 - momentum:.6g}, Flax's for torch's {momentum:.6g}": after(variance, 1 - momentum),
    }
    target = np.stack(found)
    enough = max(budget, _EXPLAINED * distance(target, np.stack(expected)))
    return _tried(suspects.items(), target, enough)


def precision_cause(error: float) -> str | None:
    """Why a layer errs in float32 while the networks agree in float64, by the size of its error."""
    if 1e-5 < error < 1e-1:
        return "its products are rounded to TF32 or bfloat16"
    return None


class _Layer:
    """A model of the layer in NumPy, after A's config and parameters, in float64."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.block, _, place = scene.layer.partition(".")
        assert isinstance(scene.a.config, UNetConfig)
        self.config = scene.a.config
        if scene.layer == "out":
            place = "out"
        self.kind = _KINDS.get(place)
        self.plain: np.ndarray | None = self._answer(scene.a.tensors) if self.kind else None

    def suspects(self, target: np.ndarray) -> Iterator[Suspect]:
        """All of the layer's kind; some of them are fitted to the target."""
        said = parameter_cause(self.scene.layer, self.scene.a.tensors, self.scene.b.tensors)
        if said is not None and self.kind is not None:
            yield Suspect(said, self._answer(self.scene.b.tensors))
        match self.kind:
            case "join":
                yield from self._joins()
            case "convolution":
                yield from self._convolutions()
            case "norm":
                yield from self._norms(target)
            case "pool":
                yield Suspect("the pooling takes the mean instead of the maximum", self._pooled(np.mean))
            case "relu":
                yield from self._activations()

    def _answer(self, tensors: Tensors) -> np.ndarray:
        match self.kind:
            case "join":
                return self._joined(self.config, _bilinear)
            case "convolution":
                return self._convolved(tensors)
            case "norm":
                return self._normalised(*self._moments(), tensors=tensors)
            case "pool":
                return self._pooled(np.max)
            case "relu":
                return np.maximum(self._input(), 0)
            case _:
                return self._transposed(tensors)

    def _input(self) -> np.ndarray:
        """What the layer took in."""
        layer, place = self.scene.layer, self.scene.layer.partition(".")[2]
        if layer == "down1.conv.0":
            return _wide(self.scene.x)
        before = {
            "conv.0": f"{self.block}.join" if self.block.startswith("up") else f"{self.block}.pool",
            "conv.1": f"{self.block}.conv.0",
            "conv.2": f"{self.block}.conv.1",
            "conv.3": f"{self.block}.conv.2",
            "conv.4": f"{self.block}.conv.3",
        }.get(place)
        if before is not None:
            return _wide(self.scene.inputs[before])
        depth = self.config.depth
        if layer == "out":
            before = "up1.conv.4"
        elif place == "pool":
            level = depth if self.block == "bottom" else int(self.block.removeprefix("down")) - 1
            before = f"down{level}.conv.4"
        else:
            before = _below(self.block, depth)
        return np.maximum(_wide(self.scene.inputs[before]), 0)

    def _activations(self) -> Iterator[Suspect]:
        x = self._input()
        yield Suspect("there is no ReLU", x)
        yield Suspect("the ReLU leaks: 0.01 of what is negative passes", np.where(x > 0, x, 0.01 * x))
        yield Suspect("a SiLU stands in place of the ReLU", x / (1 + np.exp(-x)))

    def _pooled(self, reduce: Callable[..., np.ndarray]) -> np.ndarray:
        x = self._input()
        n, height, width, channels = x.shape
        whole = x[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2, channels)
        return reduce(whole, (2, 4))

    def _convolutions(self) -> Iterator[Suspect]:
        tensors = self.scene.a.tensors
        if self.scene.precision == "float32":
            for name, rounded in ROUNDED.items():
                yield Suspect(
                    f"its products are rounded to {name}", self._convolved(tensors, rounded=(rounded, rounded))
                )
                yield Suspect(f"its input is rounded to {name}", self._convolved(tensors, rounded=(rounded, _wide)))
        if tensors[f"{self.scene.layer}.weight"].shape[-1] > 1:
            for mode, name in _PADS.items() if min(self.scene.ours.shape[1:3]) > 1 else ():
                yield Suspect(f"it is padded with {name} instead of zeros", self._convolved(tensors, pad=mode))
            turned = {**tensors, f"{self.scene.layer}.weight": tensors[f"{self.scene.layer}.weight"][:, :, ::-1, ::-1]}
            yield Suspect("it is a true convolution: the kernel is turned by 180 degrees", self._convolved(turned))

    def _convolved(
        self, tensors: Tensors, *, pad: str = "constant", rounded: tuple[Rounding, Rounding] | None = None
    ) -> np.ndarray:
        of_x, of_kernel = rounded or (_wide, _wide)
        x, kernel = of_x(self._input()), of_kernel(tensors[f"{self.scene.layer}.weight"])
        height, width = kernel.shape[2:]
        grown = ((0, 0), (height // 2, height // 2), (width // 2, width // 2), (0, 0))
        padded = np.pad(x, grown, mode=pad)  # type: ignore[call-overload]  # one of NumPy's modes
        y = sum(
            padded[:, row : row + x.shape[1], column : column + x.shape[2]] @ kernel[:, :, row, column].T
            for row in range(height)
            for column in range(width)
        )
        bias = tensors.get(f"{self.scene.layer}.bias")
        return np.asarray(y if bias is None else y + _wide(bias))

    def _transposed(self, tensors: Tensors) -> np.ndarray:
        x, kernel = self._input(), _wide(tensors[f"{self.scene.layer}.weight"])
        n, height, width, _ = x.shape
        y = np.einsum("nhwc,cdab->nhawbd", x, kernel, optimize=True)
        return y.reshape(n, 2 * height, 2 * width, -1) + _wide(tensors[f"{self.scene.layer}.bias"])

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        if self.scene.training:
            x = self._input()
            return x.mean((0, 1, 2)), x.var((0, 1, 2))
        return self._running(self.scene.a.tensors)

    def _running(self, tensors: Tensors) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = (_wide(tensors[f"{self.scene.layer}.running_{name}"]) for name in ("mean", "var"))
        return mean, variance

    def _normalised(
        self, mean: np.ndarray, variance: np.ndarray, epsilon: float | None = None, tensors: Tensors | None = None
    ) -> np.ndarray:
        tensors = self.scene.a.tensors if tensors is None else tensors
        if not self.scene.training and tensors is self.scene.b.tensors:
            mean, variance = self._running(tensors)
        epsilon = self.config.norm_epsilon if epsilon is None else epsilon
        weight, bias = (_wide(tensors[f"{self.scene.layer}.{name}"]) for name in ("weight", "bias"))
        with np.errstate(invalid="ignore"):  # of a variance that is negative
            return np.asarray((self._input() - mean) / np.sqrt(variance + epsilon) * weight + bias)

    def _norms(self, target: np.ndarray) -> Iterator[Suspect]:
        mean, variance = self._moments()
        count = self.scene.ours.size // self.scene.ours.shape[-1]
        if self.scene.training:
            yield Suspect(
                "the batch is normalised with the unbiased variance (n - 1) instead of the biased one (n)",
                self._normalised(mean, variance * count / max(count - 1, 1)),
            )
            running = self._running(self.scene.a.tensors)
            yield Suspect("the running statistics are used in training, not the batch's", self._normalised(*running))
        else:
            x = self._input()
            yield Suspect(
                "the batch's statistics are used to predict, not the running ones",
                self._normalised(x.mean((0, 1, 2)), x.var((0, 1, 2))),
            )
        own = self.config.norm_epsilon
        found_mean, found = self._fitted(target, mean)
        epsilon = float(np.median(found - variance))
        if epsilon > 0 and not np.isclose(epsilon, own, rtol=1e-3):
            yield Suspect(f"epsilon is {epsilon:.3g} instead of {own:.3g}", self._normalised(mean, variance, epsilon))
        digits = 4 * np.sqrt(count) * UNITS[self.scene.precision] * (mean**2 + variance)  # as sums of `count` err
        off = np.square(found_mean - mean) + np.abs(found - own - variance)
        if (off <= digits).all():
            yield Suspect(
                "the variance is E[x^2] - E[x]^2, which loses its digits where the mean is large",
                self._normalised(found_mean, found, 0.0),
            )

    def _fitted(self, target: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each channel the mean, and the variance with epsilon, that come nearest to the target."""
        weight, bias = (_wide(self.scene.a.tensors[f"{self.scene.layer}.{name}"]) for name in ("weight", "bias"))
        centred, moved = self._input() - mean, _wide(target) - bias
        with np.errstate(divide="ignore", invalid="ignore"):
            left = centred - centred.mean((0, 1, 2))
            scale = (left * moved).sum((0, 1, 2)) / np.square(left).sum((0, 1, 2))
            shift = centred.mean((0, 1, 2)) - moved.mean((0, 1, 2)) / scale
            return np.nan_to_num(mean + shift), np.nan_to_num(np.square(weight / scale), nan=np.inf)

    def _joins(self) -> Iterator[Suspect]:
        """Another meaning of the join: the concatenation order, the upsampling, the fit to the skip connection."""
        for changes in _OTHER_MEANINGS:
            known = dataclasses.asdict(self.config) | {"nearest": False}
            changed = {name: _OTHER[name, known[name]] for name in changes}
            variant = dataclasses.replace(
                self.config, **{name: value for name, value in changed.items() if name != "nearest"}
            )
            said = ", and ".join(_SAID[change] for change in changed.items())
            yield Suspect(said, self._joined(variant, _nearest if "nearest" in changed else _bilinear))

    def _joined(self, config: UNetConfig, resize: Callable[..., np.ndarray]) -> np.ndarray:
        level = int(self.block.removeprefix("up"))
        raised = self.scene.inputs.get(f"{self.block}.up")
        skip = np.maximum(_wide(self.scene.inputs[f"down{level}.conv.4"]), 0)
        low = np.maximum(_wide(self.scene.inputs[_below(self.block, config.depth)]), 0)
        return _join(low, skip, None if raised is None else _wide(raised), config, resize)


_KINDS: Mapping[str, str] = {
    "join": "join",
    "pool": "pool",
    "up": "transposed",
    "out": "convolution",
    "conv.0": "convolution",
    "conv.1": "norm",
    "conv.2": "relu",
    "conv.3": "convolution",
    "conv.4": "norm",
}
"""What stands at each place of a block."""


def _below(block: str, depth: int) -> str:
    """The last layer of the block below a decoder's."""
    level = int(block.removeprefix("up"))
    return "bottom.conv.4" if level == depth else f"up{level + 1}.conv.4"


def _tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to nearest, ties to even, in the 10 bits of TF32's mantissa."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32).astype(np.float64)


def _bfloat16(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


ROUNDED: Mapping[str, Rounding] = {"TF32": _tf32, "bfloat16": _bfloat16}
"""What matrix units do to the operands of a product."""
_PADS: Mapping[str, str] = {"reflect": "its reflection", "edge": "its edge", "wrap": "its other side"}


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


def _wide(tensor: np.ndarray) -> np.ndarray:
    return tensor.astype(np.float64)

"""Why a gradient departs: it is computed anew, with one thing after the other switched.

Written down in NumPy, in float64, apart from both twins.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from conversion.runners import Precision, input_name
from conversion.suspects import ROUNDED, Rounding, Suspect, Trial, tried
from unet_core.config import UNetConfig
from unet_core.hub import Tensors
from unet_core.resize import interpolation_matrix

Images = Float[np.ndarray, "n h w c"]

MOMENTS: Mapping[tuple[str, ...], str] = {
    ("mean", "variance"): "mean and variance",
    ("variance",): "variance",
    ("mean",): "mean",
}
"""What of a batch may be taken for constants, and how that is said."""
TIES: Mapping[str, str] = {
    "even": "the max-pool shares the gradient among equal values, as a maximum over an axis does",
    "each": "the max-pool gives the whole gradient to each of several equal values",
    "last": "the max-pool gives the gradient to the last of equal values, not the first",
}
"""Where the gradient may go when several values of a window are the largest."""


@dataclass(frozen=True)
class Scene:
    """What a network had at the layer where two gradients part."""

    config: UNetConfig
    tensors: Tensors
    """A's."""
    layer: str
    x: Images
    """The network's input."""
    outputs: Mapping[str, np.ndarray]
    """What the layers took in and handed on, by the names of `Trace.outputs`."""
    cotangents: Mapping[str, np.ndarray]
    """What they handed back."""
    precision: Precision
    """Of B's answer."""


def output_trials(scene: Scene, ours: Images, theirs: Images, budget: float) -> tuple[Trial, ...]:
    """Every switch of what lies behind the layer, as `conversion.suspects.trials`, of the gradient by its answer."""
    model = _Behind(scene)
    return tried(model.suspects, model.gradient(), ours, theirs, scene.precision, budget)


def parameter_trials(scene: Scene, ours: Tensors, theirs: Tensors, budget: float) -> tuple[Trial, ...]:
    """The same of the gradient by the layer's own parameters."""
    names = [key for key in ours if key.rpartition(".")[0] == scene.layer]
    model = _Owned(scene, names)
    one, other = (flat({key: of[key] for key in names}) for of in (ours, theirs))
    return tried(model.suspects, model.gradient(), one, other, scene.precision, budget)


def flat(tensors: Tensors) -> Float[np.ndarray, " n"]:
    """All of them as one vector."""
    return np.concatenate([np.ravel(value).astype(np.float64) for value in tensors.values()])


def scaled(plain: np.ndarray, target: np.ndarray) -> float:
    """By what factor the one comes nearest to the other."""
    size = np.vdot(plain, plain)
    return float(np.vdot(plain, target) / size) if size else 1.0


class _Gradient:
    """What both kinds of gradients share."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.config = scene, scene.config
        self.block, _, self.place = scene.layer.partition(".")

    def gradient(self, *, rounded: Rounding | None = None) -> np.ndarray:
        """As it should be; or with the operands of its products rounded."""
        raise NotImplementedError

    def _common(self, target: np.ndarray) -> Iterator[Suspect]:
        """The rounding of products, and a factor."""
        if self.scene.precision == "float32":
            for name, rounded in ROUNDED.items():
                said = f"the products of the backward pass are rounded to {name}"
                yield Suspect(said, self.gradient(rounded=rounded))
        plain = self.gradient()
        factor = scaled(plain, target)
        if not np.isclose(factor, 1, rtol=1e-6):
            said = f"the gradient is {factor:.6g} times as large"
            yield Suspect(said if factor else "no gradient arrives (stop_gradient, detach)", factor * plain)

    def _tensor(self, name: str) -> np.ndarray:
        return self.scene.tensors[name].astype(np.float64)

    def _output(self, name: str) -> Images:
        return self.scene.outputs[name].astype(np.float64)

    def _cotangent(self, name: str) -> Images:
        return self.scene.cotangents[name].astype(np.float64)


class _Behind(_Gradient):
    """The gradient by a layer's answer, of what the layers that take it in have handed back."""

    def suspects(self, target: Images) -> Iterator[Suspect]:
        """All that this place has."""
        if self._norm is not None:
            for constants, name in MOMENTS.items():
                said = f"no gradient goes through the batch's {name} (stop_gradient, detach)"
                yield Suspect(said, self.gradient(constants=constants))
        elif self.place.startswith("conv."):
            for slope, words in ((0.5, "0.5 instead of 0 (jnp.maximum)"), (1.0, "1 instead of 0")):
                yield Suspect(f"the ReLU's gradient at 0 is {words}", self.gradient(at_zero=slope))
        if self.block.startswith("down") and self.place == "conv.4":
            for ties, said in TIES.items():
                yield Suspect(said, self.gradient(ties=ties))
            yield Suspect("no gradient goes through the skip connection", self.gradient(skip=False))
            yield Suspect("no gradient goes through the max-pool", self.gradient(pool=False))
        yield from self._common(target)

    def gradient(
        self,
        *,
        rounded: Rounding | None = None,
        constants: tuple[str, ...] = (),
        at_zero: float = 0.0,
        ties: str = "first",
        skip: bool = True,
        pool: bool = True,
    ) -> Images:
        """As it should be, or with something switched.

        Args:
            rounded: what is done to the operands of the convolutions' products.
            constants: of `MOMENTS`.
            at_zero: the ReLU's slope there.
            ties: "first", or one of `TIES`.
            skip, pool: whether a gradient comes back through the skip connection, and through the pool.
        """
        if self._norm is not None:
            return self._normalised(self._norm, constants)
        if self.scene.layer == "out":
            return self._cotangent("out")
        if self.place == "up":
            return self._from_join(self.block, "raised", rounded)
        y = self._output(self.scene.layer)
        if self.place == "conv.1":
            back = self._convolved(f"{self.block}.conv.3", rounded)
        elif self.block.startswith("down"):
            level = int(self.block.removeprefix("down"))
            back = skip * self._from_join(f"up{level}", "skip", rounded)
            if pool:
                below = f"down{level + 1}" if level < self.config.depth else "bottom"
                back = back + _unpooled(np.maximum(y, 0), self._convolved(f"{below}.conv.0", rounded), ties)
        elif self.block == "up1":
            back = self._convolved("out", rounded)
        else:
            above = f"up{self.config.depth if self.block == 'bottom' else int(self.block.removeprefix('up')) - 1}"
            back = self._from_join(above, "low", rounded)
        return back * np.where(y > 0, 1.0, np.where(y == 0, at_zero, 0.0))

    @property
    def _norm(self) -> str | None:
        """The BatchNorm that follows, if one does."""
        after = {"conv.0": "conv.1", "conv.3": "conv.4"}.get(self.place)
        return after and f"{self.block}.{after}"

    def _normalised(self, norm: str, constants: tuple[str, ...]) -> Images:
        x, back = self._output(self.scene.layer), self._cotangent(norm)
        axes = (0, 1, 2)
        deviation = np.sqrt(x.var(axes) + self.config.norm_epsilon)
        normal = (x - x.mean(axes)) / deviation
        through = back.copy()
        if "mean" not in constants:
            through -= back.mean(axes)
        if "variance" not in constants:
            through -= normal * (back * normal).mean(axes)
        return through * self._tensor(f"{norm}.weight") / deviation

    def _convolved(self, layer: str, rounded: Rounding | None) -> Images:
        """By what a convolution took in."""
        back, kernel = self._cotangent(layer), self._tensor(f"{layer}.weight")
        if rounded is not None:
            back, kernel = rounded(back), rounded(kernel)
        rows, columns = kernel.shape[2:]
        _, height, width, _ = back.shape
        grown = np.pad(back, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
        return np.asarray(
            sum(
                grown[:, rows - 1 - row :, columns - 1 - column :][:, :height, :width] @ kernel[:, :, row, column]
                for row in range(rows)
                for column in range(columns)
            )
        )

    def _from_join(self, block: str, part: Literal["low", "raised", "skip"], rounded: Rounding | None) -> Images:
        """By the skip connection of a decoder's block, by what was raised by a transposed convolution, or by what came
        from below.
        """
        if part == "low" and self.config.upsampling == "transposed":
            back, kernel = self._cotangent(f"{block}.up"), self._tensor(f"{block}.up.weight")
            if rounded is not None:
                back, kernel = rounded(back), rounded(kernel)
            n, height, width, channels = back.shape
            windows = back.reshape(n, height // 2, 2, width // 2, 2, channels)
            return np.einsum("nhawbd,cdab->nhwc", windows, kernel, optimize=True)
        joint = self._convolved(f"{block}.conv.0", rounded)
        channels = self._output(f"down{block.removeprefix('up')}.conv.4").shape[-1]
        first, second = np.split(joint, [channels if self.config.skip_first else joint.shape[-1] - channels], axis=-1)
        of_skip, back = (first, second) if self.config.skip_first else (second, first)
        if part == "skip":
            return of_skip
        _, height, width, _ = self._output(self.scene.layer).shape
        if self.config.fit == "pad":
            tall, wide = (height, width) if part == "raised" else (2 * height, 2 * width)
            top, left = (back.shape[1] - tall) // 2, (back.shape[2] - wide) // 2
            back = back[:, top : top + tall, left : left + wide]
        if part == "raised" and self.config.fit == "pad":
            return back
        taps = (
            interpolation_matrix(size, raised, align_corners=self.config.align_corners)
            for size, raised in zip((height, width), back.shape[1:3], strict=True)
        )
        return np.einsum("Hh,nHWc,Ww->nhwc", next(taps), back, next(taps), optimize=True)


class _Owned(_Gradient):
    """The gradient by a layer's parameters, as one vector, of what the layer has handed back."""

    def __init__(self, scene: Scene, names: list[str]) -> None:
        super().__init__(scene)
        self.names = names

    def suspects(self, target: Float[np.ndarray, " n"]) -> Iterator[Suspect]:
        """Those that every gradient has."""
        yield from self._common(target)

    def gradient(self, *, rounded: Rounding | None = None) -> Float[np.ndarray, " n"]:
        back = self._cotangent(self.scene.layer)
        kernel: Callable[[Images, Images], np.ndarray] = self._of_kernel
        if self.place in ("conv.1", "conv.4"):
            kernel = self._of_scale
        elif self.place == "up":
            kernel = self._of_transposed
        operands = (self._input(), back) if rounded is None else (rounded(self._input()), rounded(back))
        parts = {"weight": lambda: kernel(*operands), "bias": lambda: back.sum((0, 1, 2))}
        return flat({name: parts[name.rpartition(".")[2]]() for name in self.names})

    def _input(self) -> Images:
        """What the layer took in."""
        layer = self.scene.layer
        if layer == "down1.conv.0":
            return self.scene.x.astype(np.float64)
        before = input_name(layer) or {
            "conv.1": f"{self.block}.conv.0",
            "conv.4": f"{self.block}.conv.3",
        }.get(self.place)
        if before is not None:
            return self._output(before)
        if layer == "out":
            return np.maximum(self._output("up1.conv.4"), 0)
        level = int(self.block.removeprefix("up"))
        return np.maximum(self._output("bottom.conv.4" if level == self.config.depth else f"up{level + 1}.conv.4"), 0)

    def _of_kernel(self, x: Images, back: Images) -> np.ndarray:
        rows, columns = self._tensor(f"{self.scene.layer}.weight").shape[2:]
        _, height, width, _ = x.shape
        grown = np.pad(x, ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
        return np.stack(
            [
                np.tensordot(back, grown[:, row : row + height, column : column + width], ((0, 1, 2), (0, 1, 2)))
                for row in range(rows)
                for column in range(columns)
            ],
            axis=-1,
        )

    def _of_scale(self, x: Images, back: Images) -> np.ndarray:
        deviation = np.sqrt(x.var((0, 1, 2)) + self.config.norm_epsilon)
        return ((x - x.mean((0, 1, 2))) / deviation * back).sum((0, 1, 2))

    def _of_transposed(self, x: Images, back: Images) -> np.ndarray:
        n, height, width, channels = back.shape
        windows = back.reshape(n, height // 2, 2, width // 2, 2, channels)
        return np.einsum("nhwc,nhawbd->cdab", x, windows, optimize=True)


def _unpooled(x: Images, back: Images, ties: str) -> Images:
    """By what a 2x2 max-pool took in; an odd last row or column takes no part."""
    n, height, width, channels = back.shape
    whole = x[:, : 2 * height, : 2 * width].reshape(n, height, 2, width, 2, channels)
    windows = whole.transpose(0, 1, 3, 5, 2, 4).reshape(n, height, width, channels, 4)
    largest = windows == windows.max(-1, keepdims=True)
    if ties == "even":
        parts = largest / largest.sum(-1, keepdims=True)
    elif ties == "each":
        parts = largest.astype(np.float64)
    else:
        ordered = largest if ties == "first" else largest[..., ::-1]
        parts = np.eye(4)[ordered.argmax(-1)]
        parts = parts if ties == "first" else parts[..., ::-1]
    given = (back[..., None] * parts).reshape(n, height, width, channels, 2, 2).transpose(0, 1, 4, 2, 5, 3)
    found = np.zeros_like(x)
    found[:, : 2 * height, : 2 * width] = given.reshape(n, 2 * height, 2 * width, channels)
    return found

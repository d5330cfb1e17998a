"""Why a node departs in the forward pass: one semantic after the other is switched, and the rest is measured."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.backends.backend import Precision
from conversion.diagnosis.node_difference import CORNERS, difference, order
from conversion.diagnosis.nodes import TracedNetwork
from conversion.diagnosis.tensors import parameter_cause
from conversion.diagnosis.trials import PRODUCTS, ROUNDED, Suspect, Trial, cause_of, tried
from conversion.proof.differences import UNITS
from unet_core.graph import Node
from unet_core.graph.canonical import Tensors


@dataclass(frozen=True)
class Scene:
    """What two networks had and did at the node where they part."""

    a: TracedNetwork
    b: TracedNetwork
    """Of which the graph and the tensors count."""
    node: str
    ours: np.ndarray
    """The node's output in A, in float64."""
    theirs: np.ndarray
    """The node's output in B."""
    precision: Precision
    """Of B's output."""
    budget: float
    """The difference that rounding makes: the norm, relative to that of the output."""


def trials(scene: Scene) -> tuple[Trial, ...]:
    """Every switch that the node has, what is left of the difference with it; the best first."""
    node = scene.a.nodes[scene.node]
    inputs = scene.a.inputs(node)
    if inputs is None:
        return ()
    roles = scene.a.roles(node)
    plain = scene.a.answer(node, inputs, roles)

    def suspects(target: np.ndarray) -> Iterator[Suspect]:
        yield from _as_in_b(scene, node, inputs)
        found = _Switches(scene, node, inputs, roles, target)
        yield from found.all()

    return tried(suspects, plain, scene.ours, scene.theirs, scene.precision, scene.budget)


def forward_cause(scene: Scene) -> str | None:
    """The likely cause of a node's departure in the forward pass; None where no known one explains it."""
    return tensor_cause(scene) or cause_of(trials(scene))


def tensor_cause(scene: Scene) -> str | None:
    """How the node's tensors differ; None where they do not."""
    names = scene.a.graph.first_names(scene.a.nodes[scene.node]).values()
    layers = {name.rpartition(".")[0] for name in names}
    found = (parameter_cause(layer, scene.a.tensors, scene.b.tensors) for layer in sorted(layers))
    return next((cause for cause in found if cause), None)


def _as_in_b(scene: Scene, node: Node, inputs: list[np.ndarray]) -> Iterator[Suspect]:
    """With B's tensors; and as the node of the same name that B's graph has."""
    said = tensor_cause(scene)
    if said is not None:
        yield Suspect(said, scene.a.answer(node, inputs, scene.a.roles(node, scene.b.tensors)))
    other = scene.b.nodes.get(node.name)
    if other is None or len(other.inputs) != len(node.inputs):
        return
    said = difference(node, other, scene.a, scene.b)
    given = [value for name in other.inputs if (value := _as_b_hands_on(scene, name)) is not None]
    if said is not None and len(given) == len(other.inputs):
        yield Suspect(said, scene.b.answer(other, given, scene.b.roles(other)))


def _as_b_hands_on(scene: Scene, name: str) -> np.ndarray | None:
    """What B's nodes without tensors make of what A's nodes with tensors, or those that both have, handed on."""
    node = scene.b.nodes.get(name)
    if name in scene.a.known and (node is None or node.tensors or node == scene.a.nodes.get(name)):
        return scene.a.known[name].astype(np.float64)
    if node is None or node.tensors:
        return None
    given = [value for one in node.inputs if (value := _as_b_hands_on(scene, one)) is not None]
    return scene.b.answer(node, given, {}) if len(given) == len(node.inputs) else None


_PADS: Mapping[str, str] = {"reflect": "its reflection", "edge": "its edge", "wrap": "its other side"}


class _Switches:
    """The output of a node with one of its semantics switched, whatever B's graph says of it."""

    def __init__(
        self,
        scene: Scene,
        node: Node,
        inputs: list[np.ndarray],
        roles: dict[str, np.ndarray],
        target: np.ndarray,
    ) -> None:
        self.scene, self.node, self.inputs, self.roles, self.target = scene, node, inputs, roles, target
        self.x = inputs[0] if inputs else np.zeros(0)

    def all(self) -> Iterator[Suspect]:
        """Those of its operation."""
        operation = self.node.operation
        if operation in PRODUCTS and self.scene.precision == "float32":
            yield from self._rounded()
        kinds: Mapping[str, Callable[[], Iterator[Suspect]]] = {
            "convolution": self._convolutions,
            "batch_norm": self._norms,
            "interpolate": self._interpolations,
            "concatenate": self._orders,
            "max_pool": self._pools,
            "relu": self._activations,
        }
        yield from kinds.get(operation, lambda: iter(()))()

    def _answer(self, node: Node | None = None, *inputs: np.ndarray, training: bool | None = None) -> np.ndarray:
        given = list(inputs) or self.inputs
        return self.scene.a.answer(node or self.node, given, self.roles, training=training)

    def _changed(self, **attributes: Any) -> Node:
        return dataclasses.replace(self.node, attributes={**self.node.attributes, **attributes})

    def _as(self, operation: str, **attributes: Any) -> Node:
        return Node(self.node.name, operation, self.node.inputs, {}, attributes)

    def _rounded(self) -> Iterator[Suspect]:
        for name, rounded in ROUNDED.items():
            inputs = [rounded(value) for value in self.inputs]
            roles = {role: value if role == "bias" else rounded(value) for role, value in self.roles.items()}
            said = f"its products are rounded to {name}"
            yield Suspect(said, self.scene.a.answer(self.node, inputs, roles))
            yield Suspect(f"its input is rounded to {name}", self._answer(None, *inputs))

    def _convolutions(self) -> Iterator[Suspect]:
        padding, window = self.node.attributes["padding"], self.roles["weight"].shape[2:]
        if max(window) == 1:
            return
        amounts = ((0, 0), (0, 0), *padding)
        still = self._changed(padding=((0, 0),) * len(padding))
        for mode, name in _PADS.items():
            if all(max(pair) < length for pair, length in zip(padding, self.x.shape[2:], strict=True)):
                padded = np.pad(self.x, amounts, mode=mode)  # type: ignore[call-overload]  # one of NumPy's modes
                yield Suspect(f"it is padded with {name} instead of zeros", self._answer(still, padded))
        turned = {**self.roles, "weight": np.flip(self.roles["weight"], tuple(range(2, self.x.ndim)))}
        said = "it is a true convolution: the kernel is turned by 180 degrees"
        yield Suspect(said, self.scene.a.answer(self.node, self.inputs, turned))

    def _interpolations(self) -> Iterator[Suspect]:
        corners = self.node.attributes["align_corners"]
        if self.node.attributes["mode"] in ("linear", "cubic"):
            yield Suspect(CORNERS[not corners], self._answer(self._changed(align_corners=not corners)))
            nearest = self._changed(mode="nearest", align_corners=False, antialias=False)
            yield Suspect("the upsampling uses nearest-neighbour instead of bilinear upsampling", self._answer(nearest))

    def _orders(self) -> Iterator[Suspect]:
        yield Suspect(order(self.node.inputs[::-1]), self._answer(None, *self.inputs[::-1]))

    def _pools(self) -> Iterator[Suspect]:
        kept = {name: self.node.attributes[name] for name in ("window", "stride", "padding", "ceil")}
        said = "the pooling takes the mean instead of the maximum"
        yield Suspect(said, self._answer(self._as("average_pool", **kept)))

    def _activations(self) -> Iterator[Suspect]:
        yield Suspect("there is no ReLU", self.x)
        leaking = self._answer(self._as("leaky_relu", slope=0.01))
        yield Suspect("the ReLU leaks: 0.01 of what is negative passes", leaking)
        yield Suspect("a SiLU stands in place of the ReLU", self._answer(self._as("silu")))

    def _norms(self) -> Iterator[Suspect]:
        axes = (0, *range(2, self.x.ndim))
        count = self.x.size // self.x.shape[1]
        batch = self.x.mean(axes), self.x.var(axes)
        running = (self.roles["mean"], self.roles["variance"]) if "mean" in self.roles else None
        renewed = running is None or (self.scene.a.training and not self.node.attributes["frozen"])
        mean, variance = batch if renewed or running is None else running
        if renewed:
            yield Suspect(
                "the batch is normalised with the unbiased variance (n - 1) instead of the biased one (n)",
                self._normalised(mean, variance * count / max(count - 1, 1)),
            )
            if running is not None:
                said = "the running statistics are used in training, not the batch's"
                yield Suspect(said, self._normalised(*running))
        else:
            said = "the batch's statistics are used to predict, not the running ones"
            yield Suspect(said, self._normalised(*batch))
        own = self.node.attributes["epsilon"]
        found_mean, found = self._fitted(mean)
        epsilon = float(np.median(found - variance))
        if epsilon > 0 and not np.isclose(epsilon, own, rtol=1e-3):
            said = f"epsilon is {epsilon:.3g} instead of {own:.3g}"
            yield Suspect(said, self._normalised(mean, variance, epsilon))
        digits = 4 * np.sqrt(count) * UNITS[self.scene.precision] * (mean**2 + variance)  # as sums of `count` err
        off = np.square(found_mean - mean) + np.abs(found - own - variance)
        if renewed and (off <= digits).all():
            yield Suspect(
                "the variance is E[x^2] - E[x]^2, which loses its digits where the mean is large",
                self._normalised(found_mean, found, 0.0),
            )

    def _normalised(self, mean: np.ndarray, variance: np.ndarray, epsilon: float | None = None) -> np.ndarray:
        node = self.node if epsilon is None else self._changed(epsilon=epsilon)
        roles = {**self.roles, "mean": mean, "variance": variance}
        with np.errstate(invalid="ignore"):  # of a variance that is negative
            return self.scene.a.answer(node, self.inputs, roles, training=False)

    def _fitted(self, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each channel the mean, and the variance with epsilon, that come nearest to the target."""
        axes, each = (0, *range(2, self.x.ndim)), (slice(None), *(None,) * (self.x.ndim - 2))
        weight, bias = self.roles.get("weight", np.ones_like(mean)), self.roles.get("bias", np.zeros_like(mean))
        centred, moved = self.x - mean[each], self.target.astype(np.float64) - bias[each]
        with np.errstate(divide="ignore", invalid="ignore"):
            left = centred - centred.mean(axes, keepdims=True)
            scale = (left * moved).sum(axes) / np.square(left).sum(axes)
            shift = centred.mean(axes) - moved.mean(axes) / scale
            return np.nan_to_num(mean + shift), np.nan_to_num(np.square(weight / scale), nan=np.inf)


def statistics_trials(scene: Scene, ours: Tensors, theirs: Tensors) -> tuple[Trial, ...]:
    """As `trials`, of running statistics that depart after a step in which the forward passes agree.

    Args:
        scene: of the norm; `theirs` and `ours` do not count.
        ours, theirs: the statistics after the step, of A and B.
    """
    node, inputs = scene.a.nodes[scene.node], scene.a.inputs(scene.a.nodes[scene.node])
    momentum = node.attributes.get("momentum")
    if momentum is None or inputs is None or "mean" not in node.tensors:
        return ()
    count = inputs[0].size // inputs[0].shape[1]
    names = [scene.a.graph.first_names(node)[role] for role in ("mean", "variance")]
    old, expected, found = (
        [source[name].astype(np.float64) for name in names] for source in (scene.a.tensors, ours, theirs)
    )
    mean, variance = ((new - (1 - momentum) * before) / momentum for new, before in zip(expected, old, strict=True))

    def after(variance: np.ndarray, momentum: float) -> np.ndarray:
        return np.stack([(1 - momentum) * b + momentum * new for b, new in zip(old, (mean, variance), strict=True)])

    moved, reference = found[0] - old[0], expected[0] - old[0]
    largest = np.abs(reference).argmax()
    other = float(momentum * moved[largest] / reference[largest]) if reference[largest] else momentum
    suspects = [
        Suspect(
            f"the variance tracked is the biased one (divided by n = {count} instead of n - 1)",
            after(variance * (count - 1) / count, momentum),
        ),
        Suspect(f"the momentum is {other:.6g} instead of {momentum:.6g} (torch's convention)", after(variance, other)),
        Suspect(
            f"the momentum is {1 - momentum:.6g}, Flax's for torch's {momentum:.6g}", after(variance, 1 - momentum)
        ),
    ]
    return tried(lambda _: suspects, None, np.stack(expected), np.stack(found), scene.precision, scene.budget)

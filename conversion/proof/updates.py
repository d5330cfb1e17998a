"""The proof that two training states go on alike: each makes one update, by its own trainer's code, in float64."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from conversion.backends.backend import Controls, Framework, backend_of
from conversion.proof.checks import Check, Departure
from conversion.proof.differences import largest_difference, measures, tensor_differences
from conversion.proof.samples import Input
from unet_core.data.batches import Batch
from unet_core.errors import ConfigError, some
from unet_core.graph import Graph
from unet_core.graph.canonical import FLOATS, Description, Tensors, tensor_specs
from unet_core.graph.chance import settled
from unet_core.graph.suitability import check_training, refusal
from unet_core.training.state import TrainingState, difference, updated_shapes
from unet_core.training.train_config import TrainConfig

LOSS, GRADIENTS, MOMENTS, PARAMETERS = "loss", "gradients", "moments", "parameters"
STATISTICS, AVERAGE = "statistics", "average"

BUDGETS: Mapping[str, float] = {
    LOSS: 1e-12,
    GRADIENTS: 1e-11,
    MOMENTS: 1e-11,
    PARAMETERS: 1e-11,
    STATISTICS: 1e-12,
    AVERAGE: 1e-11,
}
"""The largest difference in float64, relative to the largest value of the tensor."""

_BATCH, _ACCUMULATE, _SIDE = 2, 2, 64
"""The update that is compared is on so many pictures at most, each of so many pixels a side."""


@dataclass(frozen=True)
class Continuation:
    """A training that is about to go on."""

    framework: Framework
    recipe: TrainConfig
    classes: int
    state: TrainingState
    losses: list[float]
    """Of the validations so far, which a plateau's rate follows."""
    data: str
    """The digest of the pictures and masks."""

    @property
    def controls(self) -> Controls:
        """Of the next update."""
        return self.recipe.part(self.state.step, self.losses), self.recipe.renewal(self.state.step)


def parted(a: Continuation, b: Continuation) -> Departure | None:
    """Where two trainings make no updates that could be compared, why."""
    why = _apart(a, b)
    return Departure("", "recipe and step", np.nan, why) if why else None


def compare(a: Continuation, b: Continuation, *, seed: int = 0) -> tuple[tuple[Check, ...], Departure | None]:
    """Make the next update of both, on the same pictures, and judge `b` by `a`; they have not `parted`.

    The pictures and labels are random: what an update does is a function of them and the state, whatever they are. The
    learning rate and what else decides an update are each one's own.
    """
    sample = _name(a)
    told = _told_apart(a, b)
    batch, configs = _batch(a, seed), [_small(side.recipe, a) for side in (a, b)]
    (loss, gradients, after), (other_loss, other_gradients, other) = (
        _updated(side, config, batch) for side, config in zip((a, b), configs, strict=True)
    )
    measured = measures(gradients)
    errors: dict[str, dict[str, float]] = {
        LOSS: {"": largest_difference(np.array(other_loss), np.array(loss))},
        GRADIENTS: tensor_differences(other_gradients, gradients, measured),
        MOMENTS: _moment_differences(other, after, measured),
    }
    specs = tensor_specs(a.state.network.config)
    trained, tracked = (
        {key: value for key, value in after.network.tensors.items() if specs[key].trained == wanted}
        for wanted in (True, False)
    )
    errors[PARAMETERS] = tensor_differences(other.network.tensors, trained, measured)
    errors[STATISTICS] = tensor_differences(other.network.tensors, tracked)
    if after.average is not None and other.average is not None:
        errors[AVERAGE] = tensor_differences(other.average, after.average, measured)
    checks = tuple(_checks(sample, errors))
    failed = next((check for check in checks if not check.ok), None)
    if failed is None and told is None:
        return checks, None
    if failed is None:
        return checks, Departure("", "state", np.nan, told)
    return checks, Departure(failed.tensor or "the loss", failed.quantity, failed.error, told)


def inputs_of(a: Continuation, *, seed: int = 0) -> tuple[Input, ...]:
    """What `compare` makes the next update on."""
    batch = _batch(a, seed)
    return Input.of(f"{_name(a)}, pictures", batch.image), Input.of(f"{_name(a)}, labels", batch.labels)


def _name(a: Continuation) -> str:
    return f"update {a.state.step + 1}"


def _checks(sample: str, errors: Mapping[str, Mapping[str, float]]) -> Iterator[Check]:
    for quantity, found in errors.items():
        if found:
            tensor = max(found, key=lambda key: np.nan_to_num(found[key], nan=np.inf))
            yield Check(sample, quantity, "float64", found[tensor], BUDGETS[quantity], tensor, None)


def _moment_differences(
    found: TrainingState, reference: TrainingState, measured: Mapping[str, str]
) -> dict[str, float]:
    """Of every moment; one that only one side has differs without bound."""
    ours, theirs = reference.optimizer.moments, found.optimizer.moments
    if ours.keys() != theirs.keys():
        return {some(sorted(ours.keys() ^ theirs.keys())): np.inf}
    return {
        f"{moment} of {key}": error
        for moment in ours
        for key, error in tensor_differences(theirs[moment], ours[moment], measured).items()
    }


def _apart(a: Continuation, b: Continuation) -> str | None:
    if a.state.network.config != b.state.network.config:
        return "the networks are not of one config"
    if a.classes != b.classes:
        return f"A trains on {a.classes} classes, B on {b.classes}"
    if a.data != b.data:
        return "the two train on other data"
    changes = a.recipe.changes(b.recipe)
    if changes:
        return f"the recipes differ: {some(changes)}"
    if a.state.step != b.state.step:
        return f"A has made {a.state.step} updates, B {b.state.step}"
    return None


def _told_apart(a: Continuation, b: Continuation) -> str | None:
    """What in the two trainings is not the same, before any update."""
    if a.controls != b.controls:
        return f"the learning rate of the next update is {a.controls[0]:g} in A, {b.controls[0]:g} in B"
    swapped = _swapped(a.state, b.state)
    if swapped:
        return swapped
    changed = difference(a.state, b.state)
    return f"the states differ before it: {some(changed, most=3)}" if changed else None


def _swapped(a: TrainingState, b: TrainingState) -> str | None:
    ours, theirs = a.optimizer.moments, b.optimizer.moments
    names = list(ours)
    if (
        len(names) == 2
        and all(_equal(ours[one], theirs.get(other, {})) for one, other in (names, names[::-1]))
        and not _equal(ours[names[0]], ours[names[1]])
    ):
        return f"{names[0]} and {names[1]} are swapped"
    return None


def _equal(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def _small(config: TrainConfig, shape: Continuation) -> TrainConfig:
    """The same training in float64, on as few and as small pictures as show what an update does."""
    like = shape.recipe
    batch, size = _size(like, shape.state.network.config)
    return dataclasses.replace(
        config,
        precision="float64",
        compile=False,
        remat=False,
        batch=batch,
        norm_parts=config.norm_parts if batch % config.norm_parts == 0 else min(batch, _BATCH),
        accumulate=min(config.accumulate, _ACCUMULATE),
        crop=size,
    )


def _size(config: TrainConfig, network: Description) -> tuple[int, tuple[int, ...]]:
    """Pictures in a batch, and the size of each: as few and as small as the network can be trained on."""
    batch, crop = min(config.batch, _BATCH), config.crops(network.dimensions)
    if not isinstance(network, Graph):
        least = network.minimum_size
        size = tuple(min(length, max(_SIDE, 2 * least)) for length in crop)
        return batch if min(size) >= 2 * least else config.batch, size
    sides = ((side,) * len(crop) for side in range(min(_SIDE, *crop), min(crop)))
    size = next((size for size in sides if not refusal(network, size, training=True)), crop)
    try:
        check_training(network, 1, size)
    except ConfigError:  # too few values for its BatchNorms
        return config.batch, crop
    return batch, size


def _batch(side: Continuation, seed: int) -> Batch:
    config = _small(side.recipe, side)
    rng = np.random.default_rng((seed, 3))
    size = config.crops(side.state.network.config.dimensions)
    shape = (config.batch * config.accumulate, *size)
    image = rng.random((*shape, side.state.network.config.in_channels), np.float32)
    return Batch(image, rng.integers(side.classes, size=shape).astype(np.uint8))


def _updated(side: Continuation, config: TrainConfig, batch: Batch) -> tuple[float, Tensors, TrainingState]:
    """What `Backend.update` returns, with the gradients of what is updated alone."""
    loss, gradients, after = backend_of(side.framework).update(_wide(side.state), config, batch, side.controls)
    return loss, {name: gradients[name] for name in updated_shapes(after.network.config)}, after


def _wide(state: TrainingState) -> TrainingState:
    """The same state in float64; of a network that drops nothing, for the frameworks do not draw alike."""
    network, config = state.network, state.network.config
    if isinstance(config, Graph):
        network = dataclasses.replace(network, config=settled(config))

    def wide(tensors: Tensors) -> dict[str, np.ndarray]:
        return {key: value.astype(np.float64) if value.dtype in FLOATS else value for key, value in tensors.items()}

    moments = {name: wide(tensors) for name, tensors in state.optimizer.moments.items()}
    return dataclasses.replace(
        state,
        network=dataclasses.replace(network, tensors=wide(network.tensors)),
        optimizer=dataclasses.replace(state.optimizer, moments=moments),
        average=None if state.average is None else wide(state.average),
    )

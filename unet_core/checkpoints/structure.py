"""Reads a UNet of the family whose names no table has, from the order and the shapes of its tensors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from unet_core.checkpoints.dialects import PLACES
from unet_core.config import MOST_LEVELS
from unet_core.errors import CheckpointError, shown, some

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

_STEPS = 20_000
"""How many blocks the search for a reading may try; a real network takes a few dozen."""

_NORM = {"weight", "bias", "running_mean", "running_var"}


class _ExhaustedError(Exception):
    """The search for a reading took too many steps."""


@dataclass(frozen=True)
class Structure:
    """A reading of the tensors as a network of the family."""

    layers: Mapping[str, str]
    """The file's name of every layer, by the canonical one."""
    unique: bool
    """Whether the shapes alone allow this reading only; else the order of the tensors decided."""


@dataclass(frozen=True)
class _Double:
    """Two 3x3 convolutions with their BatchNorms, in the order of `PLACES`."""

    layers: tuple[str, ...]
    before: int
    after: int


@dataclass(frozen=True)
class _Up:
    """A 2x2 transposed convolution."""

    layer: str
    before: int
    after: int


@dataclass(frozen=True)
class _Parts:
    doubles: Sequence[_Double]
    ups: Sequence[_Up]
    head: str
    head_channels: int

    @property
    def depth(self) -> int:
        return len(self.doubles) // 2


def read_structure(shapes: Shapes, source: str, *, ordered: bool) -> Structure:
    """Find encoder, bottom, decoder and head among the tensors.

    Args:
        shapes: of every tensor, in the order of the file.
        ordered: whether that is the order in which the model registered them; else the names are sorted, numbers in
            them as numbers.

    Raises:
        CheckpointError: they are no such network, or, in a file without order, several readings fit.
    """
    parts = _parts(shapes, source, ordered=ordered)
    readings: list[dict[str, str]] = []
    try:
        for reading in _readings(parts):
            readings.append(reading)
            if len(readings) == 2:
                break
    except _ExhaustedError as error:
        raise CheckpointError(
            f"{source}: too many of its {len(parts.doubles)} double convolutions have equal widths to tell them apart"
        ) from error
    if not readings:
        raise CheckpointError(
            f"{source}: the widths of its {len(parts.doubles)} double convolutions do not chain up to a UNet: "
            f"{some(f'{double.layers[0]} {double.before} to {double.after}' for double in parts.doubles)}"
        )
    if len(readings) == 2 and not ordered:
        one, other = (sorted(set(reading.items())) for reading in readings)
        apart = next(theirs for ours, theirs in zip(one, other, strict=True) if ours != theirs)
        raise CheckpointError(
            f"{source}: several layers could be {apart[0]}, {shown(apart[1])} among them, and this kind of file "
            "does not keep the order in which they run; save the state_dict as .pt"
        )
    return Structure(readings[0], unique=len(readings) == 1)


def _parts(shapes: Shapes, source: str, *, ordered: bool) -> _Parts:
    """Sort the layers by kind, and pair them up in their order."""
    layers: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        layer, _, name = key.rpartition(".")
        layers.setdefault(layer, {})[name] = shape
    if not ordered:
        layers = dict(sorted(layers.items(), key=lambda item: _natural(item[0])))
    kinds: dict[str, list[str]] = {"3x3": [], "1x1": [], "2x2": [], "norm": []}
    strange = []
    for layer, tensors in layers.items():
        kind = _kind(tensors)
        kinds[kind].append(layer) if kind else strange.append(layer)
    if strange:
        raise CheckpointError(
            f"{source}: no UNet of this family (convolutions of 3x3 with BatchNorm, 1x1 at the end, 2x2 transposed): "
            f"it has other layers: {some(_described(layer, layers[layer]) for layer in strange)}"
        )
    convolutions, norms, ups, heads = kinds["3x3"], kinds["norm"], kinds["2x2"], kinds["1x1"]
    depth = (len(convolutions) // 2 - 1) // 2
    sound = len(convolutions) == len(norms) == 2 * (2 * depth + 1) and len(ups) in (0, depth) and len(heads) == 1
    if not sound or not 1 <= depth < MOST_LEVELS:
        raise CheckpointError(
            f"{source}: no UNet of this family, which with N levels has 4N + 2 convolutions of 3x3, as many "
            f"BatchNorms, N transposed ones of 2x2 or none, and one of 1x1 at the end; here are "
            f"{len(convolutions)}, {len(norms)}, {len(ups)} and {len(heads)}"
        )
    pairs = list(zip(convolutions, norms, strict=True))
    odd = [
        f"{convolution} with {norm}"
        for convolution, norm in pairs
        if layers[convolution]["weight"][:1] != layers[norm]["weight"]
    ]
    if odd:
        raise CheckpointError(
            f"{source}: convolutions and BatchNorms do not follow one another with equal widths: {some(odd)}"
        )
    doubles = []
    for (first, first_norm), (second, second_norm) in zip(pairs[::2], pairs[1::2], strict=True):
        _check_order((first, first_norm, second, second_norm), source, ordered=ordered)
        before, after = layers[first]["weight"], layers[second]["weight"]
        if after[1] != before[0]:
            raise CheckpointError(
                f"{source}: no UNet of double convolutions: {shown(first)} answers {before[0]} channels, "
                f"{shown(second)} takes {after[1]}"
            )
        doubles.append(_Double((first, first_norm, second, second_norm), before[1], after[0]))
    raising = [_Up(layer, *layers[layer]["weight"][:2]) for layer in ups]
    return _Parts(doubles, raising, heads[0], layers[heads[0]]["weight"][1])


def _check_order(block: tuple[str, str, str, str], source: str, *, ordered: bool) -> None:
    """Refuse a block whose names tell of another order of its layers, or, in a file without order, tell of none."""
    parents, places = zip(*(layer.rpartition(".")[::2] for layer in block), strict=True)
    if len(set(parents)) == 1 and all(place.isdecimal() for place in places):
        first, first_norm, second, second_norm = map(int, places)
        if first_norm != first + 1 or second_norm != second + 1 or second < first_norm + 2:
            raise CheckpointError(
                f"{source}: no UNet of this family, which has convolution, BatchNorm, ReLU twice in a row: something "
                f"else lies between {some(block)}"
            )
    if not ordered:
        for one, other in (block[::2], block[1::2]):
            if re.sub(r"[0-9]+", "#", one) != re.sub(r"[0-9]+", "#", other):
                raise CheckpointError(
                    f"{source}: nothing tells which of {shown(one)} and {shown(other)} runs first, and this kind of "
                    "file does not keep the order; save the state_dict as .pt"
                )


def _kind(tensors: Mapping[str, Shape]) -> str | None:
    names = set(tensors)
    shape = tensors.get("weight", ())
    if names - {"num_batches_tracked"} == _NORM:
        return "norm" if len({tensors[name] for name in _NORM}) == 1 and len(shape) == 1 else None
    if len(shape) != 4 or not names <= {"weight", "bias"} or shape[2] != shape[3]:
        return None
    kind = f"{shape[2]}x{shape[3]}"
    answers = shape[1] if kind == "2x2" else shape[0]
    if tensors.get("bias", (answers,)) != (answers,) or (kind in ("1x1", "2x2") and "bias" not in names):
        return None
    return kind if kind in ("3x3", "1x1", "2x2") else None


def _readings(parts: _Parts) -> Iterator[dict[str, str]]:
    """Every assignment of the blocks that chains up, those nearest to the order of the file first."""
    left = _STEPS

    def chains(taken: tuple[int, ...], ups: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
        nonlocal left
        depth, place = parts.depth, len(taken)
        if place == 2 * depth + 1:
            if parts.doubles[taken[-1]].after == parts.head_channels:
                yield taken, ups
            return
        for number, double in enumerate(parts.doubles):
            left -= 1
            if left < 0:
                raise _ExhaustedError
            if number in taken:
                continue
            if place <= depth:
                if place == 0 or double.before == parts.doubles[taken[-1]].after:
                    yield from chains((*taken, number), ups)
                continue
            below = parts.doubles[taken[-1]].after
            skip = parts.doubles[taken[2 * depth - place]].after
            if not parts.ups:
                if double.before == below + skip:
                    yield from chains((*taken, number), ups)
                continue
            for which, up in enumerate(parts.ups):
                if which not in ups and up.before == below and double.before == up.after + skip:
                    yield from chains((*taken, number), (*ups, which))

    depth = parts.depth
    blocks = [
        *(f"down{level}" for level in range(1, depth + 1)),
        "bottom",
        *(f"up{level}" for level in range(depth, 0, -1)),
    ]
    for taken, ups in chains((), ()):
        reading = {}
        for level, which in zip(range(depth, 0, -1), ups, strict=False):
            reading[f"up{level}.up"] = parts.ups[which].layer
        for block, number in zip(blocks, taken, strict=True):
            reading.update(zip((f"{block}.{place}" for place in PLACES), parts.doubles[number].layers, strict=True))
        reading["out"] = parts.head
        yield reading


def _described(layer: str, tensors: Mapping[str, Shape]) -> str:
    shapes = [f"{name} {'x'.join(map(str, shape)) or 'a number'}" for name, shape in list(tensors.items())[:3]]
    return f"'{layer}' ({', '.join(shapes)})"


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A sorting key under which `conv10` comes after `conv2`."""
    return [(1, int(part[:18]), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"([0-9]+)", name)]

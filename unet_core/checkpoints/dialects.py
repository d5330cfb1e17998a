"""The names under which other projects keep the tensors of a UNet: one small table each, and a rule for the config."""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from unet_core.config import MOST_LEVELS, UNetConfig
from unet_core.errors import CheckpointError

PLACES = ("conv.0", "conv.1", "conv.3", "conv.4")
"""The canonical names of convolution, BatchNorm, convolution, BatchNorm within a block."""


@dataclass(frozen=True)
class Dialect:
    """How one project names the layers, and what its code does that no shape tells.

    In the patterns, `{level}` counts from 1 at full resolution, `{above}` is one less, `{depth}` is the number of
    levels, and `{rank}` counts the decoder's blocks from 1 at the bottom, in forward order.
    """

    name: str
    project: str
    first: str
    """The block `down1`."""
    down: str
    """The blocks `down2`, `down3`, ..."""
    bottom: str
    up: str
    """The decoder's double convolutions."""
    upsampler: str
    """The transposed convolutions."""
    head: str
    places: tuple[str, str, str, str]
    """What follows a block's name for each of `PLACES`."""
    builds: Callable[[int], Iterable[Mapping[str, Any]]] | None = None
    """The networks that the project's class builds at a width: the fields of the config that follow; None: any."""
    rule: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the config that the project's code fixes."""
    asks: tuple[str, ...] = ()
    """Fields of the config that differ between its releases and that nothing in a file tells."""

    def layers(self, depth: int) -> dict[str, str]:
        """The project's name of every layer that a network of this depth can have, by the canonical one, in forward
        order.
        """
        blocks = {"down1": self.first.format(level=1, depth=depth)}
        for level in range(2, depth + 1):
            blocks[f"down{level}"] = self.down.format(level=level, above=level - 1, depth=depth)
        blocks["bottom"] = self.bottom.format(depth=depth)
        names = {}
        for level in range(depth, 0, -1):
            blocks[f"up{level}"] = self.up.format(level=level, rank=depth + 1 - level, depth=depth)
        for block, prefix in blocks.items():
            if block.startswith("up"):
                level = int(block.removeprefix("up"))
                names[f"{block}.up"] = self.upsampler.format(level=level, rank=depth + 1 - level)
            names.update(
                zip((f"{block}.{place}" for place in PLACES), (prefix + end for end in self.places), strict=True)
            )
        return {**names, "out": self.head}

    def contradictions(self, config: UNetConfig, *, built: bool = False) -> list[str]:
        """What the project's code would do differently from this network.

        Args:
            built: the network came from the project, or from a variant of it: whatever its widths, its code builds it.
        """
        found = [
            f"{name} is {getattr(config, name)} here, {value} there"
            for name, value in self.rule.items()
            if getattr(config, name) != value
        ]
        if not built and self.builds is not None:
            forms = [
                dataclasses.replace(config, **{**_PLAIN_WIDTHS, **form}) for form in self.builds(config.features[0])
            ]
            if config not in forms:
                found.append(f"its class builds no network of these widths (features {config.features})")
        return found


_PLAIN_WIDTHS: Mapping[str, Any] = dict.fromkeys(("decoder_features", "middle_features", "upsampled_features"))


def _doubling(width: int, *factors: int) -> tuple[int, ...]:
    return tuple(width * factor for factor in factors)


def _milesial(width: int) -> Iterator[Mapping[str, Any]]:
    yield {"features": _doubling(width, 1, 2, 4, 8, 16), "upsampling": "transposed"}
    yield {
        "features": _doubling(width, 1, 2, 4, 8, 8),
        "upsampling": "bilinear",
        "decoder_features": _doubling(width, 1, 1, 2, 4),
        "middle_features": _doubling(width, 1, 2, 4, 8),
    }


def _milesial_2019(width: int) -> Iterator[Mapping[str, Any]]:
    shared = {
        "features": _doubling(width, 1, 2, 4, 8, 8),
        "decoder_features": _doubling(width, 1, 1, 2, 4),
        "conv_bias": True,
    }
    yield {**shared, "upsampling": "bilinear"}
    yield {**shared, "upsampling": "transposed", "upsampled_features": _doubling(width, 1, 2, 4, 8)}


def _mateuszbuda(width: int) -> Iterator[Mapping[str, Any]]:
    yield {"features": _doubling(width, 1, 2, 4, 8, 16), "upsampling": "transposed", "conv_bias": False}


_NUMBERED = (".0", ".1", ".3", ".4")
_TORCH_NORM = {"norm_epsilon": 1e-5, "norm_momentum": 0.1}
_MILESIAL_RULE = {"align_corners": True, "skip_first": True, "fit": "pad", **_TORCH_NORM}

OWN = Dialect(
    name="own",
    project="this project's UNet",
    first="down{level}.conv",
    down="down{level}.conv",
    bottom="bottom.conv",
    up="up{level}.conv",
    upsampler="up{level}.up",
    head="out",
    places=_NUMBERED,
)
DIALECTS = (
    OWN,
    Dialect(
        name="milesial",
        project="milesial/Pytorch-UNet",
        first="inc.double_conv",
        down="down{above}.maxpool_conv.1.double_conv",
        bottom="down{depth}.maxpool_conv.1.double_conv",
        up="up{rank}.conv.double_conv",
        upsampler="up{rank}.up",
        head="outc.conv",
        places=_NUMBERED,
        builds=_milesial,
        rule={**_MILESIAL_RULE, "output": "logits"},
    ),
    Dialect(
        name="milesial-2019",
        project="milesial/Pytorch-UNet, up to 2019",
        first="inc.conv.conv",
        down="down{above}.mpconv.1.conv",
        bottom="down{depth}.mpconv.1.conv",
        up="up{rank}.conv.conv",
        upsampler="up{rank}.up",
        head="outc.conv",
        places=_NUMBERED,
        builds=_milesial_2019,
        rule=_MILESIAL_RULE,
        asks=("output",),
    ),
    Dialect(
        name="mateuszbuda",
        project="mateuszbuda/brain-segmentation-pytorch",
        first="encoder{level}.enc{level}",
        down="encoder{level}.enc{level}",
        bottom="bottleneck.bottleneck",
        up="decoder{level}.dec{level}",
        upsampler="upconv{level}",
        head="conv",
        places=("conv1", "norm1", "conv2", "norm2"),
        builds=_mateuszbuda,
        rule={"upsampling": "transposed", "skip_first": False, "output": "sigmoid", **_TORCH_NORM},
    ),
)
GENERIC = "generic"
"""A network of the family under names that no table has; it goes back under those that it came with."""

NAMES = (*(dialect.name for dialect in DIALECTS), GENERIC)


def dialect_of(name: str) -> Dialect | None:
    """The table of this name; None for the generic dialect, which has none.

    Raises:
        CheckpointError: no dialect has this name.
    """
    if name == GENERIC:
        return None
    for dialect in DIALECTS:
        if dialect.name == name:
            return dialect
    raise CheckpointError(f"dialect {name}: unknown; known are {', '.join(NAMES)}")


@functools.cache
def _layers(name: str, depth: int) -> frozenset[str]:
    """What a dialect with a table calls the layers of a network of this depth."""
    return frozenset(next(dialect for dialect in DIALECTS if dialect.name == name).layers(depth).values())


@dataclass(frozen=True)
class Match:
    """How well the layers of a file fit one dialect."""

    dialect: Dialect
    depth: int
    found: int
    """How many of its layers the file has."""

    @property
    def likely(self) -> bool:
        """Whether most of the layers that every such network has are there."""
        return self.found >= math.ceil(0.6 * (4 * (2 * self.depth + 1) + 1))


def matches(layers: Collection[str], dialects: Collection[Dialect] = DIALECTS) -> Iterator[Match]:
    """The best depth for each dialect, given the names of the file's layers."""
    present = set(layers)
    for dialect in dialects:
        found = {depth: len(present & _layers(dialect.name, depth)) for depth in range(1, MOST_LEVELS)}
        depth = max(found, key=lambda depth: (found[depth], -depth))
        yield Match(dialect, depth, found[depth])

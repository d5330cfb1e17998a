"""Which parameter is which in the groups of a `torch.optim` optimiser, whose state counts through them by an index."""

from collections.abc import Mapping, Sequence
from typing import Any

from unet_core.checkpoints.contents import INNER, WRAPPERS
from unet_core.errors import CheckpointError, sized, some

Shapes = Mapping[str, tuple[int, ...]]

_MOST_WAYS = 2_000
"""Ways of sharing parameters out among groups that are followed at a time."""


def named_parameters(
    groups: Sequence[Mapping[str, Any]],
    seen: Mapping[int, tuple[int, ...] | None],
    keys: Mapping[str, str],
    shapes: Shapes,
    source: str,
) -> tuple[str, ...]:
    """The canonical name of every parameter, by its index: by the groups' names, otherwise by the module's order.

    Args:
        groups: the `param_groups` of the optimiser's `state_dict`.
        seen: by the index, the shape of the parameter's moments; None where it has none.
        keys: the canonical name of every parameter by the module's own name, in the order of the module.
        shapes: by the canonical name.
        source: for messages.

    Raises:
        CheckpointError: the groups are those of another network, or leave open which parameter is which.
    """
    sizes = [len(group["params"]) for group in groups]
    if all("param_names" in group for group in groups):
        named = _by_name([str(name) for group in groups for name in group["param_names"]], keys, source)
        if len(named) != sum(sizes):
            raise CheckpointError(f"{source}: has {len(named)} param_names for {sum(sizes)} parameters")
    else:
        if sum(sizes) != len(keys):
            raise CheckpointError(
                f"{source}: the optimiser has {sum(sizes)} parameters, the network {len(keys)}; nothing tells which is "
                "which: make the optimiser of model.named_parameters(), so that it stores their names"
            )
        order = list(keys.values())
        named = tuple(order) if len(groups) == 1 or not seen else _shared_out(order, sizes, seen, shapes, source)
    wrong = [
        f"parameter {index} is {_text(shape)}, {named[index]} is {_text(shapes[named[index]])}"
        for index, shape in seen.items()
        if shape is not None and shape != shapes[named[index]]
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: the optimiser's parameters are not those of the network, in order: {some(wrong)}"
        )
    return named


def _by_name(names: Sequence[str], keys: Mapping[str, str], source: str) -> tuple[str, ...]:
    bare = {_unwrapped(name): key for name, key in keys.items()}
    unknown = [name for name in names if name not in keys and _unwrapped(name) not in bare]
    if unknown:
        raise CheckpointError(f"{source}: the optimiser has parameters that the network has not: {some(unknown)}")
    return tuple(keys[name] if name in keys else bare[_unwrapped(name)] for name in names)


def _unwrapped(name: str) -> str:
    """A name without what wrappers put before it, which the optimiser's names and the file's may have or not."""
    parts = [part for part in name.split(".") if part not in INNER]
    while len(parts) > 2 and parts[0] in WRAPPERS:
        del parts[0]
    return ".".join(parts)


def _shared_out(
    order: Sequence[str],
    sizes: Sequence[int],
    seen: Mapping[int, tuple[int, ...] | None],
    shapes: Shapes,
    source: str,
) -> tuple[str, ...]:
    """The only way in which the groups, each in the module's order, have the shapes of their moments.

    Raises:
        CheckpointError: there is none, or several.
    """
    starts = [sum(sizes[:number]) for number in range(len(sizes))]

    def fits(index: int, key: str) -> bool:
        return seen.get(index) in (None, shapes[key])

    frontier: dict[tuple[int, ...], int] = {(0,) * len(sizes): 1}  # how far each group is: in how many ways
    levels: list[dict[tuple[int, ...], int]] = []
    for key in order:
        levels.append(frontier)
        further: dict[tuple[int, ...], int] = {}
        for taken, ways in frontier.items():
            for number, start in enumerate(starts):
                if taken[number] < sizes[number] and fits(start + taken[number], key):
                    step = (*taken[:number], taken[number] + 1, *taken[number + 1 :])
                    further[step] = min(further.get(step, 0) + ways, 2)
        frontier = further
        if len(frontier) > _MOST_WAYS:
            break
    ways = frontier.get(tuple(sizes), 0)
    if ways != 1 or len(levels) != len(order):
        why = "leaves open which parameter is which" if frontier else "fits the network in no order"
        raise CheckpointError(
            f"{source}: the optimiser has {len(sizes)} parameter groups and no names; what it remembers {why}: make "
            "the optimiser of model.named_parameters(), so that it stores their names"
        )
    named: dict[int, str] = {}
    taken = tuple(sizes)
    for key, level in zip(reversed(order), reversed(levels), strict=True):
        for number, start in enumerate(starts):
            step = (*taken[:number], taken[number] - 1, *taken[number + 1 :])
            if step in level and fits(start + step[number], key):
                named[start + step[number]] = key
                taken = step
                break
    return tuple(named[index] for index in range(len(order)))


def _text(shape: tuple[int, ...]) -> str:
    return sized(shape) or "a number"

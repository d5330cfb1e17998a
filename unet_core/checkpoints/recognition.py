"""The networks among a file's tensors: those whose names a dialect has, or else those whose structure shows."""

from collections.abc import Mapping
from dataclasses import dataclass

from unet_core.checkpoints.contents import Candidate, Contents, candidates
from unet_core.checkpoints.dialects import DIALECTS, GENERIC, Dialect, Match, matches
from unet_core.checkpoints.structure import read_structure
from unet_core.errors import CheckpointError, shown, some


@dataclass(frozen=True)
class Network:
    """A candidate whose layers have been recognised."""

    candidate: Candidate
    dialect: Dialect | None
    """None: the generic one."""
    layers: Mapping[str, str]
    """What the candidate calls each layer, by canonical names."""
    sure: str
    unique: bool = True
    """False where the order of the file decided which block is which."""

    @property
    def names(self) -> dict[str, str]:
        """What the candidate calls the tensors of these layers, by canonical names."""
        canonical = {layer: name for name, layer in self.layers.items()}
        parts = ((name, *name.rpartition(".")) for name in self.candidate.shapes)
        return {f"{canonical[layer]}.{parameter}": name for name, layer, _, parameter in parts if layer in canonical}


def networks(contents: Contents, *, key: str | None, dialect: str | None) -> list[Network]:
    """Every network in the file: those whose names a table has, or else those whose structure shows.

    Args:
        contents: of the file.
        key: where in the file a person says that the network lies.
        dialect: whose names a person says that the tensors have.

    Raises:
        CheckpointError: there is none, or not where it is said to be.
    """
    source = contents.source
    places = [place for place in candidates(contents, key) if any(len(shape) == 4 for shape in place.shapes.values())]
    if key is not None:
        labels = sorted({place.label for place in places} - {""})
        places = [place for place in places if f".{key}." in f".{place.label}."]
        if not places:
            raise CheckpointError(f"{source}: no network lies under the key {key}; there are: {some(labels) or 'none'}")
    found = []
    if dialect != GENERIC:
        tables = DIALECTS if dialect is None else [table for table in DIALECTS if table.name == dialect]
        for place in places:
            layers = {key.rpartition(".")[0] for key in place.shapes}
            best = max(matches(layers, tables), key=lambda match: match.found)
            if best.likely:
                found.append(_named(place, best))
        if dialect is not None and not found:
            raise CheckpointError(f"{source}: its tensors do not have the names of the dialect {dialect}")
    return found or _structured(contents, places, alone=key is None)


def _named(place: Candidate, match: Match) -> Network:
    layers = match.dialect.layers(match.depth)
    return Network(place, match.dialect, layers, f"certain: the names and shapes of {match.dialect.project}")


def _structured(contents: Contents, places: list[Candidate], *, alone: bool) -> list[Network]:
    """The networks whose names no table has; of the same tensors with fewer wrappers taken off, only one.

    Args:
        contents: of the file.
        places: where to look.
        alone: refuse a network beside which lie convolutions of no network, of which it may be a part.

    Raises:
        CheckpointError: there is none, or one that is refused.
    """
    found: list[Network] = []
    reasons = []
    for place in reversed(places):  # the most wrappers first
        if any(
            place.group == other.candidate.group and other.candidate.prefix.startswith(place.prefix) for other in found
        ):
            continue
        try:
            structure = read_structure(place.shapes, contents.source, ordered=contents.ordered)
        except CheckpointError as error:
            reasons.append((len(place.shapes), error))
            continue
        sure = "a guess from the shapes of the tensors, which fit together in one way only"
        if not structure.unique:
            sure = "a guess from the order of the tensors, whose shapes fit together in several ways"
        found.append(Network(place, None, structure.layers, sure, structure.unique))
    for network in found if alone else ():
        _check_alone(network.candidate, contents, [other.candidate for other in found])
    if found:
        return found
    if reasons:
        raise max(reasons, key=lambda reason: reason[0])[1]
    if any(key.split(".")[-1] == "param_groups" for key in contents.beside):
        what = "an optimiser's state and no network; save model.state_dict() as well"
    else:
        what = f"no network: {some(key for group in contents.groups.values() for key in group) or 'no tensor is in it'}"
    raise CheckpointError(f"{contents.source}: holds {what}")


def _check_alone(place: Candidate, contents: Contents, found: list[Candidate]) -> None:
    """Refuse a network without a table beside which, in the same dict, lie convolutions of no network."""
    prefixes = tuple(other.prefix for other in found if other.group == place.group)
    beside = [
        key for key, shape in contents.groups[place.group].items() if len(shape) == 4 and not key.startswith(prefixes)
    ]
    if beside:
        raise CheckpointError(
            f"{contents.source}: the network under {shown(place.label)} may be a part of a larger one, with "
            f"{some(beside)} beside it; if it is not, say --key {shown(place.label)}"
        )


def chosen(found: list[Network], source: str) -> Network:
    """The network that is meant, of several the one under the most usual key.

    Raises:
        CheckpointError: no key is more usual than the others.
    """
    ranked = sorted(found, key=lambda network: network.candidate.rank)
    if len(ranked) > 1 and ranked[0].candidate.rank == ranked[1].candidate.rank:
        labels = [network.candidate.label or "the file's outermost dict" for network in ranked]
        raise CheckpointError(f"{source}: holds several networks: {some(labels)}; choose one with --key")
    return ranked[0]

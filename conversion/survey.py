"""What is in a file of any kind, by its headers alone: whether or not it is a network, and what to type next."""

import dataclasses
import json
import math
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from conversion.code import Known, known_of
from conversion.containers import Opened, contents_at
from unet_core.checkpoints.containers import Container, existing_container
from unet_core.checkpoints.contents import Contents, Shape
from unet_core.checkpoints.reading import NO_HINTS, SEMANTICS, Hints
from unet_core.checkpoints.recognition import Network, networks
from unet_core.errors import CheckpointError, shown
from unet_core.paths import as_source
from unet_core.staging import at_hand

_LARGE = 1_000_000_000
"""Bytes from which on only the headers of a file are read."""

_MOST_BRANCHES = 40

_FOREIGN = re.compile(r"(^|[./])(kernel|scale|moving_mean|mean|gamma)(:0)?$")
"""How names of Flax and Keras end, and none of torch's."""


@dataclass(frozen=True)
class Branch:
    """A part of the tree of names."""

    name: str
    depth: int
    tensors: int
    numbers: int
    shape: Shape | None
    """Of a single tensor."""


@dataclass(frozen=True)
class Survey:
    """What a file holds, as far as its headers tell."""

    path: str
    container: str
    file_bytes: int
    tensors: int
    numbers: int
    """In all tensors."""
    tree: tuple[Branch, ...]
    """The names, the largest branches in more detail."""
    networks: tuple[str, ...]
    """Those of known names or structure, with where they lie and how sure that is."""
    lost: tuple[str, ...]
    """What is no tensor, and is not carried over with a network."""
    inert: tuple[str, ...]
    """The classes and functions of which nothing was run."""
    code: tuple[str, ...]
    """The classes of modules that were pickled whole."""
    next: tuple[str, ...]
    """Commands that go on from here."""
    problem: str = ""
    """Why it is not read as a network; empty: its values were not looked at."""

    def to_json(self) -> str:
        """Everything, for machines."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def is_large(path: Path) -> bool:
    """Whether a file is one whose values are not looked at unasked; never an Orbax directory, which has no header.

    Raises:
        CheckpointError: it is missing, or of a kind that is not read.
    """
    with at_hand(as_source(path)) as local:
        return existing_container(local) is not Container.ORBAX and _bytes(local) > _LARGE


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def survey(path: str | Path, *, hints: Hints = NO_HINTS, problem: str = "") -> Survey:
    """Say what is in the file or directory at `path`; no tensor is read, and no code is run.

    Args:
        path: where.
        hints: what the file does not tell, as for `inspect`.
        problem: why it is not read as a network, where that is known.

    Raises:
        UNetError: it cannot be opened; one line says why.
        MissingFrameworkError: what reads its kind is not installed.
    """
    path = as_source(path)
    with at_hand(path) as local:
        container, file_bytes, contents = existing_container(local), _bytes(local), contents_at(local)
    try:
        found = networks(contents, key=hints.key, dialect=hints.dialect)
    except CheckpointError as error:
        found, problem = [], problem or str(error)
    shapes = [shape for group in contents.groups.values() for shape in group.values()]
    return Survey(
        path=str(path),
        container=container.value,
        file_bytes=file_bytes,
        tensors=len(shapes),
        numbers=sum(map(math.prod, shapes)),
        tree=tuple(_branches(contents)),
        networks=tuple(map(_described, found)),
        lost=tuple(f"{name} {value}" for name, value in contents.beside.items() if "." not in name),
        inert=contents.inert,
        code=tuple(dict.fromkeys(contents.code.values())),
        next=tuple(_next(path, contents, found, hints, whole=container is Container.ONNX and not problem)),
        problem=problem,
    )


def _described(network: Network) -> str:
    place = f" under {shown(network.candidate.label)}" if network.candidate.label else ""
    name = network.dialect.project if network.dialect else "a UNet"
    return f"{name}{place}, {len(network.candidate.shapes)} tensors ({network.sure})"


def _next(path: Path, contents: Contents, found: list[Network], hints: Hints, *, whole: bool) -> Iterator[str]:
    """What to type, the likeliest first; `whole`: the file tells its network."""
    known = known_of(hints)
    source, target = shlex.quote(str(path)), shlex.quote(f"{path.name.split('.')[0]}_jax")
    convert = f"unet convert {source} {target}"
    several = len({network.candidate.label for network in found}) > 1
    key = f" --key {shlex.quote(found[0].candidate.label)}" if several and found[0].candidate.label else ""
    if whole or any(network.dialect for network in found):
        yield f"{convert}{key}"
    written = next(iter(contents.code.values()), "").split(" ")[0].rpartition(".")[2]
    title = known.module if isinstance(known.module, str) else f"FILE.py:{written or 'Class'}"
    code = f"--module {title if title.startswith('FILE') else shlex.quote(title)}"
    names = [name for group in contents.groups.values() for name in group]
    if any(map(_FOREIGN.search, names)):
        yield f"unet inspect {source} {code} --draft names.csv"
        yield f"{convert} {code} --names names.csv"
    else:
        yield f"{convert} {code}{key}"
    if contents.code:
        yield f"{convert} --trust"
    if any(name.split(".")[-1] == "param_groups" for name in contents.beside):
        yield f"{convert} {code} --to jax"


def next_of(path: Path, found: Opened, known: Known) -> str:
    """The conversion of a network that was read, as it is typed."""
    checkpoint = found.checkpoint
    back = found.framework == "jax"
    stem = path.name if back else path.name.split(".")[0]
    words = ["unet", "convert", str(path), f"{stem}.pt" if back else f"{stem}_jax"]
    if isinstance(known.module, str):
        words += ["--module", known.module]
        words += ["--kwargs", *(f"{name}={value!r}" for name, value in known.kwargs.items())] if known.kwargs else []
    elif checkpoint.evidence.by == "nothing" and not checkpoint.config_stored:
        code = checkpoint.reading.code.split(" ")[0].rpartition(".")[2]
        words += ["--module", f"FILE.py:{code or 'Class'}"]
    for name in ("key", "example", "names", *SEMANTICS):
        value = getattr(known, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    if known.trust:
        words.append("--trust")
    return " ".join(map(shlex.quote, words))


@dataclass
class _Node:
    tensors: int = 0
    numbers: int = 0
    shape: Shape | None = None
    parts: "dict[str, _Node]" = field(default_factory=dict)
    expanded: bool = False


def _branches(contents: Contents) -> Iterator[Branch]:
    """The tree of names, of which the largest branches are opened first, as far as there is room."""
    root = _Node()
    for group, shapes in contents.groups.items():
        for key, shape in shapes.items():
            node = root
            for part in re.split(r"[./]", f"{group}.{key}" if group else key)[:40]:
                node = node.parts.setdefault(part, _Node())
                node.tensors, node.numbers = node.tensors + 1, node.numbers + math.prod(shape)
            node.shape = shape
    root.expanded, room = True, _MOST_BRANCHES - len(root.parts)
    closed = list(root.parts.values())
    while closed:
        node = max(closed, key=lambda one: one.numbers)
        closed.remove(node)
        if 0 < len(node.parts) <= room:
            node.expanded, room = True, room - len(node.parts)
            closed += node.parts.values()
    yield from _listed(root, 0)


def _listed(node: _Node, depth: int) -> Iterator[Branch]:
    for name, part in list(node.parts.items())[:_MOST_BRANCHES]:
        yield Branch(shown(name), depth, part.tensors, part.numbers, None if part.parts else part.shape)
        if part.expanded:
            yield from _listed(part, depth + 1)

"""A network's own code: where it is, how it is called, and a file's tensors in what it builds."""

import ast
import copy
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from conversion.backends.frameworks import importing
from unet_core.checkpoints.reading import Hints
from unet_core.errors import UNetError, first_line, shown, some
from unet_core.paths import as_path

if TYPE_CHECKING:
    from torch import Tensor, nn

_INSTALLED = ("site-packages", "dist-packages")
_WORDS = {"true": "True", "false": "False", "none": "None", "null": "None"}


@dataclass(frozen=True)
class Known(Hints):
    """What a person knows of a network, its own code and what it computed among that."""

    module: "str | nn.Module | None" = None
    """Its class, or the function that builds it, as FILE.py:Name or package.module:Name; or a module that is built. The
    code is run: the network is read from it, and proven against it."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """What the class is called with."""
    out: int | str | None = None
    """Which of several outputs is the network's, by index or key; None: the first."""
    sizes: tuple[tuple[int, ...], ...] = ()
    """Heights and widths (depths) to read it at, where its code does not tell which ones it takes."""
    example: Path | None = None
    """An .npz with what the network's own code computed of an input (`conversion.proof.example`)."""
    unchecked: bool = False
    """Take what a person says on trust, where nothing can be run against it; it is then not called verified."""
    trust: bool = False
    """Run the code that a file brings along."""
    nnunet_fold: int | str | None = None
    """Of a model folder of nnU-Net, which fold; None: the first."""
    names: Path | None = None
    """A table of which tensor of the file is which of the module's (`unet_core.checkpoints.naming`)."""

    @property
    def title(self) -> str:
        """Of the code, for reports; without the folders that lead to this one."""
        if not isinstance(self.module, str):
            return type(self.module).__name__
        file, separator, name = self.module.rpartition(":")
        path = Path(file)
        if not separator or not path.is_absolute():
            return shown(self.module)
        here = Path.cwd()
        return shown(f"{path.relative_to(here) if path.is_relative_to(here) else path.name}:{name}")


class Told(TypedDict, total=False):
    """What `conversion.convert` and `verify` may be told by keywords: fields of `Known`; None: nothing."""

    module: "str | nn.Module | None"
    kwargs: Mapping[str, Any] | None
    out: int | str | None
    sizes: Sequence[tuple[int, ...]] | None
    example: str | Path | None
    unchecked: bool | None
    names: str | Path | None


def known_of(hints: Hints, **told: Unpack[Told]) -> Known:
    """The same hints, and what else was told."""
    given: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
    given |= {name: as_path(given[name]) for name in ("example", "names") if name in given}
    if "sizes" in given:
        given["sizes"] = tuple(map(tuple, given["sizes"]))
    return Known(**{**vars(hints), **given})


@dataclass(frozen=True)
class Live:
    """A torch module that is built, and which of its outputs is meant."""

    module: "nn.Module"
    out: int | str | None = None
    """Index or key; None: the only one, or the first."""

    def picked(self, answer: Any) -> "Tensor":
        """The output that is meant, of what calling the module returned."""
        with importing():
            from unet_torch.reading.read import picked
        return picked(answer, self.out)


def values_of(words: Iterable[str]) -> dict[str, Any]:
    """Arguments from name=value: Python's literals; a word that is none is a string.

    Raises:
        UNetError: no such pair, a name twice, or a word that Python spells otherwise.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, separator, text = word.partition("=")
        if not separator or not name.isidentifier() or name in found:
            why = "is given twice" if name in found else "give it as name=value"
            raise UNetError(f"--kwargs {shown(word)}: {why}")
        if text in _WORDS:
            raise UNetError(f"--kwargs {shown(word)}: Python writes {_WORDS[text]}; for the word, give it in quotes")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            found[name] = text
    return found


def build(known: Known) -> "nn.Module":
    """The module that the code builds, with the parameters that it draws.

    Raises:
        UNetError: there is no such code, it fails, or it builds no torch module.
    """
    if not isinstance(known.module, str):
        assert known.module is not None
        return copy.deepcopy(known.module)
    place, separator, name = known.module.rpartition(":")
    if not separator or not place or not name.isidentifier():
        raise UNetError(f"--module {shown(known.module)}: give it as FILE.py:Class or package.module:Class")
    with of_theirs(known.title):
        code = _of_file(Path(place)) if place.endswith(".py") else _of_package(place)
    made = getattr(code, name, None)
    if not callable(made):
        own = [
            one for one, value in vars(code).items() if isinstance(value, type) and value.__module__ == code.__name__
        ]
        raise UNetError(f"--module {known.title}: there is no {name} to call; there are: {some(own) or 'no classes'}")
    with of_theirs(known.title):
        module = made(**known.kwargs)
    if not _is_module(module):
        raise UNetError(f"--module {known.title}: makes a {type(module).__name__}, no torch.nn.Module")
    return module


@contextmanager
def of_theirs(title: str) -> Iterator[None]:
    """Say of whatever the code raises, in one line, that it is the code's."""
    try:
        yield
    except UNetError:
        raise
    except (Exception, SystemExit) as error:  # anybody's code
        raise UNetError(f"{title}: its code fails: {type(error).__name__}: {first_line(error)}") from error


def _of_file(path: Path) -> ModuleType:
    """The file as a module, run anew; where it lies in a package, as a part of that."""
    path = path.resolve()
    if not path.is_file():
        raise UNetError(f"{path}: no such file")
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if root.name in _INSTALLED:
        return importlib.import_module(".".join(parts))
    _look_in(Path.cwd(), root)
    if len(parts) > 1 and parts[0] in sys.modules:
        raise UNetError(f"{path}: its package has the name of another one that is in use, {parts[0]}")
    before = set(sys.modules)
    try:
        if len(parts) > 1:
            return importlib.import_module(".".join(parts))
        name = "_code_" + re.sub(r"\W", "_", path.stem)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where dataclasses look for what a class is made in
        spec.loader.exec_module(module)
        return module
    finally:  # its neighbours' names are common ones: another folder's shall not be taken for them
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            parents = Path(file or "/").resolve().parents
            if root in parents and not any(parent.name in _INSTALLED for parent in parents):
                del sys.modules[name]


def _of_package(name: str) -> ModuleType:
    _look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise UNetError(f"--module {name}: there is no {error.name}: install it, or name its file") from error
        raise


def _look_in(*folders: Path) -> None:
    """Let imports look in these folders, in the last one first, as they do beside a script."""
    for folder in map(str, folders):
        sys.path[:] = [folder, *(one for one in sys.path if one != folder)]


def _is_module(made: Any) -> bool:
    from torch import nn

    return isinstance(made, nn.Module)

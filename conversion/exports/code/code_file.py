"""A network as one readable file of code, with its weights beside it, and the Python of its own that runs both."""

import importlib.util
import pprint
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conversion.backends.backend import Step, Tool
from conversion.backends.frameworks import importing
from conversion.exports.code.language import Language
from conversion.exports.code.printing import Printer
from conversion.exports.code.tree import Path as Place
from conversion.exports.deployment import Source, metadata
from conversion.exports.programs import Answers, fresh, in_order, numbered
from unet_core.config import UNetConfig
from unet_core.errors import MissingFrameworkError, printable

if TYPE_CHECKING:
    from torch import nn

WIDTH = 110
"""Characters of a line."""


def write(path: Path, source: Source, weights: str, language: Language) -> None:
    """Write the code to a new file, which names that of the weights.

    Raises:
        UnprintableError: there is no code for an operation.
    """
    path.write_text(formatted(written(source, weights, language)), encoding="utf-8")


def written(source: Source, weights: str, language: Language) -> str:
    """The file's text, before it is formatted."""
    graph = source.graph
    called, title = names_of(source)
    printer = Printer(graph, called, title, language, source.checkpoint.tensors)
    classes = ["\n".join(lines) + "\n" for lines in printer.classes()]
    helpers = [text for name, text in language.helpers.items() if name in printer.helpers]
    aliases = [text for name, text in language.aliases.items() if name in printer.helpers]
    evidence = source.checkpoint.evidence
    origin = f"read from {printable(evidence.source)}" if evidence.by == "code" and evidence.source else "exported"
    head = language.head.format(
        title=title,
        origin=origin,
        more="from collections.abc import Callable\n" if aliases else "",
        weights=weights,
        axes=", ".join(graph.axes),
        channels=graph.in_channels,
        scaled=" from 0 to 1",
    )
    axes = "HW" if graph.dimensions == 2 else "DHW"
    about = metadata(source, "network", f"N{axes}C" if language.channels_last else f"NC{axes}")
    constants = "".join([*aliases, _constant(about)])
    return "\n\n".join([head, constants, *helpers, *classes, language.load.format(title=title)])


def _constant(about: Mapping[str, object]) -> str:
    """What a deployment has to know."""
    names = ("input", "divide_by", "window", "sizes", "answer", "classes")
    kept = {name: about[name] for name in names if name in about}
    return f"DEPLOYMENT = {pprint.pformat(kept, width=WIDTH, compact=True, sort_dicts=False)}\n"


def names_of(source: Source) -> tuple[Callable[[Place], str], str]:
    """What the classes of its modules are called, by their places, and its own; where its code is at hand."""
    module = _module(source)
    if module is None:
        return lambda _: "", "Network"
    classes = {name: type(part).__name__ for name, part in module.named_modules(remove_duplicate=False)}
    return lambda place: classes.get(".".join(place), ""), type(module).__name__


def _module(source: Source) -> "nn.Module | None":
    if source.opened.live is not None:
        return source.opened.live.module
    config = source.checkpoint.config
    if not isinstance(config, UNetConfig):
        return None
    try:
        with importing():
            import torch

            from unet_torch.model import UNet
    except MissingFrameworkError:
        return None
    with torch.device("meta"):
        return UNet.from_config(config)


def formatted(text: str) -> str:
    """By ruff, where it is installed; else as it is."""
    if importlib.util.find_spec("ruff") is None:
        return text
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", str(WIDTH), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.stdout if not done.returncode else text


class Written:
    """See `conversion.exports.programs.Program`: the file and its weights in a Python that has its library alone."""

    trains = True

    def __init__(self, path: Path, weights: Path, language: Language) -> None:
        self.path, self.weights, self.language = path, weights, language
        self.tool: Tool = language.tool
        self.versions: Mapping[str, str] = language.versions

    def run(self, pictures: Sequence[np.ndarray], cotangent: np.ndarray) -> Answers:
        """See there."""
        script = _OPENED.replace("PATH", repr(str(self.path.absolute()))) + self.language.script
        script = script.replace("WEIGHTS", repr(str(self.weights.absolute())))
        found = fresh(script, cotangent=cotangent, **numbered(pictures))
        gradients, statistics = (
            {name.removeprefix(head): value for name, value in found.items() if name.startswith(head)}
            for head in ("gradient.", "statistic.")
        )
        step = Step(found["training"], gradients, statistics)
        return Answers(in_order(found, "narrow."), in_order(found, "wide."), step)


_OPENED = """
import importlib.util
spec = importlib.util.spec_from_file_location("written", PATH)
written = importlib.util.module_from_spec(spec)
sys.modules["written"] = written
spec.loader.exec_module(written)
cotangent = given.pop("cotangent")
"""

"""What is exported: a network that only predicts, what it answers, and what a deployment has to know beside it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from conversion.containers import Opened
from conversion.inference import opened_with_classes, output_of
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.config import Output
from unet_core.data.colours import hexadecimal
from unet_core.data.formats.reading import AS_STORED
from unet_core.data.labels import Classes
from unet_core.graph import Graph, Node
from unet_core.graph.family import graph_of
from unet_core.graph.graph import pruned
from unet_core.prediction.metrics import decided
from unet_core.prediction.predictions import probable
from unet_core.version import VERSION

Answer = Literal["network", "logits", "probabilities", "classes"]
"""What an exported network answers: what calling it does; or the logits, their sigmoid or softmax, or of every pixel
the class, each as `unet predict` has it."""

_COLOURS = {1: "grey", 3: "RGB"}


@dataclass(frozen=True)
class Source:
    """A network that is to be exported."""

    opened: Opened
    known: Classes
    """What stands for its classes in a mask."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What it holds."""
        return self.opened.checkpoint

    @property
    def graph(self) -> Graph:
        """What it computes."""
        return graph_of(self.checkpoint.config)

    @property
    def output(self) -> Output:
        """What its logits are."""
        return output_of(self.checkpoint)

    @property
    def function(self) -> Literal["sigmoid", "softmax"]:
        """What makes probabilities of its logits."""
        return "sigmoid" if self.graph.out_channels == 1 or self.output == "sigmoid" else "softmax"

    @property
    def classes(self) -> list[dict[str, Any]]:
        """What stands for each class in a mask, and what it is called where somebody said."""
        names, found = self.known.names, []
        for number, value in enumerate(self.known.values):
            held: dict[str, Any] = {"colour": hexadecimal(value)} if self.known.coloured else {"value": value}
            found.append({"class": number, **({"name": names[number]} if names else {}), **held})
        return found


def read_source(path: Path, hints: Hints = NO_HINTS) -> Source:
    """The network of a checkpoint, or the best one of a run; raises what `conversion.inference.open_network` raises."""
    return Source(*opened_with_classes(path, hints)[:2])


def answering(source: Source, answer: Answer) -> Graph:
    """What is computed for an answer; for the classes, the logits, of which they are the decision."""
    graph = source.graph
    if answer == "network":
        return dataclasses.replace(graph, training=None)
    nodes = tuple(pruned(graph.nodes, graph.logits))
    if answer == "probabilities":
        axis = {"axis": 1} if source.function == "softmax" else {}
        nodes = (*nodes, Node("probabilities", source.function, (graph.logits,), attributes=axis))
    return dataclasses.replace(graph, nodes=nodes, training=None)


def finished(logits: np.ndarray, source: Source, answer: Answer) -> np.ndarray:
    """The answer to logits, channels last, in NumPy."""
    if answer == "classes":
        return decided(logits, source.output)
    return probable(logits, source.function) if answer == "probabilities" else logits


def metadata(source: Source, answer: Answer, layout: str, **more: Any) -> dict[str, Any]:
    """What a deployment has to know to do what `unet predict` does; plain JSON values.

    Args:
        source: the network.
        answer: what it answers.
        layout: the order of the axes of a picture.
        more: on its input.
    """
    graph, checkpoint = source.graph, source.checkpoint
    sizes: Mapping[str, Any] = {
        "multiple": graph.sizes.multiple,
        "least": graph.minimum_size,
        "most": graph.sizes.most,
        "only": [list(size) for size in graph.sizes.only],
    }
    pictures = checkpoint.origin.pictures or AS_STORED
    divisors = {"divide_by": {"uint8": 255, "uint16": 65535, "float32": 1}}
    scaling = divisors if pictures.window is None else {"window": list(pictures.window)}
    colours = _COLOURS.get(graph.in_channels, "as the file has them")
    return {
        "producer": f"unet-twins {VERSION}",
        "network": checkpoint.config.title,
        "known_by": str(checkpoint.evidence),
        "input": {"layout": layout, "dtype": "float32", "channels": graph.in_channels, "colours": colours, **more},
        **scaling,
        "sizes": sizes,
        "answer": {"is": answer, "channels": graph.out_channels, "function_of_logits": source.function},
        "classes": source.classes,
    }

"""Which pictures a network that was read from code is good for, and whether it can be trained."""

import math
from collections.abc import Sequence

from unet_core.errors import ConfigError, sized
from unet_core.graph import Graph
from unet_core.graph.chance import draws
from unet_core.graph.sizes import evaluate


def refusal(graph: Graph, size: Sequence[int], *, training: bool = False) -> str:
    """Why the network makes no mask of a picture of this size, in a sentence; empty where it does.

    Args:
        graph: the network.
        size: of the picture.
        training: in training mode.
    """
    if len(size) != graph.dimensions:
        return f"the network takes {'volumes' if graph.dimensions == 3 else 'pictures'}, of {graph.dimensions} axes"
    if not graph.sizes.take(size):
        return f"the network takes {graph.sizes}"
    answered = graph.in_mode(training=training).answered(size)
    if answered != tuple(size):
        return f"the network answers {sized(size)} pixels with {sized(answered)}: that is no mask of the picture"
    if not training and draws(graph, training=False):
        return "the network draws at random even where it predicts: it answers the same picture otherwise each time"
    return ""


def check_training(graph: Graph, batch: int, crop: tuple[int, ...]) -> None:
    """Raise ConfigError where the network cannot be trained on batches of so many crops of this size."""
    if graph.untrained:
        raise ConfigError(f"the network cannot be trained: {graph.untrained}")
    named = sized(crop if len(set(crop)) > 1 else crop[:1])
    why = refusal(graph, crop, training=True)
    if why:
        raise ConfigError(f"crop {named}: {why}")
    made = graph.in_mode(training=True)
    if made.out_channels != graph.out_channels:
        raise ConfigError("the network cannot be trained: it answers another number of channels in training mode")
    sizes = graph.sizes_of(batch, crop)
    for node in made.nodes:
        if node.operation == "batch_norm" and not node.attributes["frozen"]:
            examples, _, *pixels = (evaluate(length, sizes) for length in made.shapes[node.name])
            if examples * math.prod(pixels) < 2:
                raise ConfigError(
                    f"crop {named}: leaves {node.name} a single value of each channel; give a larger one, or a larger "
                    "--batch"
                )

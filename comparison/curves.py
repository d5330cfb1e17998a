"""The curves of training runs, over each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unet_core.errors import RunError
from unet_core.files import atomic
from unet_core.history import read_history
from unet_core.run import HISTORY, read_settings

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")


def draw_runs(runs: Sequence[Path], path: Path) -> None:
    """Write a picture: training loss (and its running mean), validation loss and mean IoU, learning rate.

    Raises:
        RunError: a folder is no run, or has no step yet; or a picture of another kind.
        CheckpointError: the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RunError(f"{path}: give a name that ends in .png, .svg or .pdf")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, rates = figure.subplots(1, 3, width_ratios=(2, 2, 1))
    for number, run in enumerate(runs):
        settings = read_settings(run)
        entries = read_history(run / HISTORY)
        steps = [entry for entry in entries if "loss" in entry]
        if not steps:
            raise RunError(f"{run}: has no step in its history yet")
        x, y = np.array([(entry["step"], entry["loss"]) for entry in steps]).T
        name = f"{run.name} ({settings.backend})"
        look = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _STYLES[number % len(_STYLES)]}
        losses.plot(x, y, color=look["color"], alpha=0.2, linewidth=0.8)
        losses.plot(x, _smooth(y), label=name, **look)
        found = [(entry["step"], entry["validation"]) for entry in entries if "validation" in entry]
        if found:
            at = [step for step, _ in found]
            losses.plot(at, [one["loss"] for _, one in found], marker="o", markersize=4, **look)
            scores.plot(at, [one["mean_iou"] for _, one in found], marker="o", markersize=4, label=name, **look)
        rates.plot(x, [entry["rate"] for entry in steps], **look)
    losses.set_title("loss: every step, running mean, validation (dots)")
    scores.set_title("mean IoU of the validation pictures")
    rates.set_title("learning rate")
    for panel in (losses, scores, rates):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    losses.set_ylim(bottom=0)
    rates.set_ylim(bottom=0)
    losses.legend(frameon=False)
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format=path.suffix[1:].lower())


def _smooth(y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The mean over a twentieth of the steps, up to each of them."""
    width = max(len(y) // 20, 1)
    sums = np.cumsum(np.concatenate((np.zeros(1), y)))
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - width, 0)
    mean: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return mean

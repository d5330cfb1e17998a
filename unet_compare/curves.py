"""The curves of training runs, over each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from unet_core.errors import RunError
from unet_core.files import atomic
from unet_core.training.history import read_history
from unet_core.training.run import HISTORY, Backend, RunConfig, read_run_config

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")

Look = Mapping[str, Any]
Piece = tuple[int, int | None, Look]
"""The steps behind the start and the end of a piece of a curve (None: it goes on), and how it looks."""

TITLES: Mapping[Backend, str] = {"torch": "PyTorch", "jax": "JAX"}
LOOKS: Mapping[Backend, Look] = {
    "torch": {"color": COLOURS[0], "linestyle": _STYLES[0]},
    "jax": {"color": COLOURS[1], "linestyle": _STYLES[1]},
}


def draw_runs(runs: Sequence[Path], path: Path) -> None:
    """Write a picture: training loss (and its running mean), validation loss and mean IoU, learning rate.

    A run that was moved to the other framework on the way has the colour of each in its part, and marks between.

    Raises:
        RunError: a folder is no run, or has no step yet; or a picture of another kind.
        CheckpointError: the file cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise RunError(f"{path}: give a name that ends in .png, .svg or .pdf")
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    losses, scores, rates = figure.subplots(1, 3, width_ratios=(2, 2, 1))
    of = {run: read_run_config(run) for run in runs}
    moved = any(settings.switches for settings in of.values())
    free = len(LOOKS) if moved else 0  # a colour that means a framework means nothing else
    legend: list[tuple[tuple[Line2D, ...], str]] = []
    for number, run in enumerate(runs, free):
        entries = read_history(run / HISTORY)
        steps = [entry for entry in entries if "loss" in entry]
        if not steps:
            raise RunError(f"{run}: has no step in its history yet")
        x, y = np.array([(entry["step"], entry["loss"]) for entry in steps]).T
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": _STYLES[number % len(_STYLES)]}
        pieces: Sequence[Piece] = pieces_of(of[run]) if of[run].switches else ((0, None, look),)
        draw_pieces(losses, x, y, pieces, alpha=0.2, linewidth=0.8, linestyle="-")
        lines = draw_pieces(losses, x, smooth(y), pieces)
        legend.append((tuple({line.get_color(): line for line in lines}.values()), _title(run, of[run])))
        found = [(entry["step"], entry["validation"]) for entry in entries if "validation" in entry]
        if found:
            at = [step for step, _ in found]
            dots: Look = {"marker": "o", "markersize": 4}
            draw_pieces(losses, at, [one["loss"] for _, one in found], pieces, **dots)
            draw_pieces(scores, at, [one["mean_iou"] for _, one in found], pieces, **dots)
        draw_pieces(rates, x, [entry["rate"] for entry in steps], pieces)
        for panel in (losses, scores, rates):
            mark_switches(panel, of[run], labels=panel is not rates)
    pad = 16 if moved else None  # room for the marks' labels
    losses.set_title("loss: every step, running mean, validation (dots)", pad=pad)
    scores.set_title("mean IoU of the validation pictures", pad=pad)
    rates.set_title("learning rate", pad=pad)
    for panel in (losses, scores, rates):
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    losses.set_ylim(bottom=0)
    rates.set_ylim(bottom=0)
    losses.legend(
        *zip(*legend, strict=True),
        frameon=moved,
        edgecolor="none",
        handlelength=2.0 * max(len(handle) for handle, _ in legend),
        handler_map={tuple: HandlerTuple(ndivide=None)},
    )
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format=path.suffix[1:].lower())


def pieces_of(settings: RunConfig) -> tuple[Piece, ...]:
    """The pieces of a run, each in the look of its framework."""
    return tuple((start, end, LOOKS[backend]) for start, end, backend in settings.pieces)


def draw_pieces(panel: Axes, x: ArrayLike, y: ArrayLike, pieces: Sequence[Piece], **more: Any) -> list[Line2D]:
    """Draw a curve in several looks.

    Args:
        panel: where.
        x, y: the curve; `x` are steps and rise.
        pieces: which steps look how.
        more: of all pieces; it goes before what their looks say.

    Returns:
        The lines of the pieces.
    """
    x, y = np.asarray(x), np.asarray(y)
    lines: list[Line2D] = []
    for start, end, look in reversed(pieces):  # the point that two pieces share belongs to the earlier one
        first = max(int(np.searchsorted(x, start, "right")) - 1, 0)
        last = len(x) if end is None else int(np.searchsorted(x, end, "right"))
        lines += panel.plot(x[first:last], y[first:last], **{**look, **more})
    return lines[::-1]


def mark_switches(panel: Axes, settings: RunConfig, *, labels: bool = True) -> None:
    """Draw a line where a run was moved to the other framework, whose name is written above it."""
    for start, _, backend in settings.pieces[1:]:
        panel.axvline(start, color="0.5", linewidth=0.8, zorder=1)
        if labels:
            panel.annotate(
                f"→ {TITLES[backend]}",
                (start, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize="small",
                color=LOOKS[backend]["color"],
            )


def smooth(y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The mean over a twentieth of the steps, up to each of them."""
    width = max(len(y) // 20, 1)
    sums = np.cumsum(np.concatenate((np.zeros(1), y)))
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(ends - width, 0)
    mean: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return mean


def _title(run: Path, settings: RunConfig) -> str:
    if settings.switches:
        return f"{run.name}: {', '.join(TITLES[backend] for _, _, backend in settings.pieces)}"
    return f"{run.name} ({settings.backend})"

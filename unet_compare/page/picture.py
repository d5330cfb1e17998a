"""One picture of a training that went on in the other framework, and of what both twins make of its network."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unet_compare.curves import LOOKS, TITLES, draw_pieces, mark_switches, pieces_of, smooth
from unet_core.files import atomic
from unet_core.training.history import read_history
from unet_core.training.run import HISTORY, read_run_config


@dataclass(frozen=True)
class Answers:
    """What both twins make of one image, and what rounding alone does to it."""

    image: Float[np.ndarray, "h w c"]
    """From 0 to 1; one or three channels."""
    mask: UInt8[np.ndarray, "h w"]
    """The truth: 1 in cells, 0 elsewhere."""
    torch: Float[np.ndarray, "h w"]
    """Probabilities."""
    jax: Float[np.ndarray, "h w"]
    """Probabilities."""
    rounding: float
    """torch's own float32 error: the largest difference from its float64 probabilities."""

    @property
    def difference(self) -> Float[np.ndarray, "h w"]:
        """How far the two outputs are apart, absolute."""
        return np.abs(self.torch.astype(np.float64) - self.jax.astype(np.float64))

    @property
    def apart(self) -> float:
        """The largest difference."""
        return float(self.difference.max())

    @property
    def iou(self) -> float:
        """Of the cells, by JAX's output."""
        found, true = self.jax > 0.5, self.mask > 0
        return float((found & true).sum()) / max(int((found | true).sum()), 1)


def draw(run: Path, answers: Answers, path: Path) -> None:
    """Write a PNG: the run's losses, the image, its true mask, JAX's output, and its difference from torch's.

    Raises:
        RunError: the folder `run` is no run.
        CheckpointError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    losses, image, mask, probability, difference = figure.subplots(1, 5, width_ratios=(1.7, 1, 1, 1, 1))
    _draw_losses(losses, run)

    image.imshow(answers.image, cmap="gray", vmin=0, vmax=1)
    image.set_title("input, not trained on")
    mask.imshow(answers.mask, cmap="gray", vmin=0, vmax=1)
    mask.set_title("true mask")
    probability.imshow(answers.jax, cmap="gray", vmin=0, vmax=1)
    probability.set_title("JAX's probabilities")
    probability.set_xlabel(f"from 0 (black) to 1;\nIoU of the cells {answers.iou:.3f}")
    unit = 10.0 ** np.floor(np.log10(max(answers.rounding, 1e-30)))
    shown = difference.imshow(answers.difference / unit, cmap="viridis", vmin=0)
    difference.set_title(f"|JAX - PyTorch| in {unit:.0e}")
    difference.set_xlabel(f"at most {answers.apart:.1e};\ntorch's own rounding {answers.rounding:.1e}")
    figure.colorbar(shown, ax=difference, shrink=0.9, aspect=25, location="bottom")
    for panel in (image, mask, probability, difference):
        panel.set_xticks([])
        panel.set_yticks([])
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _draw_losses(panel: Axes, run: Path) -> None:
    settings, entries = read_run_config(run), read_history(run / HISTORY)
    x, y = np.array([(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]).T
    pieces = pieces_of(settings)
    draw_pieces(panel, x, y, pieces, alpha=0.3, linewidth=0.8, linestyle="-")
    draw_pieces(panel, x, smooth(y), pieces, linewidth=1.8)
    for backend in dict.fromkeys(backend for _, _, backend in settings.pieces):
        panel.plot([], [], **LOOKS[backend], linewidth=1.8, label=f"trained in {TITLES[backend]}")
    mark_switches(panel, settings)
    panel.set_title("loss")
    panel.set_xlabel("step")
    panel.set_ylim(bottom=0)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(loc="upper right", edgecolor="none")

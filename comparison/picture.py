"""One picture in which a person sees that both twins answer alike."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from unet_core.files import atomic


@dataclass(frozen=True)
class Answers:
    """What both twins make of one image, and what rounding alone does to it."""

    image: Float[np.ndarray, "h w c"]
    """From 0 to 1; one or three channels."""
    torch: Float[np.ndarray, "h w"]
    """Probabilities."""
    jax: Float[np.ndarray, "h w"]
    """Probabilities."""
    rounding: float
    """torch's own float32 error: the largest difference from its float64 probabilities."""

    @property
    def difference(self) -> Float[np.ndarray, "h w"]:
        """How far the two answers are apart, absolute."""
        return np.abs(self.torch.astype(np.float64) - self.jax.astype(np.float64))


def draw(answers: Answers, path: Path) -> None:
    """Write a PNG: the image, torch's answer, JAX's answer, and their difference with its scale.

    Raises:
        CheckpointError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 4)
    panels[0].imshow(answers.image, cmap="gray", vmin=0, vmax=1)
    panels[0].set_title("input")
    for panel, answer, name in ((panels[1], answers.torch, "PyTorch"), (panels[2], answers.jax, "JAX")):
        shown = panel.imshow(answer, cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}: probability")
    figure.colorbar(shown, ax=panels[1:3], shrink=0.8, location="bottom", label="probability")
    unit = 10.0 ** np.floor(np.log10(max(answers.rounding, 1e-30)))
    difference = panels[3].imshow(answers.difference / unit, cmap="viridis", vmin=0)
    panels[3].set_title("absolute difference")
    figure.colorbar(difference, ax=panels[3], shrink=0.8, location="bottom", label=f"in units of {unit:.0e}")
    panels[3].set_xlabel(f"largest {answers.difference.max():.1e}\ntorch's own rounding error {answers.rounding:.1e}")
    for panel in panels:
        panel.set_xticks([])
        panel.set_yticks([])
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format="png")

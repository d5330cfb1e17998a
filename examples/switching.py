"""A training that changes its framework twice, over two that do not: `python -m examples.switching --out example`.

One recipe, one seed, three runs: a in PyTorch, b in JAX, and c a third of the steps each in PyTorch, in JAX and in
PyTorch again. Every move is proven, the losses are drawn over each other, and the distances between the runs told: what
a move adds is within what rounding alone makes of a and b.
"""

import itertools
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from conversion.files import convert
from conversion.proof.certificate import certificate_path
from conversion.runs import read_run
from conversion.training import train
from examples.stories import run_story
from unet_cli.messages import printed
from unet_cli.tables import progress_bar
from unet_compare.curves import LOOKS, TITLES, Look, draw_pieces, mark_switches, pieces_of, smooth
from unet_core import ConfigError
from unet_core.data.opening import SYNTHETIC
from unet_core.errors import RunError
from unet_core.files import atomic
from unet_core.training.run import Backend, RunConfig
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Optimizer
from unet_core.training.state import parameter_shapes
from unet_core.training.train_config import Precision, TrainConfig

FEATURES = (16, 32, 64, 128)
STEPS = 300
PAIRS = (("c", "a"), ("c", "b"), ("a", "b"))
"""Which runs are compared."""


@dataclass(frozen=True)
class Trained:
    """A run at its end."""

    settings: RunConfig
    losses: Float[np.ndarray, " steps"]
    """Of every step."""
    parameters: Float[np.ndarray, " n"]
    """All of them in a row."""


@dataclass(frozen=True)
class Switching:
    """Train in PyTorch, in JAX, and in both by turns; prove every move, and show how far apart the three are."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("example")
    """The folder for the runs and the picture; what an earlier example left in it is replaced."""
    image: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """The picture, a PNG, which is replaced; left out: switch.png in DIR."""
    features: tuple[int, ...] = FEATURES
    """Channels of each level."""
    steps: int = STEPS
    """Training steps, a third of them in each piece."""
    precision: Precision = "float32"
    """What the network computes in; in float64 rounding is 5e8 times smaller."""

    @property
    def recipe(self) -> TrainConfig:
        """How all three train: moments, moving average and step all matter to how it goes on."""
        return TrainConfig(
            features=self.features,
            steps=self.steps,
            crop=96,
            precision=self.precision,
            ema=0.95,
            validate_every=self.steps // 3,
            save_every=self.steps,
            keep=1,
            optimizer=Optimizer("adam", rate=2e-3, clip=1.0),
            schedule=Schedule("cosine", warmup=self.steps // 15),
        )

    def run(self) -> None:
        """Do it all; prints as it goes.

        Raises:
            UNetError: too few steps, or what training and moving raise.
        """
        if self.steps < 3:
            raise ConfigError(f"--steps {self.steps}: give 3 or more, for a training in three pieces")
        a, b, *c = (self.out / name for name in ("a_torch", "b_jax", "c_1_torch", "c_2_jax", "c_3_torch"))
        for path in (a, b, *c):
            shutil.rmtree(path, ignore_errors=True)
            certificate_path(path).unlink(missing_ok=True)
        self.out.mkdir(parents=True, exist_ok=True)
        first, second = self.steps // 3, 2 * self.steps // 3
        levels = "-".join(map(str, self.features))
        print(f"UNet {levels}, {self.steps} steps: a in PyTorch, b in JAX, c in both by turns\n")

        self._train("a", a, "torch", 0, self.steps)
        self._train("b", b, "jax", 0, self.steps)
        self._train("c", c[0], "torch", 0, first)
        self._move(c[0], c[1], "jax")
        self._train("c", c[1], "jax", first, second)
        self._move(c[1], c[2], "torch")
        self._train("c", c[2], "torch", second, self.steps)

        runs = {name: trained(path) for name, path in (("a", a), ("b", b), ("c", c[2]))}
        print_distances(runs)
        image = self.image or self.out / "switch.png"
        draw(runs, image)
        print(f"The losses and their distances are drawn in {image}.")

    def _train(self, name: str, path: Path, backend: Backend, start: int, end: int) -> None:
        begun = time.monotonic()
        with progress_bar() as progress:
            done = train(
                path,
                backend=backend,
                data=SYNTHETIC,
                recipe=self.recipe,
                resume=start > 0,
                until=end,
                progress=progress,
            )
        if done.stopped_by is not None:
            raise RunError(f"{path}: was stopped after step {done.step}")
        loss = trained(path).losses[-1]
        print(
            f"{name}  {TITLES[backend]}, steps {start + 1} to {end}: loss {loss:.4f}, best mean IoU {done.best:.3f} "
            f"({time.monotonic() - begun:.0f} s)"
        )

    def _move(self, src: Path, dst: Path, to: Backend) -> None:
        begun = time.monotonic()
        print(f"\n$ unet convert {src} {dst} --to {to}")
        with printed(), progress_bar() as progress:
            proof = convert(src, dst, to=to, progress=progress).proof
        if proof is not None:
            print(f"{proof.identical} of {proof.tensors} arrays are the same in every bit")
            print(f"{proof.verdict} ({time.monotonic() - begun:.0f} s)\n")


def trained(path: Path) -> Trained:
    """Read the run in the folder `path`, as it was left.

    Raises:
        RunError: there is no run, or it is damaged.
    """
    run = read_run(path)
    tensors = run.state.network.tensors
    parameters = [tensors[key].ravel().astype(np.float64) for key in parameter_shapes(run.state.network.config)]
    losses = np.array([entry["loss"] for entry in run.entries if "loss" in entry])
    return Trained(run.settings, losses, np.concatenate(parameters))


def print_distances(runs: Mapping[str, Trained]) -> None:
    """A table: how far the losses of two runs are apart at most, in every third of the steps; and the parameters."""
    ends = [0, *(step for step, _ in runs["c"].settings.switches), len(runs["c"].losses)]
    parts = [slice(start, end) for start, end in itertools.pairwise(ends)]
    headings = [f"{part.start + 1} to {part.stop}" for part in parts]
    print("\n       loss: largest difference in the steps      parameters: norm of the")
    print("     " + "".join(f"{heading:>13}" for heading in headings) + "      difference / norm")
    for one, other in PAIRS:
        a, b = runs[one], runs[other]
        losses = "".join(f"{np.abs(a.losses[part] - b.losses[part]).max():13.1e}" for part in parts)
        apart = np.linalg.norm(a.parameters - b.parameters) / np.linalg.norm(b.parameters)
        print(f"{one} - {other}{losses}{apart:23.1e}")
    print()


def draw(runs: Mapping[str, Trained], path: Path) -> None:
    """Write a PNG: the losses of all three runs over each other, and below them how far they are apart.

    Raises:
        CheckpointError: the file cannot be written.
    """
    figure = Figure(figsize=(13, 6), layout="constrained")
    FigureCanvasAgg(figure)
    losses, apart = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_losses(losses, runs)
    _draw_distances(apart, runs)
    mark_switches(losses, runs["c"].settings)
    mark_switches(apart, runs["c"].settings, labels=False)
    for panel in (losses, apart):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_xlim(0, len(runs["c"].losses))
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _draw_losses(panel: Axes, runs: Mapping[str, Trained]) -> None:
    settings, steps = runs["c"].settings, np.arange(1, len(runs["c"].losses) + 1)
    for name, width, grey in (("a", 7.0, "0.80"), ("b", 3.5, "0.60")):
        label = f"{name}: {TITLES[runs[name].settings.backend]} throughout"
        panel.plot(steps, runs[name].losses, color=grey, linewidth=width, solid_joinstyle="round", label=label)
    draw_pieces(panel, steps, runs["c"].losses, pieces_of(settings), linewidth=1.3)
    for backend in ("torch", "jax"):
        panel.plot([], [], **LOOKS[backend], linewidth=1.3, label=f"c, in {TITLES[backend]}")
    panel.set_ylabel("loss of every step")
    panel.set_ylim(bottom=0)
    panel.legend(frameon=False)


def _draw_distances(panel: Axes, runs: Mapping[str, Trained]) -> None:
    steps = np.arange(1, len(runs["c"].losses) + 1)
    differences = {pair: np.abs(runs[pair[0]].losses - runs[pair[1]].losses) for pair in PAIRS}
    every = np.concatenate(list(differences.values()))
    lowest = int(np.floor(np.log10(every[every > 0].min(initial=1.0)))) - 2
    looks: tuple[Look, ...] = (
        {"color": "#009E73", "linestyle": "-"},
        {"color": "#CC79A7", "linestyle": "--"},
        {"color": "0.3", "linestyle": ":"},
    )
    for ((one, other), found), look in zip(differences.items(), looks, strict=True):
        shown = np.maximum(smooth(found), 10.0**lowest)  # a logarithm has no zero
        panel.plot(steps, shown, label=f"|{one} - {other}|", linewidth=1.6, **look)
    decades = range(lowest, 1, 2)
    panel.set_yscale("log")
    panel.set_yticks([10.0**n for n in decades], ["0", *(f"$10^{{{n}}}$" for n in decades[1:])], minor=False)
    panel.minorticks_off()
    panel.set_ylim(10.0 ** (lowest - 0.3), max(1.0, every.max()))
    panel.set_ylabel("difference of the losses,\nrunning mean")
    panel.set_xlabel("step")
    panel.legend(frameon=False, ncols=3)


if __name__ == "__main__":
    sys.exit(run_story(Switching, "example", "examples.switching"))

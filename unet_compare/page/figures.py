"""What the images of a comparison's page have in common: colours, logarithmic axes, and how they are kept."""

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from unet_compare.curves import LOOKS, TITLES, Look

INK, FAINT, SHADE, ALARM = "#1f2328", "#57606a", "#eef1f4", "#b3261e"
_FONT = "DejaVu Sans"  # wide: what is laid out with it has room in any other


@dataclass(frozen=True)
class Drawing:
    """An image for a page."""

    title: str
    source: str
    """A data: URL."""
    alt: str
    """What it shows, for those who do not see it."""
    width: int
    """In pixels of the page, as `height`."""
    height: int


def number(value: float) -> str:
    """Two digits, or what the number is instead."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.1e}" if value else "0"


def url(kind: str, content: bytes) -> str:
    """A data: URL of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def looks_of(a: str, b: str) -> tuple[Look, Look]:
    """Colour, line and marker of A and of B: each framework has its own; a second network in the same one is green."""
    of = dict[str, Look](LOOKS.items())
    second: Look = {"color": "#009E73", "linestyle": "-."} if a == b else of[b]
    return {**of[a], "marker": "o"}, {**second, "marker": "s", "markerfacecolor": "white"}


def framework_of(name: str) -> str:
    """For people."""
    return dict[str, str](TITLES.items()).get(name, name)


class Scale:
    """A logarithmic axis with a place for zeros at its low end, and one for NaN and infinity at its high end.

    Args:
        values: all that are to be placed.
    """

    def __init__(self, values: Sequence[float]) -> None:
        powers = [math.log10(value) for value in values if 0 < value < math.inf]
        low, high = min(powers, default=-1.0), max(powers, default=0.0)
        wider = max(0.6 - (high - low), 0) / 2
        self.low, self.high = low - wider, high + wider
        self.gap = 0.2 * (self.high - self.low)
        self.zeros = any(value == 0 for value in values)
        self.gaps = any(not math.isfinite(value) for value in values)

    def place(self, values: Sequence[float], *, ends: bool = True) -> Float[np.ndarray, " n"]:
        """Where they are, in powers of ten; without `ends`, what belongs there is nowhere."""
        found = np.asarray(values, np.float64)
        powers = np.full(found.shape, self.low - self.gap if ends else np.nan)
        np.log10(found, out=powers, where=np.isfinite(found) & (found > 0))
        return np.where(np.isfinite(found), powers, self.high + self.gap if ends else np.nan)

    def apply(self, axis: Axis, *, most: int) -> None:
        """Set limits and ticks, of which there are `most` beside the ends."""
        margin = 0.07 * (self.high - self.low)
        ends = self.low - margin - self.zeros * self.gap, self.high + margin + self.gaps * self.gap
        ticks = self._ticks(most - self.gaps - self.zeros)
        if self.zeros:
            ticks[self.low - self.gap] = "0"
        if self.gaps:
            ticks[self.high + self.gap] = "NaN/inf"
        axis.set_ticks(list(ticks), list(ticks.values()))
        axis.set_view_interval(*ends, ignore=True)

    def _ticks(self, most: int) -> dict[float, str]:
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        inside: dict[float, str] = {}
        for steps in ((1, 2, 4, 7), (1, 2, 5), (1,)):
            at = {power + math.log10(step): _tick(step, power) for power in powers for step in steps}
            inside = {place: label for place, label in at.items() if self.low <= place <= self.high}
            if len(inside) <= most:
                return inside
        places = list(inside)[:: math.ceil(len(inside) / most)]
        return {place: inside[place] for place in places}


def _tick(step: int, power: int) -> str:
    """A number as people write it: plain, where it is neither large nor small."""
    return f"{step * 10.0**power:g}" if -2 <= power <= 2 else f"{step}e{power:+03d}"


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[[str, str], Drawing]]]:
    """A figure of so many inches, and what makes a `Drawing` of it; whatever matplotlib is set to elsewhere."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = {
            "svg.fonttype": "none",
            "svg.hashsalt": "unet",
            "text.parse_math": False,
            "font.family": [_FONT],
            "font.size": 7.5,
            "axes.linewidth": 0.6,
            "axes.edgecolor": FAINT,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": INK,
            "ytick.color": INK,
            "text.color": INK,
            "axes.labelcolor": INK,
            "lines.linewidth": 1.1,
            "lines.markersize": 2.6,
            "legend.frameon": False,
            "legend.handlelength": 2.4,
            "legend.fontsize": 7,
        }
        matplotlib.rcParams.update(settings)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)

        def finish(title: str, alt: str) -> Drawing:
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
            svg = file.getvalue()
            svg = svg[svg.index("<svg") :].replace(f"'{_FONT}'", "system-ui, sans-serif")
            return Drawing(title, url("svg+xml", svg.encode()), alt, round(96 * width), round(96 * height))

        yield figure, finish

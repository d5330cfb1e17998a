"""The charts of a comparison's page: images that need nothing beside themselves, and words for what each one shows."""

import base64
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unet_compare.curves import LOOKS, TITLES, Look
from unet_compare.findings import Curve, Row, Table, Trajectories
from unet_core.errors import shown

INK, FAINT, SHADE, ALARM = "#1f2328", "#57606a", "#eef1f4", "#b3261e"
_FONT = "DejaVu Sans"  # wide: what is laid out with it has room in any other
_PITCH = 0.142  # inches from one layer to the next
_TALLEST, _MOST_NAMES = 20, 120
_NAMED: Look = {"ha": "right", "va": "center", "fontsize": 7.5}
_FIRST: Look = {"fontweight": "bold", "color": ALARM}


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


def depth(table: Table, quantity: str, frameworks: tuple[str, str]) -> Drawing:
    """The errors of one quantity in one pass, layer below layer; float64 on the left, float32 on the right."""
    rows = [row for row in table.rows if row.quantity == quantity]
    over = next((place for place, row in enumerate(rows) if not row.ok), None)
    title = f"{quantity[:1].upper()}{quantity[1:]}, {table.mode}"
    with _figure(4, 0.75 + min(_PITCH * max(len(rows), 4), _TALLEST)) as (figure, finish):
        wide, narrow = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.35))
        look_a, look_b = looks_of(*frameworks)
        look_wide: Look = {"color": INK, "linestyle": ":", "marker": "^"}
        a, b = (f"{name}, {framework_of(one)}" for name, one in zip("AB", frameworks, strict=True))
        in_wide = [("B in float64", [row.wide for row in rows], look_wide)]
        in_narrow = [(a, [row.own for row in rows], look_a), (b, [row.other for row in rows], look_b)]
        _errors(wide, in_wide, [row.wide_budget for row in rows])
        _errors(narrow, in_narrow, [row.budget for row in rows])
        for panel, name in ((wide, "float64"), (narrow, "float32")):
            panel.set_xlabel(f"relative error, {name}")
            _shade_blocks(panel, rows)
            if over is not None:
                panel.axhspan(over - 0.5, over + 0.5, facecolor="none", edgecolor=ALARM, linewidth=1.2, zorder=4)
        wide.set_yticks([])
        wide.set_ylim(len(rows) - 0.4, -0.6)
        for place in {*range(0, len(rows), math.ceil(len(rows) / _MOST_NAMES)), *([] if over is None else [over])}:
            text, look = (f"> {_name(rows[place])}", _FIRST) if place == over else (_name(rows[place]), {})
            wide.text(-0.04, place, text, transform=wide.get_yaxis_transform(), **_NAMED, **look)
        lines = {line.get_label(): line for panel in (wide, narrow) for line in panel.get_lines()}
        labels = ["B in float64", a, b, "budget"]
        figure.legend([lines[label] for label in labels], labels, loc="outside upper left", ncols=4, columnspacing=1)
        return finish(title, f"{title}. {_told(rows, over)}")


def curves(found: Trajectories, frameworks: tuple[str, str]) -> tuple[Drawing, ...]:
    """Loss, gradient norm, distances from A, and validation Dice, against the steps; what no run has is left out."""
    panels: tuple[tuple[str, str, Callable[[Curve], Sequence[float]], bool], ...] = (
        ("Training loss", "loss", lambda one: one.loss, False),
        ("Gradient norm, before clipping", "norm", lambda one: one.norm, True),
        ("Distance of the weights from A's", "relative distance", lambda one: one.weights, True),
        ("Distance of BatchNorm's statistics from A's", "relative distance", lambda one: one.statistics, True),
        ("Dice of the validation pictures", "mean Dice", lambda one: [dice for _, dice in one.validation], False),
    )
    drawn = []
    for title, what, of, logarithmic in panels:
        shown_ones = [one for one in found.curves if of(one) and not ("distance" in what and one.role == "A")]
        if shown_ones:
            drawn.append(_curve(found, frameworks, title, what, of, shown_ones, logarithmic=logarithmic))
    return tuple(drawn)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[[str, str], Drawing]]]:
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


def _errors(panel: Axes, series: Sequence[tuple[str, Sequence[float], Look]], budgets: Sequence[float]) -> None:
    """Named errors and their budgets, layer below layer; a budget that judges nothing is not drawn."""
    places = np.arange(len(budgets))
    known = [budget if math.isfinite(budget) else math.nan for budget in budgets]
    scale = Scale([*(value for _, values, _ in series for value in values), *(one for one in known if one > 0)])
    for name, values, look in series:
        at = scale.place(values)
        panel.plot(scale.place(values, ends=False), places, **{**look, "marker": ""}, zorder=3)
        panel.plot(at, places, **{**look, "linestyle": ""}, clip_on=False, zorder=3)
        panel.plot([], [], **look, label=name)
        for value, x, y in zip(values, at, places, strict=True):
            if not math.isfinite(value):
                panel.plot([x], [y], marker="X", color=look["color"], markersize=5, clip_on=False, zorder=5)
                beside: Look = {"xytext": (-5, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
                panel.annotate(number(value), (x, y), fontsize=6, zorder=5, **beside)
    edges = np.repeat(np.arange(len(known) + 1), 2)[1:-1] - 0.5
    panel.plot(np.repeat(scale.place(known, ends=False), 2), edges, color=INK, linewidth=0.7, label="budget", zorder=2)
    scale.apply(panel.xaxis, most=3 if len(series) == 1 else 4)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", color="#d0d7de", linewidth=0.5)
    panel.set_axisbelow(True)


def _curve(
    found: Trajectories,
    frameworks: tuple[str, str],
    title: str,
    what: str,
    of: Callable[[Curve], Sequence[float]],
    runs: Sequence[Curve],
    *,
    logarithmic: bool,
) -> Drawing:
    """One panel against the steps: the band, its runs, and A and B above them."""
    dots = what == "mean Dice"
    steps = {
        one: np.array([step for step, _ in one.validation]) if dots else np.arange(1, len(of(one)) + 1) for one in runs
    }
    band = [one for one in runs if one.role == "band"]
    limit = found.weights_limit if "weights" in title else found.statistics_limit if "statistics" in title else ()
    scale = Scale([value for values in (limit, *map(of, runs)) for value in values if math.isfinite(value)])

    def place(values: Sequence[float]) -> Float[np.ndarray, " n"]:
        return np.where(np.isfinite(values), scale.place(values) if logarithmic else values, np.nan)

    looks = dict(zip("AB", looks_of(*frameworks), strict=True))
    with _figure(4, 2.5) as (figure, finish):
        panel = figure.subplots()
        for one in band:
            panel.plot(steps[one], place(of(one)), color="#8c959f", linewidth=0.6, zorder=2)
        if band:
            common = min(len(of(one)) for one in band)
            lines = np.stack([place(of(one))[:common] for one in band])
            low, high = np.fmin.reduce(lines), np.fmax.reduce(lines)
            name = f"band, {len(band)} runs"
            panel.fill_between(steps[band[0]][:common], low, high, color="#d0d7de", linewidth=0, label=name, zorder=1)
        for one in (one for one in runs if one.role != "band"):
            every = max(len(of(one)) // 8, 1)
            start = 0 if one.role == "A" else every // 2
            look = {**looks[one.role], "markevery": (start, every), "markersize": 4 if dots else 3}
            label = f"{one.role}, {framework_of(one.framework)}"
            panel.plot(steps[one], place(of(one)), **look, label=label, zorder=4 if one.role == "B" else 3)
        if limit:
            places = np.arange(1, len(limit) + 1)
            panel.plot(places, place(limit), color=INK, linewidth=0.7, label="limit for B", zorder=2)
        if logarithmic:
            scale.apply(panel.yaxis, most=6)
        _mark_gaps(panel, [(one.role, steps[one], of(one)) for one in runs])
        left = found.left if "weights" in title else None
        if left is not None:
            label = f"outside from step {left}"
            panel.axvline(left, color=ALARM, linewidth=1, linestyle=(0, (1, 1.5)), label=label)
        panel.set_xlim(0, max(int(at.max()) for at in steps.values()) * 1.03)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.set_xlabel("step")
        panel.set_ylabel(what)
        panel.grid(color="#d0d7de", linewidth=0.5)
        panel.set_axisbelow(True)
        columns = 4 if left is None else 2  # what is wider than the panel would squeeze it
        panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, columnspacing=1, borderaxespad=0.1)
        told = "; ".join(_told_curve(one.role, of(one)) for one in runs if one.role != "band")
        last = [of(one)[-1] for one in band]
        more = f"; the band of {len(band)} runs ends between {min(last):.3g} and {max(last):.3g}" if band else ""
        return finish(title, f"{title}: {told}{more}.")


def _told_curve(role: str, values: Sequence[float]) -> str:
    return f"{role} from {values[0]:.3g} to {values[-1]:.3g}"


def _mark_gaps(panel: Axes, runs: Sequence[tuple[str, Shaped[np.ndarray, " n"], Sequence[float]]]) -> None:
    """Words at the top, with a mark, for each run whose values stop being numbers."""
    height = 0.98
    for role, steps, values in runs:
        gap = next((index for index, value in enumerate(values) if not math.isfinite(value)), None)
        if gap is not None:
            words = f"{role}: {number(values[gap])} from step {steps[gap]}"
            panel.axvline(steps[gap], ymin=height - 0.05, ymax=height, color=ALARM, linewidth=2)
            side = "right" if gap > len(values) / 2 else "left"
            place: Look = {"xycoords": ("data", "axes fraction"), "ha": side, "va": "top", "color": ALARM}
            panel.annotate(f" {words} ", (steps[gap], height), **place)
            height -= 0.08


def _shade_blocks(panel: Axes, rows: Sequence[Row]) -> None:
    """Every other block of the network on grey."""
    for number_, (_, group) in enumerate(groupby(range(len(rows)), lambda index: rows[index].layer.partition(".")[0])):
        places = list(group)
        if number_ % 2:
            panel.axhspan(places[0] - 0.5, places[-1] + 0.5, color=SHADE, linewidth=0, zorder=0)


def _name(row: Row) -> str:
    """A layer's name in signs that every font has."""
    return shown(row.layer[:40]).encode("ascii", "backslashreplace").decode()


def _told(rows: Sequence[Row], over: int | None) -> str:
    """The largest errors in words."""
    told = []
    for words, of in (
        ("B's largest float64 error", lambda row: row.wide),
        ("in float32 A's largest error", lambda row: row.own),
        ("B's", lambda row: row.other),
    ):
        worst = max(rows, key=lambda row: of(row) if math.isfinite(of(row)) else math.inf)
        told.append(f"{words} is {number(of(worst))} at {shown(worst.layer)}")
    judged = "all within their budgets" if over is None else f"the first over its budget is {shown(rows[over].layer)}"
    return f"{', '.join(told)}; {judged}."

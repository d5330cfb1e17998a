"""The figures of a study, each for the page and, as files, for papers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unet_compare.curves import COLOURS
from unet_compare.page.figures import ALARM, FAINT, SHADE, Drawing, new_figure
from unet_compare.study.collected import Collected, Curve
from unet_compare.study.findings import Contrast, Outcome, Parting
from unet_compare.study.plan import TITLES
from unet_compare.trajectories.verdict import FACTOR

_WIDTH = 5.2
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Chart:
    """A figure, and the name of its files."""

    name: str
    drawing: Drawing


def charts(found: Outcome, arms: Sequence[Collected], folder: Path) -> tuple[Chart, ...]:
    """All figures; of each a PDF and an SVG are written into the folder, which exists."""
    return tuple(_made(sketch, folder) for sketch in _sketches(found, arms))


@dataclass(frozen=True)
class _Sketch:
    """A figure before it is drawn."""

    name: str
    title: str
    told: str
    """What it shows, for those who do not see it."""
    height: float
    draw: Callable[[Axes], None]


def _made(sketch: _Sketch, folder: Path) -> Chart:
    with new_figure(_WIDTH, sketch.height) as (figure, finish):
        sketch.draw(figure.subplots())
        _save(figure, folder / sketch.name)
        return Chart(sketch.name, finish(sketch.title, f"{sketch.title}: {sketch.told}."))


def _sketches(found: Outcome, arms: Sequence[Collected]) -> Iterator[_Sketch]:
    """Curves of one point are none."""
    metric, first = TITLES[found.study.metric], found.arms[0].name
    contrasts = {arm.name: one for arm in found.arms if (one := arm.contrast(found.study.metric)) is not None}
    if contrasts:
        told = "; ".join(f"{name} {one.difference:+.4f}, {one.verdict}" for name, one in contrasts.items())
        height = 1.0 + 0.27 * len(contrasts)
        title = f"Difference in {metric} from {first}"
        yield _Sketch("differences", title, told, height, partial(_forest, found=found, contrasts=contrasts))
    judged = [arm for arm in arms if arm.seeds]
    if judged:
        told = "; ".join(f"{arm.name} {arm.scores[found.study.metric].mean:.4f}" for arm in found.arms if arm.scores)
        title = f"Runs in {metric}, those of a seed joined"
        yield _Sketch("seeds", title, told, 2.4, partial(_seeds, found=found, arms=judged))
    plain = [arm for arm in judged if arm.arm.control is None and len(arm.validations["loss"].steps) > 1]
    for name, title in (("loss", "Validation loss"), ("mean_iou", "Validation mean IoU")) if plain else ():
        told = "; ".join(f"{arm.arm.name} ends at {arm.validations[name].values[:, -1].mean():.4f}" for arm in plain)
        title += ", mean and range of the seeds"
        yield _Sketch(f"learning_{name}", title, told, 2.6, partial(_learning, arms=plain, name=name))
    for what in ("training loss", "validation loss"):
        parts = {
            arm.name: part for arm in found.arms for part in arm.partings if part.what == what and len(part.steps) > 1
        }
        if parts:
            told = "; ".join(f"{name} {_left(part)}" for name, part in parts.items())
            title = f"Distance from {first} in {what}"
            yield _Sketch(f"parting_{what.replace(' ', '_')}", title, told, 3.0, partial(_parting, parts=parts))
    if found.variance:
        parts_of = found.variance[found.study.metric]
        told = f"of {metric}, " + ", ".join(f"{name} {part:.0%}" for name, part in parts_of.items())
        yield _Sketch("variance", "Parts of the variance", told, 2.1, partial(_variance, found=found))


def _save(figure: Figure, path: Path) -> None:
    for kind in ("pdf", "svg"):
        metadata = {"CreationDate": None} if kind == "pdf" else {"Date": None}
        figure.savefig(path.with_suffix(f".{kind}"), metadata=metadata)


def _look(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": _LINES[number // len(COLOURS) % len(_LINES)]}


def _forest(panel: Axes, found: Outcome, contrasts: Mapping[str, Contrast]) -> None:
    """Differences with intervals over the margin of equivalence."""
    marks = {"equivalent": "o", "different": "X", "undecided": "D"}
    margin = next(iter(contrasts.values())).margin
    panel.axvspan(-margin, margin, color=SHADE, zorder=0, label=f"margin, {margin:.3g} either way")
    panel.axvline(0, color=FAINT, linewidth=0.6)
    for row, one in enumerate(contrasts.values()):
        color = ALARM if one.verdict == "different" else COLOURS[0]
        panel.plot([one.interval.low, one.interval.high], [row, row], color=color)
        panel.plot(one.difference, row, marks[one.verdict], color=color, markersize=4)
    panel.set_yticks(range(len(contrasts)), [f"{name}: {one.verdict}" for name, one in contrasts.items()])
    panel.set_ylim(len(contrasts) - 0.5, -0.5)
    panel.set_xlabel(f"difference in {TITLES[found.study.metric]}, with its {1 - found.study.level:.0%} interval")
    _legend(panel)


def _seeds(panel: Axes, found: Outcome, arms: Sequence[Collected]) -> None:
    metric = found.study.metric
    means = {
        arm.arm.name: dict(zip(arm.seeds, arm.of_pictures(metric, arm.seeds).mean(1), strict=True)) for arm in arms
    }
    for seed in found.study.seeds:
        row = [means[arm.arm.name].get(seed, math.nan) for arm in arms]
        panel.plot(range(len(arms)), row, color="#8c959f", linewidth=0.5, marker="o", markerfacecolor=COLOURS[0])
    panel.set_xticks(range(len(arms)), [arm.arm.name for arm in arms], rotation=30, ha="right")
    panel.set_ylabel(TITLES[metric])


def _learning(panel: Axes, arms: Sequence[Collected], name: str) -> None:
    for number, arm in enumerate(arms):
        curve: Curve = arm.validations[name]
        if not curve.values.size:
            continue
        look = _look(number)
        panel.fill_between(
            curve.steps, curve.values.min(0), curve.values.max(0), color=look["color"], alpha=0.12, linewidth=0
        )
        panel.plot(curve.steps, curve.values.mean(0), label=arm.arm.name, **look)
    panel.set_xlabel("step")
    panel.set_ylabel("loss" if name == "loss" else "mean IoU")
    _legend(panel)


def _parting(panel: Axes, parts: Mapping[str, Parting]) -> None:
    band = next(iter(parts.values()))
    floor = float(band.limit.min()) / 100
    panel.fill_between(band.steps, floor, band.limit, color=SHADE, linewidth=0, label=f"{FACTOR:g} times rounding")
    for number, (name, part) in enumerate(parts.items()):
        panel.plot(part.steps, np.maximum(part.apart, floor), label=name, **_look(number))
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
    panel.set_ylim(bottom=floor)
    panel.set_xlabel("step")
    panel.set_ylabel("difference, median over seeds")
    _legend(panel)


def _variance(panel: Axes, found: Outcome) -> None:
    names = list(dict.fromkeys(name for parts in found.variance.values() for name in parts))
    start = np.zeros(len(found.variance))
    for number, name in enumerate(names):
        widths = np.array([parts.get(name, 0.0) for parts in found.variance.values()])
        panel.barh(range(len(widths)), widths, left=start, color=COLOURS[number], label=name, height=0.6)
        start += widths
    panel.set_yticks(range(len(found.variance)), [TITLES[metric] for metric in found.variance])
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    _legend(panel)


def _legend(panel: Axes) -> None:
    """Above the panel, with room of its own."""
    panel.get_figure(root=True).legend(loc="outside upper left", ncols=3)  # type: ignore[union-attr]


def _left(part: Parting) -> str:
    return "stays within rounding" if part.left is None else f"leaves rounding at step {part.left}"

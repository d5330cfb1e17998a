"""The charts of trainings that ran side by side, and words for what each one shows."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from unet_compare.curves import Look
from unet_compare.findings import Curve, Trajectories
from unet_compare.page.figures import ALARM, INK, Drawing, Scale, framework_of, looks_of, new_figure, number


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
    with new_figure(4, 2.5) as (figure, finish):
        panel = figure.subplots()
        _draw_band(panel, [(steps[one], place(of(one))) for one in band])
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


def _draw_band(panel: Axes, band: Sequence[tuple[Shaped[np.ndarray, " n"], Float[np.ndarray, " n"]]]) -> None:
    """The runs of the band, and the area between the lowest and the highest."""
    for steps, places in band:
        panel.plot(steps, places, color="#8c959f", linewidth=0.6, zorder=2)
    if band:
        common = min(len(places) for _, places in band)
        lines = np.stack([places[:common] for _, places in band])
        low, high = np.fmin.reduce(lines), np.fmax.reduce(lines)
        name = f"band, {len(band)} runs"
        panel.fill_between(band[0][0][:common], low, high, color="#d0d7de", linewidth=0, label=name, zorder=1)


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

"""The charts of errors, layer below layer, and words for what each one shows."""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes

from unet_compare.curves import Look
from unet_compare.findings import Row, Table
from unet_compare.page.figures import ALARM, INK, SHADE, Drawing, Scale, framework_of, looks_of, new_figure, number
from unet_core.errors import shown

_PITCH = 0.142  # inches from one layer to the next
_TALLEST, _MOST_NAMES = 20, 120
_NAMED: Look = {"ha": "right", "va": "center", "fontsize": 7.5}
_FIRST: Look = {"fontweight": "bold", "color": ALARM}


def depth(table: Table, quantity: str, frameworks: tuple[str, str]) -> Drawing:
    """The errors of one quantity in one pass, layer below layer; float64 on the left, float32 on the right."""
    rows = [row for row in table.rows if row.quantity == quantity]
    over = next((place for place, row in enumerate(rows) if not row.ok), None)
    title = f"{quantity[:1].upper()}{quantity[1:]}, {table.mode}"
    with new_figure(4, 0.75 + min(_PITCH * max(len(rows), 4), _TALLEST)) as (figure, finish):
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

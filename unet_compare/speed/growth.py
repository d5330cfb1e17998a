"""How time and memory grow with the pixels and with the batch, in one picture."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from unet_compare.curves import LOOKS, TITLES, Look
from unet_compare.speed.plan import BATCH_OF_SIZES, BATCHES, SIZE_OF_BATCHES, SIZES, Framework, Kind
from unet_compare.speed.report import CaseReport
from unet_core.files import atomic

_KINDS: tuple[Kind, ...] = ("inference", "training")
_FAINT: Look = {"alpha": 0.3, "linewidth": 0.9, "markersize": 2.5}
Curve = Mapping[int, CaseReport]
"""Cases by height and width, or by batch."""


def draw(reports: Sequence[CaseReport], path: Path) -> None:
    """Write a PNG: time and memory of a call against pixels and batch, all of them logarithmic.

    Each framework's fastest candidate stands out; its other ones are faint.

    Raises:
        CheckpointError: the file cannot be written.
    """
    curves = {kind: (by_size(reports, kind), by_batch(reports, kind)) for kind in _KINDS}
    drawn = {kind: pair for kind, pair in curves.items() if any(pair)}
    figure = Figure(figsize=(13, 3.8 * max(len(drawn), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(max(len(drawn), 1), 1, squeeze=False)[:, 0]
    for whole, (kind, (sizes, batches)) in zip(rows, drawn.items(), strict=False):
        row = whole.subplots(1, 4)
        fastest = fastest_of([*sizes.values(), *batches.values()])
        _draw_pair(row[:2], sizes, fastest, f"{kind}, batch {BATCH_OF_SIZES[kind]}", "height and width, pixels")
        _draw_pair(row[2:], batches, fastest, f"{kind}, {SIZE_OF_BATCHES}x{SIZE_OF_BATCHES}", "batch")
        known = next(panel.get_legend_handles_labels() for panel in row if panel.lines)
        whole.legend(*known, loc="outside upper center", ncols=2, frameon=False)
    with atomic(path, force=True) as partial:
        figure.savefig(partial, dpi=110, format="png")


def by_size(reports: Sequence[CaseReport], kind: Kind) -> Curve:
    """The cases of the sizes, in order."""
    cases = {(kind, BATCH_OF_SIZES[kind], size, size): size for size in SIZES}
    found = {cases[report.case]: report for report in reports if report.case in cases}
    return dict(sorted(found.items()))


def by_batch(reports: Sequence[CaseReport], kind: Kind) -> Curve:
    """The cases of the batches, in order."""
    cases = {(kind, batch, SIZE_OF_BATCHES, SIZE_OF_BATCHES): batch for batch in BATCHES}
    found = {cases[report.case]: report for report in reports if report.case in cases}
    return dict(sorted(found.items()))


def fastest_of(reports: Sequence[CaseReport]) -> dict[Framework, str]:
    """Each framework's candidate with the smallest median ratio, over the cases."""
    ratios: dict[Framework, dict[str, list[float]]] = {}
    for report in reports:
        for one in report.candidates:
            ratios.setdefault(one.framework, {}).setdefault(one.name, []).append(one.ratio)
    return {
        framework: min(names, key=lambda name: (-len(names[name]), statistics.median(names[name])))
        for framework, names in ratios.items()
    }


def _draw_pair(panels: Sequence[Axes], curve: Curve, fastest: Mapping[Framework, str], title: str, x: str) -> None:
    time, memory = panels
    for name in dict.fromkeys(one.name for report in curve.values() for one in report.candidates):
        found = {at: one for at, report in curve.items() for one in report.candidates if one.name == name}
        framework = next(iter(found.values())).framework
        stands_out = name == fastest[framework]
        look: Look = {**LOOKS[framework], "marker": "o", "markersize": 4, **({} if stands_out else _FAINT)}
        label = f"{TITLES[framework]}: {name.partition(':')[2]}" if stands_out else None
        time.plot(list(found), [one.median for one in found.values()], label=label, **look)
        known = {at: one.call_bytes / 1e9 for at, one in found.items() if one.call_bytes}
        memory.plot(list(known), list(known.values()), **look)
    for panel, what in ((time, "time of a call, s"), (memory, "memory of a call, GB")):
        panel.set_title(title)
        panel.set_xlabel(x)
        panel.set_ylabel(what)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(list(curve), [str(at) for at in curve])
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_locator(NullLocator())
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)

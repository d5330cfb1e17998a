"""The page that `unet compare` writes: one HTML file that needs nothing beside itself, without a script."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_compare.findings import SCHEMA, Comparison, Divergence, Pass, Picture, Row, Table
from unet_compare.speed.report import Environment
from unet_compare.speed.table import scaled
from unet_core.errors import MissingFrameworkError, printable
from unet_core.installation import installing

try:
    import jinja2

    from unet_compare.page.depth_chart import depth
    from unet_compare.page.figures import Drawing, framework_of, looks_of, number
    from unet_compare.page.panels import SCALE, panels_of, top_of
    from unet_compare.page.training_charts import curves
except ModuleNotFoundError as error:
    advice = installing("report")
    raise MissingFrameworkError(f"the page needs {error.name}: {advice}", name=error.name) from error

PASSES: Mapping[Pass, str] = {
    "eval": "Forward pass, eval mode",
    "training": "Forward pass, training mode",
    "backward": "Backward pass",
    "update": "Update",
}
_MODES = {"cumulative": "errors as they travel", "isolated": "each layer alone"}


@dataclass(frozen=True)
class Line:
    """A section of the page, and what it finds, for the overview."""

    id: str
    title: str
    finding: str


@dataclass(frozen=True)
class Passage:
    """One pass through the network."""

    title: str
    finding: str
    drawings: tuple[Drawing, ...]
    tables: tuple[tuple[str, Table], ...]
    """With what each is called."""


@dataclass(frozen=True)
class Shown:
    """One picture with its panels."""

    name: str
    sentence: str
    panels: tuple[Drawing, ...]
    top: float
    """The high end of the difference's scale."""
    rounding: float | None
    """Where A's own rounding is on that scale, in percent; None: it is no number."""


def render(comparison: Comparison, command: str) -> str:
    """The page.

    Args:
        comparison: what was found.
        command: how to repeat it, as it is typed.

    Examples:
        >>> import unet_torch
        >>> from unet_compare.compare import Effort, compare
        >>> from unet_compare.page.page import render
        >>> found = compare(unet_torch.UNet(features=(4, 8)), size=(8, 8), effort=Effort(pictures=0, steps=0, rounds=0))
        >>> "</html>" in render(found, "unet compare model.pt")
        True
    """
    environment = templates()
    environment.filters |= {
        "number": number,
        "signed": signed,
        "allowed": allowed,
        "judged": judged,
        "scaled": scaled,
        "framework": framework_of,
    }
    frameworks = comparison.a.framework, comparison.b.framework
    divergence, trained, cost = comparison.divergence, comparison.trajectories, comparison.cost
    return environment.get_template("page.html.j2").render(
        found=comparison,
        command=command,
        schema=SCHEMA,
        looks=looks_of(*frameworks),
        gradient=SCALE,
        lines=tuple(_overview(comparison)),
        passages=tuple(_passages(divergence, frameworks)) if divergence else (),
        pictures=tuple(map(_shown, comparison.pictures)),
        curves=curves(trained, frameworks) if trained else (),
        options=_options(comparison),
        absent=_absent(comparison),
        device_notes=tuple(_device_notes(cost.environment)) if cost else (),
        versions={**comparison.a.versions, **comparison.b.versions, **(cost.environment.versions if cost else {})},
    )


def templates(*folders: Path) -> "jinja2.Environment":
    """What makes pages of the templates in some folders, and of those here."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def visible(value: Any) -> Any:
    """Text in which a control or direction character is seen and does nothing; other values as they are."""
    return printable(value) if type(value) is str else value  # what is marked as safe is the template's own


def signed(value: float) -> str:
    """A change."""
    return f"{value:+.1e}" if value else "0"


def allowed(budget: float) -> str:
    """A budget; one that is not finite judges nothing."""
    return number(budget) if math.isfinite(budget) else "none"


def judged(row: Row) -> str:
    """Whether a row is within its budgets, in words."""
    return "ok" if row.ok else "over in float32" if row.wide_ok else "over in float64"


def _overview(found: Comparison) -> Iterator[Line]:
    """The sections there are; what is not there has no line."""
    if found.divergence:
        if found.divergence.layer is not None:
            yield Line("parts", "Where they part", f"at {found.divergence.layer}, the {found.divergence.quantity}")
        rows = [row for table in found.divergence.tables for row in table.rows]
        over = sum(not row.ok for row in rows)
        text = f"{over:,} of {len(rows):,}" if over else f"none of {len(rows):,}"
        yield Line("layers", "Errors of the layers", f"{text} are over their budgets")
    if found.pictures:
        worst = max(found.pictures, key=lambda one: _size(_apart(one)))
        text = (
            f"at most {number(_apart(worst))} apart" if math.isfinite(_apart(worst)) else "some answers are no numbers"
        )
        yield Line("pictures", "Pictures", f"{text} ({worst.name})")
    if found.trajectories:
        yield Line("training", "Trained side by side", found.trajectories.verdict)
    if found.ladder:
        worst_rung = max(found.ladder.rungs, key=lambda one: one.flipped, default=None)
        text = "none was measured"
        if worst_rung is not None:
            text = f"none of {found.ladder.pixels:,} pixels changes its class"
            if worst_rung.flipped:
                most = f"at most {worst_rung.flipped:,} of {found.ladder.pixels:,} pixels change their class"
                text = f"{most} ({worst_rung.role} in {worst_rung.precision})"
        yield Line("precisions", "Precisions", text)
    if found.cost:
        ratios = [
            f"{one.name} takes {one.ratio:.2f} of {case.reference}'s time for {case.case}"
            for case in found.cost.cases
            for one in case.candidates
            if one.name != case.reference
        ]
        yield Line("cost", "Time and memory", f"{'; '.join(ratios) or 'no two ran side by side'}; indicative")


def _absent(found: Comparison) -> str:
    """The parts that the page does not have, as a list in words."""
    parts: Mapping[str, Any] = {
        "errors of the layers": found.divergence,
        "pictures": found.pictures,
        "trainings side by side": found.trajectories,
        "precisions": found.ladder,
        "time and memory": found.cost,
    }
    return ", ".join(name for name, part in parts.items() if not part)


def _passages(found: Divergence, frameworks: tuple[str, str]) -> Iterator[Passage]:
    for pass_ in dict.fromkeys(table.pass_ for table in found.tables):
        tables = [table for table in found.tables if table.pass_ == pass_ and table.rows]
        quantities = dict.fromkeys(row.quantity for table in tables for row in table.rows)
        drawings = tuple(
            depth(table, quantity, frameworks)
            for quantity in quantities
            for table in tables
            if any(row.quantity == quantity for row in table.rows)
        )
        if tables:
            named = tuple((f"{table.mode.capitalize()}: {_MODES[table.mode]}", table) for table in tables)
            yield Passage(PASSES[pass_], _finding(tables), drawings, named)


def _finding(tables: Sequence[Table]) -> str:
    """One sentence about a pass."""
    rows = [row for table in tables for row in table.rows]
    over = next((row for row in rows if not row.ok), None)
    if over is not None:
        name, error, budget = ("float32", over.other, over.budget)
        if not over.wide_ok:
            name, error, budget = ("float64", over.wide, over.wide_budget)
        count = sum(not row.ok for row in rows)
        return (
            f"{count} of {len(rows)} errors are over their budgets, the first at {over.layer} "
            f"({over.quantity}): {number(error)} in {name}, where {number(budget)} is allowed."
        )
    wide, narrow = (max(rows, key=lambda row: _size(getattr(row, name))) for name in ("wide", "other"))
    return (
        f"All {len(rows)} errors are within their budgets. B's largest is {number(wide.wide)} in float64, at "
        f"{wide.layer}, and {number(narrow.other)} in float32, at {narrow.layer}, where A's is {number(narrow.own)}."
    )


def _shown(picture: Picture) -> Shown:
    top, apart = top_of(picture), _apart(picture)
    mark = 100 * picture.rounding / top if math.isfinite(picture.rounding) else None
    return Shown(picture.name, _beside_rounding(apart, picture.rounding), panels_of(picture), top, mark)


def _beside_rounding(apart: float, rounding: float) -> str:
    """How a difference compares with A's own rounding."""
    own = f"A's own rounding ({number(rounding)}: its float32 probabilities against its float64 ones)"
    if not math.isfinite(apart):
        return f"Some of the differences are no numbers. Beside them: {own}."
    if not 0 < rounding < math.inf:
        return f"A and B are at most {number(apart)} apart, beside {own}."
    times = apart / rounding
    return f"A and B are at most {number(apart)} apart, {times:{',.0f' if times >= 10 else '.2f'}} times {own}."


def _apart(picture: Picture) -> float:
    return float(picture.difference.max())


def _size(value: float) -> float:
    """For finding the worst: what is no number is worse than any."""
    return value if math.isfinite(value) else math.inf


def _options(found: Comparison) -> tuple[tuple[str, Any, Any, bool], ...]:
    """Both configs side by side, and whether they differ."""
    none = "-"
    names = dict.fromkeys((*found.a.config, *found.b.config))
    both = ((name, found.a.config.get(name, none), found.b.config.get(name, none)) for name in names)
    return tuple((name, str(a), str(b), a != b) for name, a, b in both)


def _device_notes(environment: Environment) -> Iterator[str]:
    """Where the cost was measured, a sentence each."""
    machine, devices = environment.machine, environment.devices
    yield f"On {machine['cpu']}, {machine['cores']} cores."
    for name, device in devices.items():
        where = "the CPU" if device["platform"] == "cpu" else device["device"]
        yield f"{framework_of(name)} {environment.versions.get(name, '')} on {where}{', TF32' * bool(device['tf32'])}."
    if machine["load"] > machine["cores"] / 4:
        yield f"Others computed here, too (load {machine['load']:.1f}): they slow the frameworks down, not all alike."
    if len({device["platform"] for device in devices.values()}) > 1:
        yield "The frameworks ran on different devices: the ratios compare those, and not the programs."

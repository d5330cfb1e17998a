"""What the commands print for people."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from conversion.health import Health
from conversion.proof.certificate import certificate_path
from conversion.proof.checks import EVAL, FLOAT32_FACTOR, FLOAT64_BUDGETS, GRADIENTS, Check
from conversion.proof.confirmation import Confirmation
from conversion.proof.proof import NetworkSummary, Proof
from conversion.result import Conversion
from unet_compare.findings import Comparison
from unet_core.errors import counted, printable, shown, some
from unet_core.graph import Graph
from unet_core.prediction.evaluation import Evaluation
from unet_core.progress import Progress as Report

if TYPE_CHECKING:
    from unet_compare.study.findings import Outcome

_TRIALS = 6
"""Switches that are listed, at most."""


@contextmanager
def progress_bar() -> Iterator[Report]:
    """A bar on the terminal's error stream, gone when the job is done; nothing where that is no terminal."""
    columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
    console = Console(stderr=True)
    quiet = not console.is_terminal
    own = sys.stdout.isatty()  # a stdout that goes elsewhere is left alone
    with Progress(*columns, console=console, transient=True, disable=quiet, redirect_stdout=own) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda text, done: bar.update(task, description=escape(text), completed=done)


def print_evaluation(found: Evaluation, classes: Sequence[str], pictures: int) -> None:
    """The table of `unet eval`."""
    table = new_table()
    for heading in ("class", "IoU", "Dice", "precision", "recall", "pixels"):
        table.add_column(heading, justify="right")
    of = found.metrics
    columns = (of.iou, of.dice, of.precision, of.recall)
    for number, name in enumerate(classes):
        shown = ["-" if column[number] is None else f"{column[number]:.4f}" for column in columns]
        table.add_row(escape(name), *shown, f"{of.pixels[number]:,}")
    console = new_console()
    console.print(table)
    console.print(
        f"{counted(pictures, 'picture')}: mean IoU {of.mean_iou:.4f}, mean Dice {of.mean_dice:.4f}, "
        f"accuracy {of.accuracy:.4f}, loss {found.loss:.4f}",
        soft_wrap=True,
    )
    if found.pictures:
        print_scores(found)


def print_scores(found: Evaluation) -> None:
    """The table of single pictures."""
    table = new_table()
    for heading in ("picture", "mean IoU", "mean Dice", "loss", "calibration error", "boundary distance"):
        table.add_column(heading, justify="right")
    for one in found.pictures:
        values = (one.mean_iou, one.mean_dice, one.loss, one.calibration, one.boundary)
        table.add_row(escape(shown(one.name)), *(f"{value:.4f}" for value in values))
    new_console().print(table)


def print_study(found: "Outcome", page: Path) -> None:
    """The answer of `unet study`, the arms in a table, and where the report is."""
    table = new_table()
    for heading in ("arm", "mean", "difference", "interval", "verdict"):
        table.add_column(heading, justify="left" if heading in ("arm", "verdict") else "right", no_wrap=True)
    for arm in found.arms:
        of = arm.contrast(found.study.metric)
        figures = [f"{arm.scores[found.study.metric].mean:.4f}" if arm.scores else "-"]
        if of is not None:
            interval = f"{of.interval.low:+.4f} {of.interval.high:+.4f}"
            figures += [f"{of.difference:+.4f}", interval, of.verdict]
        table.add_row(escape(arm.name), *figures)
    console = new_console()
    console.print(table)
    console.print(escape(found.answer), soft_wrap=True)
    for arm in found.faults:
        console.print(f"{arm.name}: {escape(arm.told) or 'is not found'}", soft_wrap=True)
    console.print(f"the report is in {escape(str(page))}", soft_wrap=True)


def print_conversion(done: Conversion) -> None:
    """What `unet convert` wrote and proved."""
    if done.proof is not None:
        print_proof(done.proof)
    checkpoint, reading = done.checkpoint, done.checkpoint.reading
    console = new_console()
    if not checkpoint.config_stored:
        by_graph = isinstance(checkpoint.config, Graph)
        lines = [f"read as {checkpoint.config.title if by_graph else checkpoint.origin.dialect}: {reading.sure}"]
        if reading.key:
            others = f"; also there: {some(reading.others)} (choose with --key)" if reading.others else ""
            lines.append(f"from {shown(reading.key)}{others}")
        left = [name for name in reading.beside if not name.endswith("(kept)")] if done.state is None else done.left
        if left:
            lines.append(f"left behind: {some(left)}")
        if reading.assumed:
            lines.append(f"assumed: {', '.join(reading.assumed)}")
        if reading.overruled:
            lines.append(f"overruled: {', '.join(reading.overruled)}: as you say")
        for line in lines:
            console.print(escape(line), soft_wrap=True)
    proves = checkpoint.evidence.proves
    proven = "not verified" if done.proof is None else "verified" if proves else "alike in both frameworks"
    arrays = counted(len(checkpoint.tensors), "tensor")
    if done.state is not None:
        count = done.state.optimizer.step
        arrays = f"{'' if count is None else f'step {count}, '}{counted(len(done.state.arrays()), 'array')}"
    console.print(f"{escape(str(done.src))} -> {escape(str(done.dst))}: {arrays}, {proven}", soft_wrap=True)
    if done.certificate is not None:
        console.print(f"certificate: {escape(str(certificate_path(done.dst)))}", soft_wrap=True)
    console.print(f"known by {escape(str(checkpoint.evidence))}", soft_wrap=True)


def print_confirmation(found: Confirmation) -> None:
    """What `unet verify --certificate` found."""
    console, of = new_console(), found.certificate
    if found.proof is not None:
        print_proof(found.proof)
        if found.proof.inputs == of.inputs:
            console.print("on the very inputs of the certificate")
    lines = [f"{found.path}: by unet-twins {of.version}, {of.when}: {of.verdict}"]
    for letter, one, party in (("A", found.a, of.source), ("B", found.b, of.destination)):
        step = "" if party.step is None else f", step {party.step}"
        lines.append(f"{letter}: {one.path} ({party.kind}{step}): {one}")
    for line in lines:
        console.print(escape(printable(line)), soft_wrap=True)
    word = "CONFIRMED" if found.confirmed else "CHANGED"
    console.print(f"[bold]{word}[/bold]: {escape(printable(found.verdict))}", soft_wrap=True)


def print_proof(proof: Proof) -> None:
    """The table of `unet verify`."""
    console = new_console()
    _print_sides(console, proof.a, proof.b)
    if proof.tensors:
        console.print(f"{proof.identical} of {proof.tensors} tensors are the same in every bit")
    if proof.checks:
        console.print(_checks(proof))
        largest = FLOAT64_BUDGETS[EVAL], FLOAT64_BUDGETS[GRADIENTS]
        wide = f"float64 {largest[0]:.0e}, gradients {largest[1]:.0e}"
        console.print(f"budgets: {wide}; float32 ratio {FLOAT32_FACTOR} (in brackets: not judged)\n", soft_wrap=True)
    word = "DIFFERENT" if not proof.equal else "SAME" if proof.evidence.proves else "ALIKE"
    console.print(f"[bold]{word}[/bold]: {escape(proof.verdict)}", soft_wrap=True)
    if not proof.evidence.proves:
        console.print(f"known by {escape(str(proof.evidence))}", soft_wrap=True)


def print_comparison(found: Comparison, page: Path) -> None:
    """What `unet compare` found, in short, and where the rest is."""
    console = new_console()
    _print_sides(console, found.a, found.b)
    console.print(f"{found.identical} of {found.tensors} tensors are the same in every bit")
    trials = found.divergence.trials if found.divergence else ()
    if trials:
        table = new_table()
        table.add_column("what may be switched there")
        table.add_column("difference left", justify="right", no_wrap=True)
        for trial in trials[:_TRIALS]:
            table.add_row(escape(trial.switch), f"{trial.remaining:.1e}{'  vanishes' if trial.vanishes else ''}")
        console.print(table)
    for part in (found.trajectories.verdict if found.trajectories else "", *found.notes):
        if part:
            console.print(escape(part), soft_wrap=True)
    console.print(f"[bold]{'SAME' if found.equal else 'DIFFERENT'}[/bold]: {escape(found.verdict)}", soft_wrap=True)
    console.print(f"after {found.seconds:.0f} s; the report is {escape(printable(str(page)))}", soft_wrap=True)


def _print_sides(console: Console, a: NetworkSummary, b: NetworkSummary) -> None:
    for letter, side in (("A", a), ("B", b)):
        versions = ", ".join(f"{name} {version}" for name, version in side.versions.items())
        console.print(f"{letter}: {escape(shown(side.name))}  ({versions}, {side.device})", soft_wrap=True)


def _checks(proof: Proof) -> Table:
    table = new_table()
    other = "JAX" if {proof.a.framework, proof.b.framework} == {"torch", "jax"} else "B"
    own = "torch" if other == "JAX" else "A"
    for heading in ("input", "quantity"):
        table.add_column(heading, no_wrap=True)
    for heading in ("float64\nB - A", f"float32\n{own}", f"\n{other}", "\nratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    rows: dict[tuple[str, str], dict[str, Check]] = {}
    for check in proof.checks:
        rows.setdefault((check.sample, check.quantity), {})[check.precision] = check
    last = ""
    for (sample, quantity), checks in rows.items():
        wide, narrow = checks.get("float64"), checks.get("float32")
        table.add_row(
            escape(sample) if sample != last else "",
            quantity,
            f"{wide.error:.1e}" if wide else "",
            *(_float32(narrow) if narrow else ["", "", ""]),
            "ok" if all(check.ok for check in checks.values()) else "DIFFERENT",
        )
        last = sample
    return table


def _float32(check: Check) -> list[str]:
    own = check.baseline or 0.0
    ratio = f"{check.error / own:.2f}" if own else "-"
    return [f"{own:.1e}", f"{check.error:.1e}", ratio if check.budget is not None else f"({ratio})"]


def new_table(*, show_header: bool = True) -> Table:
    """A table in the style of all of them."""
    return Table(box=box.SIMPLE, show_header=show_header, pad_edge=False, padding=(0, 1, 0, 0))


def new_console() -> Console:
    """A console that shows text as it is."""
    return Console(highlight=False, emoji=False)


def print_health(found: Health) -> None:
    """What `unet doctor` found: a line for each framework and each extra, and what is wrong."""
    console = new_console()
    console.print(f"unet-twins {found.version}, Python {found.python}, {found.system}", soft_wrap=True)
    for framework in found.frameworks:
        devices = ", ".join(dict.fromkeys(framework.devices.names)) or "no device"
        count = len(framework.devices.names)
        more = f" ({count} devices)" if count > 1 else ""
        console.print(escape(f"{framework.name} {framework.version}: {devices}{more}"), soft_wrap=True)
    for extra in found.extras[1:]:
        if not extra.missing:
            console.print(escape(f"[{extra.name}] installed"), soft_wrap=True)
            continue
        missing = some(extra.missing, most=4)
        console.print(escape(f"[{extra.name}] missing {missing}: {extra.install}"), soft_wrap=True)
    free = ", ".join(f"{space.free / 1e9:.1f} GB in {space.folder}" for space in found.spaces)
    console.print(escape(f"free: {free}"), soft_wrap=True)
    for problem in found.problems:
        console.print(escape(f"wrong: {printable(problem)}"), soft_wrap=True)
    if not found.problems:
        console.print("nothing is wrong")

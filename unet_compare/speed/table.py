"""The tables of a speed measurement, on a terminal: with rich, or, where that is not installed, without."""

import contextlib
import sys
from collections.abc import Iterator, Sequence

from unet_compare.speed.plan import Precision
from unet_compare.speed.report import CaseReport, Environment, Figures
from unet_core.errors import counted
from unet_core.progress import Progress, silent

TOLERANCES: dict[Precision, float] = {"float32": 1e-2, "tf32": 1e-2, "bfloat16": 0.2}
"""How far a first output may be from the reference's, relative, before it is told (with TF32 it is about 1e-3)."""

HEADINGS = ("", "time", "ratio", "range", "speed", "of matmul", "memory", "compile")
EXPLANATION = """
ratio: the time over the reference's in the same round, median of the rounds; range: the smallest and the largest
speed: the operations of the network as it is defined over the time; of matmul: that over a large matmul's
memory: what a call takes beside what lies there between two calls; compile: the first call less a later one"""


def print_environment(environment: Environment, precision: Precision | None) -> None:
    """Where it runs, and with what; None: in several precisions, one after the other."""
    machine = environment.machine
    said = (f"{machine['cpu']}, {machine['cores']} cores", precision, machine["malloc"])
    say("; ".join(one for one in said if one))
    if machine["load"] > machine["cores"] / 4:
        say(f"OTHERS COMPUTE HERE, TOO (load {machine['load']:.1f}): they slow the frameworks down, not all alike.")
    for framework, device in environment.devices.items():
        where = "the CPU" if device["platform"] == "cpu" else device["device"]
        rounded = ", TF32" if device["tf32"] and precision == "tf32" else ""
        say(f"{framework} {environment.versions.get(framework, '')} on {where}{rounded}")
    if len({device["platform"] for device in environment.devices.values()}) > 1:
        say("The frameworks run on DIFFERENT devices: the ratios compare those, and not the programs.")


def print_case(report: CaseReport, precision: Precision) -> None:
    """The table of one case, and below it who did not run, and whose outputs are not the reference's."""
    to = f"; ratios to {report.reference}" if report.reference else ""
    say(f"\n{report.case}: {scaled(report.operations, 'FLOP')}{to}")
    if report.candidates:
        _print_table([_row(one) for one in report.candidates])
    if report.drawn:
        say("It draws at random, so the answers are not compared.")
    for one in () if report.drawn else report.candidates:
        if one.difference is None or one.difference > TOLERANCES[precision]:
            apart = "no number" if one.difference is None else f"{one.difference:.1e}"
            say(f"{one.name} ANSWERS SOMETHING ELSE than {report.reference}; relative difference: {apart}")
    turns = [near for one in report.candidates for near in one.near]
    if False in turns:
        told = f"{turns.count(False)} of {counted(len(turns), 'turn')}"
        say(f"In {told} THE CORES WERE FURTHER APART than in the others: it slows the frameworks down, not all alike.")
    for name, reason in report.failed.items():
        say(f"{name} did not run: {reason}")


@contextlib.contextmanager
def status_line() -> Iterator[Progress]:
    """A line on the terminal's error stream, gone afterwards; no thread keeps it, which what is timed would feel."""
    if not sys.stderr.isatty():
        yield silent
        return

    def show(text: str, done: float) -> None:
        sys.stderr.write(f"\r\x1b[K{done:4.0%}  {text}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def scaled(number: float, unit: str) -> str:
    """Three digits with the prefix that suits them: "96.5 GFLOP"."""
    power = 0
    while number >= 999.5 and power < 5:
        number, power = number / 1000, power + 1
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f} {' kMGTP'[power].strip()}{unit}"


def _row(one: Figures) -> tuple[str, ...]:
    """The cells of a candidate, as in `HEADINGS`."""
    return (
        one.name,
        f"{1e3 * one.median:,.1f} ms",
        f"{one.ratio:.2f}",
        f"{one.spread[0]:.2f} to {one.spread[1]:.2f}",
        scaled(one.operations_per_second, "FLOP/s"),
        f"{one.fraction:.0%}",
        "-" if one.call_bytes is None else f"{one.call_bytes / 1e6:,.0f} MB",
        f"{one.compile_seconds:.1f} s",
    )


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    try:
        from rich import box
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ModuleNotFoundError:
        say(_plain(rows))
        return
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    width = max(Console().width, 140)  # a narrow terminal wraps the lines; cells that are cut off tell nothing
    Console(highlight=False, emoji=False, width=width).print(table)


def _plain(rows: Sequence[tuple[str, ...]]) -> str:
    lines = [HEADINGS, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    first, *others = widths
    return "\n".join(
        "  ".join((line[0].ljust(first), *(cell.rjust(width) for cell, width in zip(line[1:], others, strict=True))))
        for line in lines
    )

"""The folder that `unet compare` writes: report.html for people, report.json for machines."""

from pathlib import Path

from unet_compare.findings import Comparison
from unet_compare.page.page import render
from unet_core.errors import CheckpointError
from unet_core.files import atomic, check_target
from unet_core.paths import as_target

PAGE, FIGURES = "report.html", "report.json"


def check_report(folder: Path, *, force: bool) -> None:
    """Raise CheckpointError where no report may be written; touches nothing."""
    as_target(folder)
    if folder.is_file():  # which `force` would replace: a checkpoint, mistyped
        raise CheckpointError(f"{folder}: is a file; a report is a folder, so give another name")
    check_target(folder, force=force, replaces=is_report)


def write_report(folder: Path, comparison: Comparison, command: str, *, force: bool) -> Path:
    """Write both files, or neither.

    Args:
        folder: for the two; a report that is there is replaced with `force`.
        comparison: what was found.
        command: how to repeat it, as it is typed.
        force: replace.

    Returns:
        The page.

    Raises:
        CheckpointError: they cannot be written.
    """
    page, figures = render(comparison, command), comparison.to_json()
    check_report(folder, force=force)
    with atomic(folder, force=force, replaces=is_report) as partial:
        partial.mkdir()
        (partial / PAGE).write_text(page, encoding="utf-8")
        (partial / FIGURES).write_text(figures, encoding="utf-8")
    return folder / PAGE


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report and nothing else, or nothing at all."""
    return {path.name for path in folder.iterdir()} in ({PAGE, FIGURES}, set())

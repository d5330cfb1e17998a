"""The folder DIR/report of a study: a page, figures and tables for papers, JSON; written whole, or not at all."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conversion.proof.proof import finite
from unet_compare.page.page import templates
from unet_compare.study.arms import FAULTS
from unet_compare.study.collected import Collected
from unet_compare.study.findings import Outcome, sentence
from unet_compare.study.page.charts import charts
from unet_compare.study.page.methods import methods
from unet_compare.study.page.tables import contrasts_table, scores_table
from unet_compare.study.plan import TITLES
from unet_core.codec import encoded
from unet_core.files import atomic

SCHEMA = 1
PAGE, FIGURES, FOLDERS = "report.html", "study.json", ("figures", "tables")


def write_report(folder: Path, found: Outcome, arms: Sequence[Collected], command: str) -> Path:
    """Write all of it.

    Args:
        folder: for it; an earlier report there is replaced.
        found: what is reported.
        arms: the runs.
        command: how to repeat it, as it is typed.

    Returns:
        The page.

    Raises:
        CheckpointError: it cannot be written.
    """
    with atomic(folder, force=True, replaces=_is_report) as partial:
        for name in FOLDERS:
            (partial / name).mkdir(parents=True)
        drawn = charts(found, arms, partial / "figures")
        (partial / "tables" / "scores.tex").write_text(scores_table(found), encoding="utf-8")
        (partial / "tables" / "differences.tex").write_text(contrasts_table(found), encoding="utf-8")
        (partial / FIGURES).write_text(to_json(found, command), encoding="utf-8")
        study = found.study
        page = (
            templates(Path(__file__).parent)
            .get_template("study.html.j2")
            .render(
                title=study.title or f"{' and '.join(arm.name for arm in found.arms[:2])}, trained",
                found=found,
                study=study,
                metrics={study.metric: TITLES[study.metric], **TITLES},
                sentences=[(arm, sentence(arm, study, found.arms[0].name)) for arm in found.compared],
                faults=faults_sentence(found),
                tone=_tone(found),
                charts=drawn,
                explained=FAULTS,
                collected=arms,
                data_digest=next((result.data for arm in arms for result in arm.results), "no run is finished"),
                methods=list(methods(found)),
                command=command,
                schema=SCHEMA,
                looks=({"color": "#0072B2"}, {"color": "#D55E00"}),
                gradient="#fff, #000",
            )
        )
        (partial / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE


def faults_sentence(found: Outcome) -> str:
    """Which planted faults were found."""
    faults = found.faults
    missed = [arm.name for arm in faults if not arm.found_by]
    told = f"{len(faults) - len(missed)} of {len(faults)} planted faults were found"
    return f"{told}; not found: {', '.join(missed)}." if missed else f"{told}."


def to_json(found: Outcome, command: str) -> str:
    """Everything; a number that is not finite is a string. See docs/study.md."""
    fields = {
        "schema": SCHEMA,
        "answer": found.answer,
        "faults": faults_sentence(found),
        "command": command,
        "study": encoded(found.study),
        **{
            name: _plain(getattr(found, name))
            for name in ("arms", "finished", "variance", "versions", "devices", "no_joules")
        },
    }
    return json.dumps(finite(fields), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _tone(found: Outcome) -> str:
    verdicts = {one.verdict for arm in found.compared if (one := arm.contrast(found.study.metric)) is not None}
    if verdicts == {"equivalent"} and found.as_hoped:
        return "same"
    return "different" if "different" in verdicts else "undecided"


def _is_report(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {PAGE, FIGURES, *FOLDERS}

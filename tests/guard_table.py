"""Writes docs/guard.md: every bad checkpoint of `poison.py`, what comes of it, and the message.

python tests/guard_table.py
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import conftest  # noqa: F401  (before JAX is imported)
from poison import CASES, Case
from test_guard import CODE, file_size_limit

from unet_cli.main import main

ROOT = Path(__file__).parents[1]
GUARD = ROOT / "docs" / "guard.md"
BEGIN = "| row | case | outcome | message |\n|---|---|---|---|\n"


def outcome(case: Case) -> tuple[str, str]:
    """Whether the conversion of one case is accepted or refused, and in which words."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        source, target = Path(case.file), Path(case.dst)
        source.parent.mkdir(exist_ok=True)
        case.make(Path(name) / source)
        if case.occupy:
            case.occupy(Path(name) / target)
        arguments = ["convert", str(source), str(target), "--no-verify"]
        if case.apart:
            done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True)
            code, err = done.returncode, done.stderr
        else:
            error = io.StringIO()
            asked = os.access
            if case.unreadable:  # root may read everything
                os.access = lambda path, mode, **more: False
            try:
                with (
                    contextlib.redirect_stderr(error),
                    contextlib.redirect_stdout(io.StringIO()),
                    file_size_limit(case.room),
                ):
                    code = main(arguments)
            finally:
                os.access = asked
            err = error.getvalue()
    if code not in (0, 2) or err.count("\n") != (code == 2):
        raise SystemExit(f"{case.row} {case.name}: exit code {code}: {err}")
    return ("accepted" if code == 0 else "refused"), err.strip().removeprefix("unet: ").replace(
        f"{Path(name).resolve()}/", ""
    )


def table() -> str:
    """One line for every case."""
    lines = []
    for case in sorted(CASES, key=lambda case: case.row):
        found, message = outcome(case)
        short = message if len(message) <= 240 else f"{message[:240]} ..."
        plain = short.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*").replace("`", "'")
        lines.append(f"| {case.row} | {case.name} | {found} | {plain} |\n")
    return "".join(lines)


if __name__ == "__main__":
    text = GUARD.read_text() if GUARD.exists() else BEGIN
    GUARD.write_text(text[: text.index(BEGIN) + len(BEGIN)] + table())
    sys.stdout.write(f"{GUARD}: {len(CASES)} cases\n")

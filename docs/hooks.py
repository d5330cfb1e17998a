"""What the site has beside the pages of this folder: links to code, the command's help, the reference, the tables.

mkdocs calls the functions that begin with `on_`.
"""

import contextlib
import io
import json
import logging
import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from benchmarks import tables

ROOT = Path(__file__).parents[1]
PACKAGES = ("unet_core", "unet_torch", "unet_jax", "conversion")
COMPARING = ("unet_compare.compare.compare", "unet_compare.page.page.render")
"""What is public beside the names in `__all__` of the packages."""

_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of the code."""
    pages = {"command": command_page(), "proven": proven_page()}
    pages |= {package: _package_page(package) for package in PACKAGES}
    pages["unet_compare"] = "# unet_compare\n\n" + "".join(f"::: {name}\n\n" for name in COMPARING)
    for name, content in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, **_: Any) -> str:
    """Let links out of this folder lead into the repository."""
    return linked(markdown, posixpath.join("docs", page.file.src_uri), config.repo_url)


def linked(text: str, path: str, repository: str | None) -> str:
    """A page whose links to what the site does not have lead into the repository; one to nothing is a warning.

    Args:
        text: the page, in Markdown.
        path: where it lies, from the repository's root.
        repository: its address; without one, links lead to the files on this machine.
    """

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1]))
        if not (ROOT / target).exists():
            _log.warning(f"{path}: links to {target}, which is not there")
        kind = "tree" if (ROOT / target).is_dir() else "blob"
        base = f"{repository.rstrip('/')}/{kind}/main/{target}" if repository else (ROOT / target).as_uri()
        return f"]({base}{found[2] or ''})"

    return _LINK.sub(link, text)


def _package_page(package: str) -> str:
    """Of what the package exports; the config, which three do, is in the first one's."""
    options = {"show_root_heading": False, "show_root_toc_entry": False}
    if package != PACKAGES[0]:
        options["filters"] = ["!^_", "!^UNetConfig$"]
    return f"# {package}\n\n::: {package}\n    options: {json.dumps(options)}\n"


def proven_page() -> str:
    """The table of networks, with what it was made by."""
    about = tables.read("networks")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        "# Proven networks\n\nThe largest differences of JAX from the packages' own code, with random weights, both in "
        "float64, relative to the largest value, and those after 20 updates by Adam.\n\n"
        f"{tables.proven()}\n\n`{about['command']}` on {about['cores']} cores of {about['cpu']}: {versions}.\n"
    )


def command_page() -> str:
    """The help of every command, in Markdown."""
    commands = re.search(r"\{([\w,]+)\}", _help_of())
    assert commands is not None
    parts = [f"## unet {name}\n\n{in_markdown(_help_of(name))}" for name in commands[1].split(",")]
    return "\n\n".join(["# The command", in_markdown(_help_of(), boxes=False), *parts])


def in_markdown(text: str, *, boxes: bool = True) -> str:
    """A help text whose lines are not broken: paragraphs, then boxes of options, each a term and what it means."""
    usage, _, rest = text.partition("\n\n")
    prose, *tables = re.split(r"^ (\S.*?) *\n -+ *\n", rest, flags=re.MULTILINE)
    found = [f"```text\n{' '.join(usage.split())}\n```"] if boxes else []
    for paragraph in prose.strip().split("\n\n"):
        example = paragraph.startswith("Example: ")
        found.append(f"```sh\n{' '.join(paragraph.split()[1:])}\n```" if example else _plain(paragraph))
    for title, table in zip(tables[::2], tables[1::2], strict=True) if boxes else ():
        about, _, options = table.rpartition(f"\n  {60 * '-'}")
        found.append(f"**{title}** {_plain(' '.join(about.split()))}".rstrip())
        rows = _rows(options.lstrip("-"))
        found += (f"`{term}`\n:   {_plain(meaning)}" for term, meaning in rows if term != "-h, --help")
    return "\n\n".join(found)


def _rows(table: str) -> list[tuple[str, str]]:
    """Of a box: each option, and what it means, which stands beside it or below."""
    rows: list[list[str]] = []
    for line in table.splitlines():
        found = re.fullmatch(r"(?:  (\S+(?: \S+)*))?\s*(.*?)\s*", line)
        assert found is not None, line
        if found[1]:
            rows.append([found[1]])
        if found[2]:
            rows[-1].append(found[2])
    return [(term, " ".join(meaning)) for term, *meaning in rows]


def _plain(text: str) -> str:
    """With what Markdown would take for its own."""
    return re.sub(r"(`[^`]*`)|([*_<>\[\]])", lambda found: found[1] or f"\\{found[2]}", text)


def _help_of(*command: str) -> str:
    from unet_cli.main import main

    text = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "129"  # with more, boxes stand beside each other
    try:
        with contextlib.redirect_stdout(text):
            main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return text.getvalue()

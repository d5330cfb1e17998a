"""The site: links, also to code and to nothing; the command's page; the tables; pages on a phone; the tutorial."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")
yaml = pytest.importorskip("yaml")

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from benchmarks import tables
from docs import hooks

ROOT = Path(__file__).parents[1]
HOME = "https://example.org/a/b"
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()


@pytest.mark.parametrize(
    ("link", "repository", "target"),
    [
        ("../unet_core/config.py#L12", HOME, f"{HOME}/blob/main/unet_core/config.py#L12"),
        ("../unet_jax/rewrites", f"{HOME}/", f"{HOME}/tree/main/unet_jax/rewrites"),
        ("../README.md#the-proof", None, f"{(ROOT / 'README.md').as_uri()}#the-proof"),
        ("proof.md#the-certificate", HOME, "proof.md#the-certificate"),
    ],
)
def test_what_the_site_does_not_have_is_in_the_repository(link, repository, target):
    assert hooks.linked(f"a [b]({link}) c", "docs/page.md", repository) == f"a [b]({target}) c"


LOST = ("../unet_core/gone.py", "gone.md", "other.md#gone", "gone.png")


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("[a](../unet_core/config.py#L12) [b](other.md#here)", ()),
        (" ".join(f"{'!' * link.endswith('.png')}[a]({link})" for link in LOST), LOST),
    ],
    ids=["sound", "lost"],
)
def test_a_link_that_leads_nowhere_fails(text, lost, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(hooks, "on_files", lambda files, config: files)
    config = yaml.safe_load(re.sub("!ENV", "", (ROOT / "mkdocs.yml").read_text()))
    kept = {"site_name": "a", "strict": True, "theme": "mkdocs", "plugins": [], "validation": config["validation"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump({**kept, "hooks": [str(ROOT / "docs/hooks.py")]}))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(text)
    (tmp_path / "docs/other.md").write_text("## Here\n")
    loaded = load_config(str(tmp_path / "mkdocs.yml"))
    if not lost:
        build(loaded)
        return
    with pytest.raises(Abort, match=f"{len(lost)} warnings in strict mode"):
        build(loaded)
    assert all(link.removeprefix("../") in caplog.text for link in lost)


def test_the_page_of_the_command_has_every_command_and_option():
    page = hooks.command_page()
    for command in ("inspect", "convert", "train", "completion"):
        assert f"\n## unet {command}\n" in page
        options = set(re.findall(r"^ +(--\w[\w-]*)", hooks._help_of(command), re.MULTILINE))
        part = page.partition(f"\n## unet {command}\n")[2].partition("\n## ")[0]
        assert options <= set(re.findall(r"--\w[\w-]*", part))
    assert "`--force`\n:   Replace DST where it exists. (default: False)\n" in page
    assert "-----" not in page


def test_a_help_text_becomes_markdown():
    text = (
        "usage: unet a [-h] X\n\nSay a_b.\n\nExample: unet a 1\n\n options    \n -----------\n  Of <all>.\n"
        f"  {'-' * 127}\n  --steps INT  How many,\n               at most.\n  --long A|B\n               Or.\n"
    )
    options = "**options** Of \\<all\\>.\n\n`--steps INT`\n:   How many, at most.\n\n`--long A|B`\n:   Or."
    start = "```text\nusage: unet a [-h] X\n```\n\nSay a\\_b.\n\n```sh\nunet a 1\n```"
    assert hooks.in_markdown(text) == f"{start}\n\n{options}"


@pytest.mark.parametrize("page", tables.tables())
def test_the_tables_are_those_of_the_figures(page, monkeypatch):
    text = (ROOT / page).read_text()
    assert tables.with_tables(text, tables.tables()[page]) == text
    figures = {name: tables.read(name) for name in ("networks", "network_speed")}
    figures["networks"]["results"][0]["errors"]["gradients"] *= 2
    figures["network_speed"]["results"][0]["milliseconds"]["jax"] += 1
    monkeypatch.setattr(tables, "read", figures.get)
    assert tables.with_tables(text, tables.tables()[page]) != text, "the control"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(
    "name", ["index", "training", "guard", "reference/command", "reference/unet_jax", "reference/proven"]
)
def test_a_page_fits_and_fetches_nothing_from_elsewhere(site, browser, name, width):
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((site / f"{name}.html").as_uri())
    wide, room = browser.execute_script(
        "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
    )
    assert wide == room
    said = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [one["params"]["request"]["url"] for one in said if one["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    for package in ("torch", "jax"):
        pytest.importorskip(package)
    from unet_cli.main import main

    monkeypatch.chdir(tmp_path)
    network, loop = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
    Path("theirs.py").write_text(network)
    for line in "".join(re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL)).splitlines():
        program, *arguments = shlex.split(line.replace("--steps 200", "--steps 2"))
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
        else:
            assert main(arguments) == 0, line
    exec(compile(loop, "tutorial.md", "exec"), {})
    monkeypatch.syspath_prepend(tmp_path)
    import theirs
    import torch

    theirs.Net(classes=1).load_state_dict(torch.load("tuned.pt"), strict=True)

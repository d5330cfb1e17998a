"""What people install: the source archive has all, the wheel the packages alone; a release is of one version."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from unet_core.version import VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("conversion", "unet_cli", "unet_compare", "unet_core", "unet_jax", "unet_torch")
OTHERS = ("benchmarks", "docs", "examples", "tests")
LEFT_OUT = shutil.ignore_patterns("__pycache__")


def build(kind, folder, out):
    code = f"from setuptools import build_meta as b; b.build_{kind}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, unpacked, and the names in the wheel that is built from it, as `python -m build` does."""
    pytest.importorskip("setuptools", "77", reason="the build's own package")
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    for name in (*PACKAGES, *OTHERS, ".ci", ".github"):
        shutil.copytree(ROOT / name, source / name, ignore=LEFT_OUT)
    for path in ROOT.iterdir():
        if path.suffix in {".cff", ".in", ".md", ".toml", ".txt", ".yml"} or path.name in {"LICENSE", "Makefile"}:
            shutil.copy(path, source)
    build("sdist", source, folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    unpacked = folder / archive.name.removesuffix(".tar.gz")
    build("wheel", unpacked, folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        return source, unpacked, file.namelist(), file.read(f"unet_twins-{VERSION}.dist-info/METADATA").decode()


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_source_archive_has_all(built):
    source, unpacked, _, _ = built
    made = {name for name in files(source) if ".egg-info/" in name}
    assert files(source) - made <= files(unpacked)


def test_the_wheel_has_the_packages_alone(built):
    _, _, names, _ = built
    of_packages = {f"{name}/{inner}" for name in PACKAGES for inner in files(ROOT / name) if "__pycache__" not in inner}
    about = {name for name in names if name.startswith(f"unet_twins-{VERSION}.dist-info/")}
    assert set(names) - about == of_packages
    assert about >= {f"unet_twins-{VERSION}.dist-info/{name}" for name in ("licenses/LICENSE", "entry_points.txt")}
    assert {f"{name}/py.typed" for name in PACKAGES} < of_packages
    assert {"unet_compare/page/page.html.j2", "unet_compare/study/page/study.html.j2"} < of_packages


def test_the_wheel_says_what_it_is(built):
    *_, about = built
    assert f"\nVersion: {VERSION}\n" in about
    assert "\nLicense-Expression: Apache-2.0\n" in about
    assert "\nDescription-Content-Type: text/markdown\n" in about


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    required = {"cff-version", "message", "title", "authors"}
    assert required <= set(found) <= required | {"abstract", "keywords", "license", "type", "version"}
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    assert all(set(author) == {"name"} for author in found["authors"]), "an entity, as the schema has it"
    assert (found["title"], found["version"]) == (PROJECT["name"], PROJECT["version"])
    assert found["license"] == PROJECT["license"]
    assert PROJECT["description"] in found["abstract"]


def carried_out(name, folder, tag):
    """A step of the release, in a folder; its exit code."""
    yaml = pytest.importorskip("yaml")
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    (step,) = [step["run"] for step in release["jobs"]["build"]["steps"] if step.get("name") == name]
    known = {"GITHUB_REF_NAME": tag, "GITHUB_SERVER_URL": "https://example.org", "GITHUB_REPOSITORY": "a/b"}
    known["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-ec", step], cwd=folder, env=known).returncode


@pytest.mark.parametrize(("tag", "code"), [(f"v{VERSION}", 0), ("v0.0.1", 1), (VERSION, 1)])
def test_a_release_is_refused_under_another_tag(tag, code):
    assert carried_out("the tag is the version", ROOT, tag) == code


def test_a_release_names_the_repository(tmp_path):
    """So that the links of the README lead somewhere from the package's page."""
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    links = re.compile(r"\]\((?!https://|#)")
    assert links.search((tmp_path / "README.md").read_text()), "the control"
    assert carried_out("the package names this repository", tmp_path, "v1") == 0
    readme = (tmp_path / "README.md").read_text()
    assert not links.search(readme)
    assert "](https://example.org/a/b/raw/v1/docs/images/story.png)" in readme
    assert "](https://example.org/a/b/blob/v1/docs/proof.md#the-certificate)" in readme
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == "https://example.org/a/b"


def test_a_release_is_published_without_a_password():
    text = (ROOT / ".github/workflows/release.yml").read_text()
    assert not re.search("password|secrets", text.replace("in place of a password", ""))
    assert "id-token: write" in text.partition("\n  publish:")[2]

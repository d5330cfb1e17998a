"""The rooms: no arrow points up, none goes round, files are short; docs/architecture.md points at what it names."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("unet_core", "unet_torch", "unet_jax", "conversion", "unet_compare", "unet_cli", "examples")
"""From the ground up; the two twins beside each other."""
LINK = re.compile(r"\[`(\w+)`\]\(\.\./([\w/.]+)#L(\d+)\)")


@functools.cache
def imports():
    """For each module the modules of this project that it imports when it is imported, and those inside functions."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    found = {}
    for module, path in paths.items():
        tree = ast.parse(path.read_text())
        for late, nodes in ((False, tree.body), (True, ast.walk(tree))):
            names = {
                f"{node.module}.{name.name}" if f"{node.module}.{name.name}" in paths else node.module
                for node in nodes
                if isinstance(node, ast.ImportFrom) and node.module
                for name in node.names
            }
            found[module, late] = {name for name in names if name in paths and name != module}
    return found


def package(module):
    return module.partition(".")[0]


def test_no_arrow_points_up():
    for (module, _), targets in imports().items():
        for target in targets:
            here, there = PACKAGES.index(package(module)), PACKAGES.index(package(target))
            assert there <= here, f"{module} imports {target}"
            assert {package(module), package(target)} != {"unet_torch", "unet_jax"}, f"{module} imports {target}"


def test_the_core_imports_no_framework():
    for path in (ROOT / "unet_core").rglob("*.py"):
        names = {
            name.partition(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        }
        assert not names & {"torch", "jax", "flax", "optax"}, path


def test_no_module_imports_itself_round_a_corner():
    at_once = {module: targets for (module, late), targets in imports().items() if not late}
    done = set()

    def visit(module, trail):
        assert module not in trail, " > ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(at_once[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in at_once:
        visit(module, ())


def test_a_folders_modules_stand_on_few_floors():
    """A chain of imports among the modules of one folder has six at most."""
    at_once = {module: targets for (module, late), targets in imports().items() if not late}
    parents = {module.rpartition(".")[0] for module in at_once}
    folder = {module: module if module in parents else module.rpartition(".")[0] for module in at_once}

    @functools.cache
    def chain(module, place):
        longest = max((chain(target, place) for target in at_once[module]), key=len, default=())
        return (module, *longest) if folder[module] == place else longest

    for module, place in folder.items():
        assert len(chain(module, place)) <= 6, " > ".join(chain(module, place))


@pytest.mark.parametrize("package", PACKAGES)
def test_files_and_functions_are_read_at_one_go(package):
    for path in (ROOT / package).rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


@pytest.mark.parametrize(("name", "path", "line"), LINK.findall((ROOT / "docs/architecture.md").read_text()))
def test_the_page_points_at_what_it_names(name, path, line):
    lines = (ROOT / path).read_text().splitlines()
    defined = [
        number for number, text in enumerate(lines, 1) if re.match(rf"\s*(def|class) {name}\b|{name}\b.*=", text)
    ]
    assert int(line) in defined, f"{path}: {name} is in line {defined}"

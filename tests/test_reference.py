"""Every public name has an example in its docstring, which runs as it stands."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"unet_core": (), "unet_torch": ("torch",), "unet_jax": ("jax",), "conversion": ("torch", "jax")}
COMPARING = (("unet_compare.compare", "compare"), ("unet_compare.page.page", "render"))
DEAR = {"Certificate", "Confirmation", "Proof", "compare", "confirm", "render", "verify"}
"""They make whole proofs, or compare layer by layer."""
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def exported(package):
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    (names,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
    return ast.literal_eval(names)


def public():
    names = [(package, name) for package in FRAMEWORKS for name in exported(package)]
    for package, name in (*names, *COMPARING):
        if (name, package) != ("UNetConfig", "unet_core") and name == "UNetConfig":
            continue  # the same class again
        yield pytest.param(package, name, id=f"{package}.{name}", marks=pytest.mark.slow if name in DEAR else ())


def failures(found, name):
    tests = doctest.DocTestFinder(recurse=False).find(found, name)
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    said = []
    for test in tests:
        test.globs = {}
        runner.run(test, out=said.append)
    return runner.summarize(verbose=False).attempted, "".join(said)


@pytest.mark.parametrize(("package", "name"), list(public()))
def test_a_public_name_has_an_example_that_runs(package, name, tmp_path, monkeypatch):
    for framework in FRAMEWORKS.get(package, ("torch", "jax")):
        pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    attempted, said = failures(getattr(importlib.import_module(package), name), name)
    assert attempted, "there is no example"
    assert not said, said


def test_an_example_that_is_wrong_is_found():
    def wrong():
        """One.

        >>> 1 + 1
        3
        """

    assert failures(wrong, "wrong")[0] == 1
    assert "Expected:\n    3\nGot:\n    2" in failures(wrong, "wrong")[1]

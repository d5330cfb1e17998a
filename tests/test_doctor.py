"""`unet doctor`, `unet --version` and `unet completion`: what is installed, from one place; what a shell completes."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from conversion import health
from conversion.backends import devices
from conversion.backends.devices import Devices, devices_of
from unet_cli.doctor import Doctor
from unet_cli.main import main
from unet_core import installation, machine
from unet_core.errors import MissingFrameworkError
from unet_core.installation import Extra, extras, installing
from unet_core.version import VERSION

ROOT = Path(__file__).parents[1]
GB = 10**9


@pytest.fixture
def well(monkeypatch):
    """A function that sets what is found on this machine, all else being well."""

    def found(framework_devices=None, free=100 * GB, versions=None, chips=0, gpus=()):
        versions = {"torch": "2.13.0", "jax": "0.10.2"} if versions is None else versions
        one = framework_devices or {}
        monkeypatch.delenv("JAX_PLATFORMS", raising=False)
        monkeypatch.setattr(health, "version_of", versions.get)
        monkeypatch.setattr(health, "devices_of", lambda name: one.get(name, Devices(("cpu",))))
        monkeypatch.setattr(health.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(free, 0, free))
        monkeypatch.setattr(machine, "tpu_chips", lambda: chips)
        monkeypatch.setattr(machine, "nvidia_gpus", lambda: list(gpus))

    found()
    return found


def problems(capsys):
    code = main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    wrong = [line.removeprefix("wrong: ") for line in lines if line.startswith("wrong: ")]
    assert code == (1 if wrong else 0)
    return wrong


@pytest.mark.usefixtures("well")
def test_all_is_well(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"unet-twins {VERSION}, Python ")
    assert "\njax 0.10.2: cpu\n" in said
    assert "\n[train] installed\n" in said
    assert said.endswith("nothing is wrong\n")


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"versions": {}}, r"neither framework is installed"),
        pytest.param(
            {"framework_devices": {"jax": Devices(problem="the TPU is in use by process 7")}},
            r"jax: the TPU is in use",
            marks=pytest.mark.slow,
        ),
        ({"free": GB // 2}, r": 0\.5 GB are free"),
        pytest.param(
            {"chips": 4},
            r"jax computes on the CPU, though there is a TPU: pip install .*\[tpu\]",
            marks=pytest.mark.slow,
        ),
        ({"gpus": ["H100"]}, r"jax computes on the CPU, though there is an NVIDIA GPU: pip install .*\[cuda\]"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(found, wrong, well, capsys):
    assert problems(capsys) == [], "the control"
    well(**found)
    said = problems(capsys)
    assert any(re.search(wrong, line) for line in said), said


def test_an_accelerator_that_is_used_is_no_problem(well, capsys):
    well({"jax": Devices(("tpu: TPU v5 lite",) * 4)}, chips=4)
    assert problems(capsys) == []
    well({"jax": Devices(("gpu: H100",)), "torch": Devices(("cuda: H100",))}, gpus=["H100"])
    assert problems(capsys) == []


def test_json_has_the_same(well, capsys):
    well(free=1)
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == VERSION
    assert [part["name"] for part in found["frameworks"]] == ["torch", "jax"]
    assert found["problems"]


def test_the_extras_are_those_of_the_distribution():
    """As pyproject.toml has them; an installed package may be older."""
    declared = metadata.metadata("unet-twins").get_all("Provides-Extra")
    assert [extra.name for extra in extras()] == ["", *declared]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(declared) <= set(project["optional-dependencies"])


def test_an_extra_has_what_it_names_in_turn():
    found = {extra.name: {package.name for package in extra.packages} for extra in extras()}
    assert {"numpy", "tyro"} <= found[""]
    assert "jax" in found["jax"]
    assert found["all"] >= found["torch"] | found["jax"] | found["train"] | found["report"]
    assert "libtpu" in found["tpu"], "jax's own extra"


class Distribution:
    """A distribution's metadata; `Mock` would not do, for it is looked up by name."""

    def __init__(self, origin=None, requires=(), version="0.7.0"):
        self.origin, self.requires, self.version = origin, requires, version
        self.metadata = metadata.metadata("unet-twins")

    def read_text(self, name):
        return json.dumps(self.origin) if self.origin else None


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'unet-twins[train]'"),
        ({"url": "file:///a/w.whl", "archive_info": {}}, "pip install 'unet-twins[train]'"),
        (
            {"url": "file:///a%20b", "dir_info": {"editable": True}},
            "pip install -e '/a b[train]' -c '/a b/constraints.txt'",
        ),
    ],
)
def test_the_command_is_for_where_it_was_installed_from(origin, command, monkeypatch):
    monkeypatch.setattr(installation.metadata, "distribution", lambda _: Distribution(origin))
    assert installing("train") == command


def test_missing_and_unfit_packages_are_told(monkeypatch, capsys, well):
    needs = ["numpy>=2.0", 'jax>=0.10; extra == "jax"', 'flax>=0.12; extra == "jax"', 'x>=1; python_version < "3"']
    there = {"numpy": "2.4.6", "jax": "0.9.0"}
    monkeypatch.setattr(installation.metadata, "requires", lambda name: needs if name == "unet-twins" else [])
    monkeypatch.setattr(installation, "version_of", there.get)
    basis, jax = (Extra(name, tuple(installation._packages(name)), "pip") for name in ("", "jax"))
    assert (basis.missing, basis.unfit) == ([], [])
    assert jax.missing == ["flax"]
    assert jax.unfit == ["jax 0.9.0 (needs >=0.10)"]
    well()
    said = problems(capsys)
    assert said[0].startswith("of another version than is needed: jax 0.9.0 (needs >=0.10): pip install ")


def test_without_a_distribution_it_is_one_line(monkeypatch, capsys):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(installation.metadata, "distribution", missing)
    with pytest.raises(MissingFrameworkError, match="only its code is there: pip install -e"):
        extras()
    assert main(["doctor"]) == 2
    assert installing("train") == "pip install -e '.[train]' -c constraints.txt"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("no", name="PIL.Image"), "this needs pillow, which is not installed: pip install "),
        (metadata.PackageNotFoundError("grain"), "this needs grain, which is not installed: pip install "),
    ],
)
def test_a_package_that_is_missing_is_one_line(error, said, monkeypatch, capsys):
    def missing(self):
        raise error

    monkeypatch.setattr(Doctor, "run", missing)
    with pytest.raises(ModuleNotFoundError):  # the control: it is installed, so that the error is ours
        main(["doctor"])
    monkeypatch.setattr(installation, "version_of", lambda _: None)
    assert main(["doctor"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unet: {said}")


@pytest.mark.parametrize("framework", ["jax", pytest.param("torch", marks=pytest.mark.slow)])
def test_a_framework_tells_its_devices(framework):
    pytest.importorskip(framework)
    assert devices_of(framework) == Devices(("cpu",))


def test_a_framework_that_does_not_start_says_why(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv("JAX_PLATFORMS", "foo")
    found = devices_of("jax")
    assert found.names == ()
    assert found.problem.startswith("JAX has no platform foo here")


@pytest.mark.parametrize(
    ("code", "patience", "problem"),
    [
        ("import os; os.abort()", 60, "ends with exit code -6: it says nothing"),
        ("import sys; sys.exit('libtpu: fatal')", 60, "ends with exit code 1: libtpu: fatal"),
        ("import time; time.sleep(60)", 0.1, "has not started within 0.1 seconds"),
    ],
)
def test_a_framework_that_ends_its_process_ends_no_other(code, patience, problem, monkeypatch):
    monkeypatch.setattr(devices, "_PATIENCE", patience)
    run = subprocess.run
    monkeypatch.setattr(devices.subprocess, "run", lambda _, **more: run([sys.executable, "-c", code], **more))
    assert devices_of("jax").problem.startswith(problem)


@pytest.mark.parametrize(
    ("chips", "gpus", "packages", "environment", "jax", "torch"),
    [
        (0, [], {}, {}, "cpu", "cpu"),
        (4, [], {"libtpu": "1"}, {}, "tpu: 4 chips", "cpu"),
        (1, [], {"libtpu": "1"}, {}, "tpu: 1 chip", "cpu"),
        (4, [], {}, {}, "cpu", "cpu"),
        (4, [], {"libtpu": "1"}, {"JAX_PLATFORMS": "cpu"}, "cpu", "cpu"),
        (0, ["H100", "H100"], {"jax-cuda13-plugin": "1"}, {}, "cuda: 2 x H100", "cuda: 2 x H100"),
        (0, ["H100"], {}, {"CUDA_VISIBLE_DEVICES": ""}, "cpu", "cpu"),
    ],
)
def test_the_version_tells_devices_without_starting_them(
    chips, gpus, packages, environment, jax, torch, monkeypatch, capsys
):
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(machine, "tpu_chips", lambda: chips)
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: gpus)
    monkeypatch.setattr(machine, "version_of", packages.get)
    monkeypatch.setattr(machine, "torch_has_cuda", lambda: True)
    assert main(["--version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"unet-twins {VERSION}"
    for name, device in (("torch", torch), ("jax", jax)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            assert f"{name} {metadata.version(name)} ({device})" in lines


def test_chips_and_gpus_are_read_from_the_system(monkeypatch, tmp_path):
    assert machine.torch_has_cuda() in (True, False)
    monkeypatch.setattr(machine, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "gpus")
    assert (machine.tpu_chips(), machine.nvidia_gpus()) == (0, [])
    for name in ("dev/accel0", "dev/vfio/0", "dev/vfio/vfio", "gpus/0000:00/information"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   26\n")
    assert (machine.tpu_chips(), machine.nvidia_gpus()) == (2, ["NVIDIA H100 80GB HBM3"])


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "unet.bash"
    command = [sys.executable, "-m", "unet_cli", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["ins"], ["inspect"]),
        (["train", "--ba"], ["--backend", "--batch"]),
        (["train", "--backend", "j"], ["jax"]),
        (["convert", "model.pt", "--dia"], ["--dialect"]),
        (["inspect", "mod"], []),
        (["transmogrify", "--ba"], []),
    ],
)
def test_bash_completes(typed, offered, script):
    words = " ".join(f"'{word}'" for word in ["unet", *typed])
    code = f'source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed)}; _unet; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split()) == offered


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_the_names_of_files(script, tmp_path):
    """At a terminal, by the tabulator."""
    (tmp_path / "model.safetensors").touch()
    terminal, inside = pty.openpty()
    ends = {"stdin": inside, "stdout": inside, "stderr": inside}
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], cwd=tmp_path, start_new_session=True, **ends)
    try:
        for line, until in (
            (f"source {script}; echo re''ady\n", b"ready"),
            ("unet inspect mod\t", b"model.safetensors"),
        ):
            os.write(terminal, line.encode())
            said, end = b"", time.monotonic() + 20
            while until not in said and time.monotonic() < end:
                if select.select([terminal], [], [], 0.1)[0]:
                    said += os.read(terminal, 4096)
            assert until in said
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
        os.close(inside)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    said = capsys.readouterr().out
    assert "inspect" in said
    assert "complete" in said or "compdef" in said

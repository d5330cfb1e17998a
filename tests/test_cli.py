"""The command: what it prints, its exit codes, its help."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import TINY, trained_tensors

from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.initial import initial_tensors


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors_file.write(path, Checkpoint(TINY, trained_tensors(TINY)))
    return path


@pytest.mark.parametrize(
    "command",
    [
        "inspect",
        "convert",
        "export",
        "verify",
        "train",
        "predict",
        "eval",
        "plot",
        "bench",
        "compare",
        "doctor",
        "completion",
    ],
)
def test_help_has_an_example(capsys, command):
    assert main([command, "--help"]) == 0
    assert f"Example: unet {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["export", "a", "b", "--forc"], "Unrecognized options: --forc. Perhaps you meant --force. For full helptext"),
        (
            ["export", "a", "b", "--answer", "x"],
            "invalid choice 'x' for argument '--answer'. Expected one of (",
        ),
        (
            ["export", "a", "b", "--batch", "x"],
            "Value error: Error parsing --batch: no type matching {None}|INT ",
        ),
        ([], "Missing subcommand: Expected one of {inspect, "),
    ],
)
def test_what_cannot_be_parsed_is_said_once_in_one_line(capsys, arguments, line):
    assert main(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"unet: {line}")
    assert said.endswith("--help")
    assert "Got errors" not in said


@pytest.fixture
def programs(monkeypatch):
    """A function that sets some of the environment, the rest being bare, and answers where JAX keeps its programs."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def kept(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        assert main(["--help"]) == 0
        found = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        return found

    return kept


def test_programs_are_kept_in_the_users_cache(programs, tmp_path):
    assert programs(HOME=tmp_path) == str(tmp_path / ".cache" / "unet-twins")
    assert programs(XDG_CACHE_HOME=tmp_path / "else") == str(tmp_path / "else" / "unet-twins")
    assert list(tmp_path.iterdir()) == []


def test_jax_s_own_variable_comes_first(programs, tmp_path):
    assert programs(HOME=tmp_path, JAX_COMPILATION_CACHE_DIR="mine") == "mine"


@pytest.mark.parametrize(
    "environment",
    [{"XDG_CACHE_HOME": "relative"}, {"HOME": "relative"}, {"XDG_CACHE_HOME": "/dev/null/a"}],
    ids=str,
)
def test_where_there_is_no_place_no_program_is_kept(programs, environment):
    assert programs(**environment) is None


def test_without_a_home_no_program_is_kept(programs, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert programs() is None


def test_a_cache_that_may_not_be_written_is_none(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert programs(HOME=tmp_path) is None


def test_help_names_the_commands_and_the_exit_codes(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("inspect", "convert", "verify", "Exit codes: 0 done; 1"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected one of {inspect, convert, export, verify, push, compare, study, pack, train, predict, eval, "),
        (["transmogrify"], "transmogrify"),
        (["convert", "a.pt"], "DST"),
        (["inspect"], "CKPT"),
        (["inspect", "a.pt", "--colour"], "--colour"),
        (["verify", "a.pt", "b", "--seed", "x"], "seed"),
        (["verify", "a.pt", "b", "--size", "75"], "give height and width as HxW"),
        (["verify", "a.pt", "b", "--size", "75x0x3"], "give height and width as HxW"),
        (["verify", "a.pt", "b", "--seed", "-1"], "give a whole number from 0 up"),
        (["plot"], "RUN: name the folder of a run"),
        (["inspect", "a" * 300 + ".pt"], "file name too long"),
        (["inspect", "a" * 300 + ".v2"], "file name too long"),
        (
            ["train", "--out", "run", "--fold", "2"],
            "unet: fold 2: give one from 1 up to --folds, as --fold",
        ),
        (["train", "--out", "run", "--folds", "5", "--fold", "2"], "unet: --backend jax|torch: is needed"),
        (["train", "--out", "run", "--validation-fold", "2"], "--validation-fold"),
        (["completion", "tcsh"], "Expected one of ('bash', 'zsh', 'fish')"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("unet: ")
    assert err.count("\n") == 1
    assert message in err
    assert "----" not in err


def test_inspect_prints_what_the_file_is(checkpoint, capsys):
    assert main(["inspect", str(checkpoint)]) == 0
    out = capsys.readouterr().out
    for part in (
        "safetensors file",
        "stored in the file",
        "4, 6, 8",
        "3 in, 2 out",
        "float32",
        "of every tensor, checked",
    ):
        assert part in out


def test_inspect_json(checkpoint, capsys):
    assert main(["inspect", str(checkpoint), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["features"] == [4, 6, 8]
    assert found["parameters"] == sum(
        value.size for key, value in trained_tensors(TINY).items() if key.endswith(("weight", "bias"))
    )
    assert found["dtypes"] == {"float32": 52}
    assert found["problems"] == []


def poisoned(key, change):
    tensors = trained_tensors(TINY)
    return tensors | {key: change(tensors[key])}


PROBLEMS = {
    "never trained": (lambda: initial_tensors(TINY, 0), "BatchNorm was never trained"),
    "NaN": (lambda: poisoned("out.bias", lambda b: b * np.nan), "out.bias: 2 of 2 values are NaN or infinite"),
    "negative variance": (
        lambda: poisoned("up1.conv.1.running_var", lambda v: -v),
        "up1.conv.1.running_var: 4 of 4 variances are negative",
    ),
}


@pytest.mark.parametrize(("make", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_inspect_names_what_looks_wrong(tmp_path, capsys, make, problem):
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(TINY, make()))
    assert main(["inspect", str(tmp_path / "a.safetensors"), "--json"]) == (0 if "never trained" in problem else 1)
    assert any(problem in found for found in json.loads(capsys.readouterr().out)["problems"])


def test_convert_says_what_it_wrote(checkpoint, tmp_path, capsys):
    pytest.importorskip("torch")
    assert main(["convert", str(checkpoint), str(tmp_path / "b.pt"), "--no-verify"]) == 0
    assert capsys.readouterr().out == (
        f"{checkpoint} -> {tmp_path / 'b.pt'}: 62 tensors, not verified\nknown by code: run against unet_torch.UNet\n"
    )


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("report.pt", lambda path: path.write_text("mine"), "exists already"),
        ("folder", lambda path: path.mkdir(), "exists already"),
        ("no/report.json", lambda path: None, "does not exist; make it first"),
    ],
)
def test_a_report_never_replaces_anything_but_a_report(checkpoint, tmp_path, capsys, name, make, message):
    make(tmp_path / name)
    assert main(["verify", str(checkpoint), str(checkpoint), "--json", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("size", ["3x3", "4x8", "999999x999999"])
def test_a_size_that_cannot_be_used_is_refused(checkpoint, capsys, size):
    for package in ("torch", "jax", "matplotlib"):
        pytest.importorskip(package)
    assert main(["verify", str(checkpoint), str(checkpoint), "--size", size]) == 2
    assert capsys.readouterr().err.startswith("unet: size")


def test_an_interrupt_is_one_line(checkpoint, capsys, monkeypatch):
    def interrupted(path, hints):
        raise KeyboardInterrupt

    monkeypatch.setattr("conversion.inspection.inspect", interrupted)
    assert main(["inspect", str(checkpoint)]) == 130
    assert capsys.readouterr().err == "unet: interrupted\n"


def test_the_installed_command_answers(checkpoint):
    done = subprocess.run(
        [sys.executable, "-m", "unet_cli", "inspect", str(checkpoint)], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not re.search("Traceback|Warning", done.stderr)


@pytest.mark.parametrize(
    "arguments", [["--help"], pytest.param(["completion", "bash"], marks=pytest.mark.slow), ["bogus"]]
)
def test_a_pipe_that_nobody_reads_is_no_error(arguments):
    """As of a command that the system ends by SIGPIPE; `| head` then says nothing."""
    code = f"{sys.executable} -m unet_cli {' '.join(arguments)} 2>&1 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed_are_no_error(closed):
    code = f"{sys.executable} -m unet_cli --version {closed}; echo $? >&9"
    done = subprocess.run(["bash", "-c", f"exec 9>&1; {code}"], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def test_an_output_without_space_is_one_line(monkeypatch, capsys):
    def full():
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "flush", full)
        patch.setattr(os, "dup2", lambda *_: None)
        assert main(["--version"]) == 2
    assert capsys.readouterr().err == "unet: the system: no space left on device\n"


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "Connection reset")])
def test_a_connection_that_breaks_is_an_error(error, checkpoint, monkeypatch, capsys):
    """The control: of a pipe that is not the output."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("conversion.inspection.inspect", fail)
    assert main(["inspect", str(checkpoint)]) == 2
    assert capsys.readouterr().err == f"unet: the system: {error.strerror.lower()}\n"

"""By what a network is known: said in the last line, the file, the certificate and in JSON; and what nothing is."""

import dataclasses
import json

import pytest
from conftest import TINY, trained_tensors
from graphs import network, small

from unet_cli.main import main
from unet_core import UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.evidence import OURS, UNCHECKED, Evidence, by_dialect

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from foreign_unets import AttributeUNet, Milesial, trained

import unet_jax
import unet_torch
from conversion.backends.backend import runner_of_checkpoint
from conversion.proof.certificate import certificate_path
from conversion.proof.checks import Check
from conversion.proof.proof import agreement, verify_runners
from unet_jax import checkpoint as orbax
from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch

pytestmark = pytest.mark.usefixtures("one_thread")

SAID = ["--skip-first", "False", "--output", "sigmoid"]
"""Of `AttributeUNet`."""
EXAMPLE = Evidence("example", "pair.npz", "40x48, 1.3e-07 off")


@pytest.fixture
def generic(tmp_path, monkeypatch):
    """A network whose names no table has; the test runs beside it."""
    monkeypatch.chdir(tmp_path)
    torch.save(trained(AttributeUNet()).state_dict(), "a.pt")
    return tmp_path


def last(capsys):
    """The last line that was printed."""
    return capsys.readouterr().out.rstrip("\n").splitlines()[-1]


@pytest.mark.parametrize(
    ("evidence", "proves", "words"),
    [
        (OURS, True, "code: run against unet_torch.UNet"),
        (EXAMPLE, True, "example: run against the answer recorded in pair.npz (40x48, 1.3e-07 off)"),
        (by_dialect("milesial", stored=False), False, "names: those of milesial/Pytorch-UNet; a fork"),
        (by_dialect("generic", stored=True), False, "nothing: what the network computes is as somebody said"),
    ],
)
def test_it_is_one_of_four_and_two_of_them_prove(evidence, proves, words):
    assert str(evidence).startswith(words)
    assert evidence.proves is proves


def test_own_names_are_those_of_our_class_in_files_of_ours_alone():
    assert by_dialect("own", stored=True) == OURS
    assert by_dialect("own", stored=False).by == "names"


def test_a_files_evidence_comes_with_it(tmp_path):
    checkpoint = Checkpoint(TINY, trained_tensors(TINY), evidence=EXAMPLE)
    for name, module in (("a.pt", torch_file), ("a.safetensors", safetensors_file), ("a", orbax)):
        module.write(tmp_path / name, checkpoint)
        assert module.read(tmp_path / name).evidence == EXAMPLE
    assert unet_torch.load(tmp_path / "a.pt").evidence == EXAMPLE
    model = unet_jax.load(tmp_path / "a")
    unet_jax.save(model, tmp_path / "again")
    assert orbax.read(tmp_path / "again").evidence == EXAMPLE


def test_what_only_shapes_tell_is_refused_or_called_unchecked(generic, capsys):
    assert main(["convert", "a.pt", "b", *SAID]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert (
        "name its code (--module FILE.py:Class) or what that answered (--example FILE.npz); or say --unchecked" in err
    )
    assert main(["convert", "a.pt", "b", *SAID, "--unchecked", "--no-verify"]) == 0
    assert last(capsys) == "known by nothing: what the network computes is as somebody said, and was not checked"
    assert main(["convert", "b", "c.safetensors", "--no-verify"]) == 0, "that was said already"
    assert last(capsys).startswith("known by nothing")


@pytest.mark.usefixtures("small_graph_proof")
def test_what_is_unchecked_is_never_called_verified(generic, capsys):
    assert main(["convert", "a.pt", "b", *SAID, "--unchecked"]) == 0
    out = capsys.readouterr().out
    assert "verified" not in out
    assert "the networks agree with each other" in " ".join(out.split())
    assert not certificate_path(generic / "b").exists()
    assert main(["verify", "a.pt", "a.pt", *SAID, "--unchecked", "--json", "report.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "ALIKE: the networks agree with each other" in out
    assert out.endswith("known by nothing: what the network computes is as somebody said, and was not checked")
    report = json.loads((generic / "report.json").read_text())
    assert (report["equal"], report["evidence"]["by"]) == (True, "nothing")
    assert report["known_by"].startswith("nothing")


@pytest.mark.parametrize("command", ["predict", "train", "verify"])
def test_other_commands_refuse_it_too(generic, command, capsys):
    arguments = {
        "predict": ["a.pt", "x.png", "--out", "masks"],
        "train": ["--backend", "torch", "--data", "synthetic", "--out", "run", "--start", "a.pt", "--steps", "1"],
        "verify": ["a.pt", "a.pt"],
    }
    (generic / "x.png").write_bytes(b"")
    assert main([command, *arguments[command], *SAID]) == 2
    assert "say --unchecked" in capsys.readouterr().err


def test_inspect_says_it_and_refuses_nothing(generic, capsys):
    assert main(["inspect", "a.pt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["evidence"]["by"], found["known_by"]) == ("nothing", str(UNCHECKED))
    torch.save(trained(Milesial(3, 2, width=4)).state_dict(), "b.pt")
    assert main(["inspect", "b.pt"]) == 0
    assert "known by names: those of milesial/Pytorch-UNet; a fork" in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("small_graph_proof")
@pytest.mark.slow
def test_names_are_certified_as_names(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = trained_tensors(UNetConfig(3, 2, (3, 4)))
    torch.save({key: as_torch(value) for key, value in tensors.items()}, "a.pt")
    assert main(["convert", "a.pt", "b"]) == 0
    out = capsys.readouterr().out
    assert "verified" not in out
    assert out.splitlines()[-1] == f"known by {by_dialect('own', stored=False)}"
    certificate = json.loads((tmp_path / "b.certificate.json").read_text())
    assert certificate["evidence"] == {"by": "names", "source": "this project's UNet", "detail": ""}
    assert "are the same" not in certificate["verdict"]
    assert main(["verify", "--certificate", "b.certificate.json"]) == 0


def proven(checkpoint):
    """The proof of a network in both frameworks, on one small input."""
    return verify_runners(*(runner_of_checkpoint(checkpoint, name, "it") for name in ("torch", "jax")), size=(16, 12))


@pytest.mark.slow
def test_what_is_said_of_a_network_from_code_is_small():
    proof = proven(network())
    assert proof.equal
    assert proof.evidence.by == "code"
    assert proof.a.config.keys() == {"network", "graph"}
    assert len(proof.to_json()) < 10_000


def test_eval_mode_alone_is_said():
    checks = (Check("x", "eval logits", "float64", 0.0, 1e-12, "", None),)
    said = agreement("networks", checks, EXAMPLE, "its code could not be followed")
    assert said == (
        "the networks are the same, in eval mode alone (its code could not be followed): all 1 checks are within "
        "their budgets"
    )


@pytest.mark.parametrize("alone", [True, False])
def test_what_an_onnx_file_has_is_said_to_be_compared_in_eval_mode_alone(alone):
    made = Evidence("code", "a.onnx", eval_alone=alone)
    checks = (Check("x", "eval logits", "float64", 0.0, 1e-12, "", None),)
    said = agreement("networks", checks, made)
    mode = ", in eval mode alone (an ONNX file has no other; in training mode both agree with each other)" * alone
    assert said == f"the networks are the same{mode}: all 1 checks are within their budgets"


def test_a_network_without_a_training_mode_is_proven_in_eval_mode():
    proof = proven(network(dataclasses.replace(small(), untrained="its code branches")))
    assert {check.quantity for check in proof.checks} == {"eval logits"}
    assert "in eval mode alone (its code branches)" in proof.verdict

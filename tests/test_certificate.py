"""The certificate of a conversion: what is in it, that it comes and goes with its file, and that it notices changes."""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import by_examples, few, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_cli.main import main
from unet_core import CheckpointError, MissingFrameworkError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint, network_digest
from unet_core.files import sha256_of
from unet_core.version import VERSION

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("matplotlib")

from foreign_unets import AttributeUNet, trained

import conversion
from conversion import Certificate
from conversion.proof import confirmation
from conversion.proof.certificate import RUN, certificate_path, certify, party, read_certificate
from conversion.proof.checks import Check, Departure
from conversion.proof.confirmation import State, confirm
from conversion.proof.proof import NetworkSummary, Proof
from conversion.proof.samples import Input
from unet_core.checkpoints.contents import LONGEST_NAME
from unet_core.checkpoints.reading import NO_HINTS
from unet_jax import checkpoint as orbax
from unet_torch import checkpoint as torch_file

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = UNetConfig(2, 1, (3, 4))
NETWORK = Checkpoint(CONFIG, trained_tensors(CONFIG))
OTHER = Checkpoint(CONFIG, trained_tensors(CONFIG, seed=1))
WHEN = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)
WRITERS = {"b.pt": torch_file, "b.safetensors": safetensors_file, "b": orbax}
KINDS = {"b.pt": "PyTorch file", "b.safetensors": "safetensors file", "b": "Orbax directory"}


def a_proof(of=CONFIG, **changed):
    config = of.to_dict()
    sides = (
        NetworkSummary("/somewhere/a.pt", "torch", "cpu", {"torch": "2.13.0"}, config, {"tf32": False}),
        NetworkSummary(
            "/somewhere/b", "jax", "TPU v6e", {"jax": "0.10.2"}, config, {"x64": True, "precision": "highest"}
        ),
    )
    checks = (
        Check("random", "eval logits", "float64", 1e-16, 1e-12, "", None),
        Check("random", "gradients", "float32", float("inf"), None, "", float("nan")),
    )
    inputs = (Input.of("random", np.ones((1, 4, 4, 2), np.float32)),)
    proof = Proof(*sides, len(NETWORK.tensors), len(NETWORK.tensors), checks, None, inputs=inputs, seed=3)
    return dataclasses.replace(proof, **changed)


def certified(source, destination, hints=NO_HINTS, **changed):
    """A certificate of two files, of a proof that nobody made."""
    modules = {".pt": torch_file, ".safetensors": safetensors_file, "": orbax}
    read = {path: modules[path.suffix].read(path, hints) for path in (source, destination)}
    proof = a_proof(read[source].config, **changed)
    parties = [
        party(path, side, read[path], kind=KINDS[f"b{path.suffix}"], sha256=sha256_of(path))
        for path, side in ((source, proof.a), (destination, proof.b))
    ]
    return certify(proof, *parties, when=WHEN)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """For each kind, a file that was converted to it, and the certificate."""
    folder = tmp_path_factory.mktemp("pairs")
    for name, module in WRITERS.items():
        inner = folder / name
        inner.mkdir()
        torch_file.write(inner / "a.pt", NETWORK)
        module.write(inner / name, NETWORK)
        certificate_path(inner / name).write_text(certified(inner / "a.pt", inner / name).to_json())
    return folder


@pytest.fixture(params=WRITERS)
def pair(request, pairs, tmp_path):
    """A copy of one of them: the path of what was written."""
    return shutil.copytree(pairs / request.param, tmp_path / "pair") / request.param


@pytest.fixture
def kept(pairs, tmp_path):
    """A copy of the one with the `.safetensors`."""
    return shutil.copytree(pairs / "b.safetensors", tmp_path / "pair") / "b.safetensors"


@pytest.fixture
def passed(monkeypatch):
    """Every proof is passed, and takes no time."""
    for name in ("files.verify_runners", "scripts.verify_runners", "proof.confirmation.verify"):
        monkeypatch.setattr(f"conversion.{name}", lambda *given, **more: a_proof())


@pytest.fixture
def failed(monkeypatch):
    """No proof is passed."""
    departure = Departure("up1.conv.0", "eval logits", 0.1, None)
    for name in ("files.verify_runners", "proof.confirmation.verify"):
        monkeypatch.setattr(f"conversion.{name}", lambda *given, **more: a_proof(departure=departure))


def checked(path, capsys, *arguments):
    """The exit code of `unet verify --certificate`, and what is printed."""
    capsys.readouterr()
    code = main(["verify", "--certificate", str(path), *map(str, arguments)])
    return code, *(" ".join(text.split()) for text in capsys.readouterr())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_release_is_that_of_the_package():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["version"] == VERSION


@pytest.mark.usefixtures("small_proof")
def test_a_conversion_leaves_what_it_proved(tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    begun = datetime.now(UTC).replace(microsecond=0)
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b")]) == 0
    out = "".join(capsys.readouterr().out.splitlines())
    assert f"certificate: {tmp_path / 'b.certificate.json'}" in out
    assert "SAME" in out
    assert "verified" in out
    assert names(tmp_path) == ["a.pt", "b", "b.certificate.json"]
    text = (tmp_path / "b.certificate.json").read_text()
    found = json.loads(text)
    assert (found["schema"], found["version"], found["subject"]) == (2, VERSION, "networks")
    assert found["evidence"] == {"by": "code", "source": "unet_torch.UNet", "detail": ""}
    assert begun <= datetime.fromisoformat(found["when"]) <= datetime.now(UTC)
    assert str(tmp_path) not in text
    assert found["config"]["features"] == [3, 4]
    given, *neighbours = found["inputs"]
    assert all(" again, " in one["name"] for one in neighbours), "which a float32 check in doubt is judged on as well"
    assert given["shape"] == [3, 4, 4, 2]
    assert [(check["precision"], check["budget"]) for check in found["checks"]][:2] == [
        ("float64", 1e-12),
        ("float64", 1e-12),
    ]
    a, b = found["source"], found["destination"]
    assert (a["name"], a["kind"], b["name"], b["kind"]) == ("a.pt", "PyTorch file", "b", "Orbax directory")
    assert a["sha256"] == hashlib.sha256((tmp_path / "a.pt").read_bytes()).hexdigest()
    assert a["network"] == b["network"] == network_digest(NETWORK)
    assert a["flags"]["torch.backends.cudnn.allow_tf32"] is False
    assert b["flags"]["jax_default_matmul_precision"] == "highest"
    assert [b["flags"][f"jax_enable_x64 ({name})"] for name in ("float64", "float32")] == [True, False]
    assert b["versions"].keys() == {"jax", "flax"}
    assert checked(tmp_path / "b.certificate.json", capsys)[0] == 0


def test_the_digest_of_a_directory_is_what_standard_tools_make_of_it(pairs):
    command = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(command, shell=True, cwd=pairs / "b" / "b", capture_output=True, text=True, check=True)
    assert said.stdout.split()[0] == sha256_of(pairs / "b" / "b")


def test_a_network_has_one_digest_in_every_file(pairs):
    found = {network_digest(module.read(pairs / name / name)) for name, module in WRITERS.items()}
    assert found == {network_digest(NETWORK)}
    turned = {**NETWORK.tensors, "out.bias": np.nextafter(NETWORK.tensors["out.bias"], np.float32(9))}
    config = dataclasses.replace(CONFIG, align_corners=False)
    assert not found & {network_digest(Checkpoint(CONFIG, turned)), network_digest(Checkpoint(config, turned))}


def test_it_comes_back_from_its_text(pairs):
    certificate = certified(pairs / "b" / "a.pt", pairs / "b" / "b")
    for indent in (None, 1):
        back = Certificate.from_json(certificate.to_json(indent=indent))
        assert back.to_json() == certificate.to_json()
        assert np.isnan(back.checks[1].baseline)
    assert certificate.when == "2026-01-31T23:59:59Z"
    assert json.loads(certificate.to_json())["checks"][1]["error"] == "inf"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checks": (Check("random", "eval logits", "float64", 1e-3, 1e-12, "", None),)}, "over its budget: eval"),
        ({"checks": (Check("random", "loss", "float64", float("nan"), 1e-12, "", None),)}, "over its budget: loss"),
        ({"checks": ()}, "nothing was checked"),
        ({"inputs": ()}, "nothing was checked"),
    ],
)
def test_only_a_proof_that_was_passed_is_certified(pairs, changed, message):
    with pytest.raises(CheckpointError, match=f"b: what was proven cannot be certified: {message}"):
        certified(pairs / "b" / "a.pt", pairs / "b" / "b", **changed)


def test_only_one_network_is_certified(tmp_path):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    torch_file.write(tmp_path / "b.pt", OTHER)
    with pytest.raises(CheckpointError, match="the two files do not hold the same"):
        certified(tmp_path / "a.pt", tmp_path / "b.pt")


def test_the_files_of_a_certificate_are_confirmed(pair, capsys):
    code, out, err = checked(certificate_path(pair), capsys)
    assert (code, err) == (0, "")
    assert f"A: {pair.parent / 'a.pt'} (PyTorch file): the file that was proven, byte for byte" in out
    assert f"B: {pair} ({KINDS[pair.name]}): the file that was proven, byte for byte" in out
    assert out.endswith("CONFIRMED: both are what was proven")


def payload(path):
    """The largest file of a checkpoint."""
    return max((one for one in (path, *path.rglob("*")) if one.is_file()), key=lambda one: one.stat().st_size)


@pytest.mark.parametrize("which", ["A", "B"])
def test_a_flipped_bit_in_either_file_is_noticed(pair, which, capsys):
    file = payload(pair.parent / "a.pt" if which == "A" else pair)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    code, out, err = checked(certificate_path(pair), capsys)
    assert code in (1, 2)
    assert f"{which} is not what was proven" in out
    assert (err.count("unet: ") == 1) == (code == 2)
    assert out.count("the file that was proven, byte for byte") == 1, "the other file is as it was"


def test_every_flipped_bit_is_noticed(kept):
    data = kept.read_bytes()
    for place in np.random.default_rng(0).integers(len(data), size=30):
        kept.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert not confirm(certificate_path(kept)).confirmed
    kept.write_bytes(data)
    assert confirm(certificate_path(kept)).confirmed


def test_a_file_saved_anew_holds_the_same_network(pair, capsys):
    state = torch.load(pair.parent / "a.pt")
    torch.save(dict(state), pair.parent / "a.pt")  # without the record
    code, out, _ = checked(certificate_path(pair), capsys)
    assert code == 1
    assert "a.pt (PyTorch file): another file, but the network in it is the same, bit for bit" in out
    assert out.endswith("CHANGED: A is not what was proven")


def test_another_network_is_said_to_be_one(pair, capsys):
    shutil.rmtree(pair) if pair.is_dir() else pair.unlink()
    WRITERS[pair.name].write(pair, OTHER)
    code, out, _ = checked(certificate_path(pair), capsys)
    assert code == 1
    assert "another file: the network in it is another one" in out
    assert out.endswith("CHANGED: B is not what was proven")


def test_a_file_that_cannot_be_read_any_more_is_bad_input(pair, capsys):
    file = payload(pair)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    code, out, err = checked(certificate_path(pair), capsys)
    assert code == 2
    assert "byte for byte" in out, "the other is checked all the same"
    assert err.startswith(f"unet: {pair}")


def test_a_file_that_is_gone_is_said_and_the_other_checked(pair, capsys):
    (pair.parent / "a.pt").unlink()
    code, out, err = checked(certificate_path(pair), capsys)
    assert (code, err) == (1, "")
    assert "a.pt (PyTorch file): not there: deleted, renamed or elsewhere; name both files" in out
    assert out.count("byte for byte") == 1
    assert out.endswith("CHANGED: A is gone")


def test_files_that_were_moved_are_named(pair, tmp_path, capsys):
    moved = [tmp_path / "x.pt", tmp_path / f"y{pair.suffix}"]
    (pair.parent / "a.pt").rename(moved[0])
    pair.rename(moved[1])
    code, _, err = checked(certificate_path(pair), capsys)
    assert (code, "not there; name both files: --certificate" in err) == (2, True)
    assert checked(certificate_path(pair), capsys, *moved)[0] == 0
    assert checked(certificate_path(pair), capsys, moved[0], tmp_path / "z")[0] == 2


def test_what_was_said_of_another_projects_network_need_not_be_said_again(tmp_path):
    torch.save(trained(AttributeUNet()).state_dict(), tmp_path / "a.pt")
    hints = conversion.Hints(skip_first=False, output="sigmoid", align_corners=True, where_needed=True)
    checkpoint = torch_file.read(tmp_path / "a.pt", hints)
    assert checkpoint.dialect == "generic"
    path = tmp_path / "b.safetensors"
    safetensors_file.write(path, checkpoint)
    certificate_path(path).write_text(certified(tmp_path / "a.pt", path, hints).to_json())
    assert confirm(certificate_path(path)).confirmed
    with pytest.raises(CheckpointError, match="is the file that was proven, but read as another network"):
        confirm(certificate_path(path), hints=conversion.Hints(output="logits"))


def test_what_cannot_be_read_here_is_checked_by_its_bytes(kept, monkeypatch):
    def missing(path, hints):
        raise MissingFrameworkError("this needs PyTorch, which is not installed")

    monkeypatch.setattr(confirmation, "read", missing)
    found = confirm(certificate_path(kept))
    assert found.confirmed
    assert (found.a.state, found.a.detail) == (State.UNREAD, "this needs PyTorch, which is not installed")
    kept.write_bytes(kept.read_bytes() + b" ")
    with pytest.raises(MissingFrameworkError):
        confirm(certificate_path(kept))


def resealed(text, **changed):
    """Another text, with a seal that fits it."""
    fields = {**json.loads(text), **changed}
    fields.pop("seal")
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return json.dumps({**fields, "seal": hashlib.sha256(canonical.encode()).hexdigest()})


def within(part, **changed):
    return lambda text: resealed(text, **{part: {**json.loads(text)[part], **changed}})


def one_check(**changed):
    return lambda text: resealed(text, checks=[{**json.loads(text)["checks"][0], **changed}])


DAMAGED = {
    "empty": lambda text: "",
    "no JSON": lambda text: "certificate",
    "a list": lambda text: "[]",
    "cut": lambda text: text[: len(text) // 2],
    "NaN": lambda text: text.replace("1e-16", "NaN"),
    "infinite": lambda text: text.replace("1e-16", "1e999"),
    "deep": lambda text: "[" * 100_000,
    "a name twice": lambda text: text.replace('"seed": 3', '"seed": 3, "seed": 3'),
    "another error": lambda text: text.replace("1e-16", "1e-15"),
    "no seal": lambda text: json.dumps({**json.loads(text), "seal": None}),
    "a later schema": lambda text: resealed(text, schema=3),
    "an earlier schema": lambda text: resealed(text, schema=1),
    "no evidence": lambda text: resealed(text, evidence=None),
    "other evidence": within("evidence", by="faith"),
    "evidence that is none": within("evidence", by="nothing"),
    "a verdict that says more than the evidence": within("evidence", by="names"),
    "eval mode alone": lambda text: resealed(text, untrained="its code branches"),
    "a graph of no digest": lambda text: resealed(text, config={"network": "a network", "graph": "0" * 63}),
    "a graph and more": lambda text: resealed(text, config={"network": "a", "graph": "0" * 64, "more": 1}),
    "an odd schema": lambda text: resealed(text, schema="\x1b[31m"),
    "an unknown field": lambda text: resealed(text, more=1),
    "an unknown field within": within("source", more=1),
    "a missing field": lambda text: resealed(
        json.dumps({key: value for key, value in json.loads(text).items() if key != "inputs"})
    ),
    "a number for a name": within("source", name=3),
    "a path for a name": within("source", name="../../etc/passwd"),
    "no name": within("destination", name=""),
    "control characters": within("source", name="\x1b[31ma.pt"),
    "control characters in a version": within("source", versions={"torch\x1b": "2"}),
    "a long name": within("source", name="a" * (LONGEST_NAME + 1)),
    "another kind": within("source", kind="floppy disk"),
    "a step of no run": within("source", step=3),
    "a negative seed": lambda text: resealed(text, seed=-1),
    "an endless seed": lambda text: resealed(text, seed=10**40),
    "a bool for a number": lambda text: resealed(text, tensors=True),
    "no sha256": within("source", sha256="0" * 63),
    "no digest of the source": within("source", sha256=None),
    "no digest of the destination": within("destination", sha256=None),
    "two networks": within("source", network="0" * 64),
    "one training": within("source", training="0" * 64),
    "no time": lambda text: resealed(text, when="today"),
    "another verdict": lambda text: resealed(text, verdict="all is well"),
    "a failed check": one_check(error=1.0),
    "a check without an error": one_check(error=None),
    "a check that is not a number": one_check(error="nan"),
    "another precision": one_check(precision="float8"),
    "no config": lambda text: resealed(text, config={}),
    "a config of no network": within("config", features=[]),
    "an unhashable config": within("config", output=[]),
    "more alike than there are": lambda text: resealed(text, tensors=1),
    "too large": lambda text: text + " " * 1_000_001,
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_certificate_is_refused_in_one_line(name, kept, capsys):
    path = certificate_path(kept)
    text = path.read_text()
    damaged = DAMAGED[name](text)
    assert damaged != text
    path.write_text(damaged)
    assert main(["verify", "--certificate", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"unet: {path}: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert len(err) < 600


def test_a_resealed_certificate_alone_would_be_taken(kept):
    """The controls above fail for what was changed, not for how."""
    path = certificate_path(kept)
    path.write_text(resealed(path.read_text(), seed=4))
    assert confirm(path).confirmed


def test_a_certificate_of_an_earlier_release_is_read(kept):
    path = certificate_path(kept)
    fields = {key: value for key, value in json.loads(path.read_text()).items() if key not in ("evidence", "untrained")}
    earlier = resealed(json.dumps(fields), schema=1)
    path.write_text(earlier)
    certificate = confirm(path).certificate
    assert confirm(path).confirmed
    assert certificate.evidence is None
    assert json.loads(certificate.to_json()) == json.loads(earlier)


OBJECTS = {
    "nothing": (lambda path: path.unlink(), "no such file or directory"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is no certificate"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is no certificate"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe"), "it is no text"),
}


@pytest.mark.parametrize(("make", "message"), OBJECTS.values(), ids=OBJECTS)
def test_what_is_no_certificate_is_refused(make, message, kept, capsys):
    make(certificate_path(kept))
    code, _, err = checked(certificate_path(kept), capsys)
    assert (code, message in err) == (2, True)


def test_who_names_the_checkpoint_is_told_the_certificate(pairs, capsys):
    code, _, err = checked(pairs / "b" / "b", capsys)
    assert (code, f"is no certificate; name {pairs / 'b' / 'b.certificate.json'}" in err) == (2, True)


@by_examples(50, 150, st.data())
def test_no_mutated_certificate_says_anything_else(data):
    """Whatever happens to the text, it is refused or says what it said."""
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 20))
        text = (
            text[:start] + data.draw(st.text(max_size=4) | st.sampled_from(["1", '"', "{", "null", "-"])) + text[end:]
        )
    found, said = taken(text)
    assert said.isprintable()
    assert found is None or found.to_json() == TEXT


def taken(text):
    """The certificate, and what is said where there is none."""
    try:
        return Certificate.from_json(text), ""
    except CheckpointError as error:
        return None, str(error)


def a_text():
    """A certificate of no files."""
    proof = a_proof()
    parties = [
        party(Path(name), side, NETWORK, kind="PyTorch file", sha256="0" * 64)
        for name, side in (("a.pt", proof.a), ("b.pt", proof.b))
    ]
    return certify(proof, *parties, when=WHEN).to_json()


TEXT = a_text()


def values():
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    )


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(json.loads(TEXT).keys() - {"seal"})), values())
def test_other_values_under_a_right_seal_are_refused_in_one_line(name, value):
    found, said = taken(resealed(TEXT, **{name: value}))
    assert said.isprintable()
    assert found is None or type(value) is type(json.loads(TEXT)[name])


@pytest.mark.usefixtures("passed")
def test_a_safetensors_file_has_its_certificate_within(tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    done = conversion.convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    path = tmp_path / "b.safetensors"
    assert done.certificate.destination.sha256 == sha256_of(path)
    within = read_certificate(path)
    without = dataclasses.replace(done.certificate.destination, sha256=None)
    assert within.to_json() == dataclasses.replace(done.certificate, destination=without).to_json()
    code, out, _ = checked(path, capsys)
    assert (code, "holds the network that was proven, bit for bit" in out) == (0, True)

    from safetensors.torch import load_file

    found = load_file(path)
    assert found.keys() == NETWORK.tensors.keys()
    assert all(np.array_equal(value.numpy(), NETWORK.tensors[key]) for key, value in found.items())

    with safetensors_file._opened(path) as file:
        metadata = file.metadata()
    from safetensors.torch import save_file

    other = {key: value + 1 for key, value in found.items()}
    save_file(other, path, {key: value for key, value in metadata.items() if key != "unet_twins"})
    code, out, _ = checked(path, capsys)
    assert (code, "the network in it is another one" in out) == (1, True), "as another tool copies metadata"


@pytest.mark.usefixtures("passed")
def test_a_certificate_does_not_travel_into_the_next_file(tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    conversion.convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    for name in ("c.safetensors", "d.pt"):
        conversion.convert(tmp_path / "b.safetensors", tmp_path / name, verify=False)
    assert safetensors_file.stored_certificate(tmp_path / "c.safetensors") is None
    assert names(tmp_path) == ["a.pt", "b.safetensors", "b.safetensors.certificate.json", "c.safetensors", "d.pt"]
    code, _, err = checked(tmp_path / "c.safetensors", capsys)
    assert (code, "has no certificate in its metadata" in err) == (2, True)


@pytest.mark.usefixtures("passed")
@pytest.mark.parametrize("options", [["--no-verify"], ["--no-certificate"]], ids=str)
def test_no_certificate_is_written_where_none_is_asked_for(options, tmp_path):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b.safetensors"), *options]) == 0
    assert names(tmp_path) == ["a.pt", "b.safetensors"]
    assert safetensors_file.stored_certificate(tmp_path / "b.safetensors") is None


@pytest.mark.usefixtures("passed")
def test_force_replaces_the_certificate_too(pair, capsys):
    torch_file.write(pair.parent / "c.pt", OTHER)
    assert main(["convert", str(pair.parent / "c.pt"), str(pair), "--force"]) == 0
    assert "removed" not in capsys.readouterr().out
    assert read_certificate(certificate_path(pair)).source.name == "c.pt"
    assert checked(certificate_path(pair), capsys)[0] == 0


@pytest.mark.parametrize("left", [True, False], ids=["beside its file", "alone"])
def test_a_stale_certificate_is_removed_and_that_is_said(left, pair, capsys):
    if not left:
        shutil.rmtree(pair) if pair.is_dir() else pair.unlink()
    assert main(["convert", str(pair.parent / "a.pt"), str(pair), "--force", "--no-verify"]) == 0
    said = "".join(capsys.readouterr().out.splitlines())
    assert f"{certificate_path(pair)}: removed, for it was of what {pair.name} was before" in said
    assert names(pair.parent) == ["a.pt", pair.name]


def test_a_certificate_is_not_replaced_without_force(pair, capsys):
    shutil.rmtree(pair) if pair.is_dir() else pair.unlink()
    before = names(pair.parent)
    assert main(["convert", str(pair.parent / "a.pt"), str(pair), "--no-verify"]) == 2
    assert f"{certificate_path(pair)}: exists already" in capsys.readouterr().err
    assert names(pair.parent) == before


def everything(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("passed")
@pytest.mark.parametrize("force", [True, False], ids=["replacing", "new"])
@pytest.mark.parametrize(
    "place", few(["conversion.writing.sha256_of", "unet_core.files._replace"], "unet_core.files._replace")
)
def test_a_failure_in_between_leaves_all_as_it_was(place, force, pair, monkeypatch):
    if not force:
        shutil.rmtree(pair) if pair.is_dir() else pair.unlink()
        certificate_path(pair).unlink()
    torch_file.write(pair.parent / "c.pt", OTHER)
    before = everything(pair.parent)

    def full_disk(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, lambda *given: full_disk() if given[0].name == pair.name else "0" * 64)
    with pytest.raises(CheckpointError, match="not written: the disk is full"):
        conversion.convert(pair.parent / "c.pt", pair, force=force)
    assert everything(pair.parent) == before
    assert not [path for path in pair.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("failed")
def test_a_failed_proof_leaves_the_old_certificate(pair, capsys):
    torch_file.write(pair.parent / "c.pt", OTHER)
    before = everything(pair.parent)
    assert main(["convert", str(pair.parent / "c.pt"), str(pair), "--force"]) == 1
    assert everything(pair.parent) == before


def test_a_source_that_changes_while_it_is_read_is_not_certified(tmp_path, monkeypatch):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    digests = map("{:064}".format, itertools.count())
    monkeypatch.setattr("conversion.writing.sha256_of", lambda path: next(digests))
    with pytest.raises(CheckpointError, match=r"a\.pt: changed while it was read"):
        conversion.convert(tmp_path / "a.pt", tmp_path / "b.safetensors")
    assert names(tmp_path) == ["a.pt"]


@pytest.mark.usefixtures("passed")
def test_the_proof_is_made_again(kept, tmp_path, capsys):
    path, report = certificate_path(kept), tmp_path / "again.json"
    code, out, _ = checked(path, capsys, "--again", "--json", report)
    assert code == 0
    assert "SAME: the networks are the same" in out
    assert "on the very inputs of the certificate" in out
    assert out.endswith("CONFIRMED: both are what was proven")
    assert json.loads(report.read_text())["seed"] == 3
    assert "SAME" not in checked(path, capsys)[1]
    (kept.parent / "a.pt").unlink()
    assert checked(path, capsys, "--again")[0] == 2


@pytest.mark.usefixtures("failed")
def test_a_proof_that_fails_now_is_no_confirmation(kept, capsys):
    code, out, _ = checked(certificate_path(kept), capsys, "--again")
    assert (code, "CHANGED: the networks differ: up1.conv.0 departs first" in out) == (1, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["b.safetensors", "b"])
def test_a_proof_made_again_is_on_the_same_inputs(name, tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", NETWORK)
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / name)]) == 0
    code, out, _ = checked(tmp_path / f"{name}.certificate.json", capsys, "--again")
    assert (code, "on the very inputs of the certificate" in out) == (0, True)
    code, out, _ = checked(tmp_path / f"{name}.certificate.json", capsys, "--again", "--size", "8x8")
    assert (code, "on the very inputs of the certificate" in out) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "verify takes A and B, the two checkpoints; or --certificate FILE"),
        (["a.pt"], "verify takes A and B"),
        (["a.pt", "b", "--again"], "--again: is for --certificate"),
        (["a.pt", "--certificate", "c.json"], "name both files, A and B, or none of them"),
        (["--certificate", "c.json", "--size", "75x91"], "--size: with --certificate, no network runs; say --again"),
        (["--certificate", "c.json", "--seed", "2"], "--seed: is that of the certificate"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, message, capsys):
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def moved(cells, tmp_path_factory):
    """A run, and where it was moved to, with a certificate."""
    pytest.importorskip("grain")
    from test_converting_runs import RECIPE

    from conversion.training import train

    folder = tmp_path_factory.mktemp("moved")
    recipe = dataclasses.replace(RECIPE, steps=2, ema=None)
    train(folder / "run", backend="torch", data=cells, recipe=recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conversion.runs.verify_runs", lambda a, b, **more: a_proof(a.start.config, subject="trainings"))
        conversion.convert(folder / "run", folder / "new", to="jax")
    return folder


@pytest.fixture
def runs(moved, tmp_path):
    return shutil.copytree(moved, tmp_path / "runs")


def test_a_run_has_a_certificate(runs, capsys):
    path = runs / "new.certificate.json"
    found = read_certificate(path)
    assert found.subject == "trainings"
    assert (found.source.kind, found.source.name, found.destination.name) == (RUN, "run", "new")
    assert found.source.training == found.destination.training is not None
    assert (found.source.step, found.destination.step) == (2, 2)
    code, out, _ = checked(path, capsys)
    assert code == 0
    assert f"A: {runs / 'run'} (training run, step 2): the file that was proven, byte for byte" in out


def test_a_run_that_goes_on_is_the_one_that_was_proven_while_its_state_is_there(runs, capsys):
    (runs / "run" / "history.png").write_bytes(b"drawn since")
    assert checked(runs / "new.certificate.json", capsys)[0] == 0
    (runs / "run/states/000002.pt").rename(runs / "run/states/000003.pt")
    code, out, _ = checked(runs / "new.certificate.json", capsys)
    assert (code, "the run has no state of step 2 any more" in out) == (1, True)


def test_other_moments_are_another_training(runs, capsys):
    file = runs / "run/states/000002.pt"
    state = torch.load(file)
    state["optimizer"]["state"][0]["exp_avg"] += 1
    torch.save(state, file)
    code, out, _ = checked(runs / "new.certificate.json", capsys)
    assert (code, "the network in it is the same, bit for bit, but not the training beside it" in out) == (1, True)


@pytest.mark.usefixtures("passed")
def test_the_training_file_of_a_script_has_a_certificate(tmp_path, capsys):
    pytest.importorskip("optax")
    model = torch_file.from_checkpoint(NETWORK).train()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 2, 8, 8)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "a.pt")
    for src, dst, to in (("a.pt", "b", "jax"), ("b", "c.pt", "torch")):
        assert main(["convert", str(tmp_path / src), str(tmp_path / dst), "--to", to]) == 0
        code, out, _ = checked(tmp_path / f"{dst}.certificate.json", capsys)
        assert (code, out.count("byte for byte")) == (0, 2)
    saved = torch.load(tmp_path / "a.pt")
    saved["optimizer"]["state"][0]["exp_avg"] += 1
    torch.save(saved, tmp_path / "a.pt")
    code, out, _ = checked(tmp_path / "b.certificate.json", capsys)
    assert (code, "but not the training beside it" in out) == (1, True)

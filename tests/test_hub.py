"""The Hugging Face Hub, by its own client, against a server on the loopback."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from test_reference import failures

import conversion
from conversion.proof.certificate import certificate_path
from tests import hub_server
from unet_cli.main import main
from unet_core import objects
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.evidence import By, Evidence
from unet_core.checkpoints.foreign import shards
from unet_core.checkpoints.safetensors_file import read_tensors, write
from unet_core.errors import CheckpointError, StorageError
from unet_core.hub.card import Certified, card
from unet_core.hub.licenses import License
from unet_core.hub.pretrained import Pretrained
from unet_core.hub.pushing import CERTIFICATE
from unet_core.hub.store import WEIGHTS
from unet_core.paths import as_path
from unet_core.staging import at_hand
from unet_core.training.run import is_run

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
bars = pytest.importorskip("huggingface_hub.utils")

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")  # of its own uploads

ROOT = Path(__file__).parents[1]


class Elsewhere(BaseException):
    """A connection to another machine, which no code catches."""


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch):
    """Fails a test that would reach another machine."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connected(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            raise Elsewhere(address)
        return connect(self, address)

    def resolved(host, *rest, **how):
        if host not in ("127.0.0.1", "localhost", None):
            raise Elsewhere(host)
        return resolve(host, *rest, **how)

    monkeypatch.setattr(socket.socket, "connect", connected)
    monkeypatch.setattr(socket, "getaddrinfo", resolved)


@pytest.fixture(scope="session")
def hub_and_address():
    with hub_server.served() as served:
        yield served


@pytest.fixture
def hub(hub_and_address, monkeypatch, tmp_path):
    """An empty Hub, to which the real client goes, with an empty cache and a token."""
    hub, address = hub_and_address
    hub.__init__()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    monkeypatch.setattr(objects, "_WAITS", (0.01, 0.01))
    objects._system_of.cache_clear()
    bars.disable_progress_bars()  # as the command does, before it is imported
    yield hub
    bars.enable_progress_bars()
    objects._system_of.cache_clear()


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.safetensors"
    write(file, Checkpoint(TINY, trained_tensors(TINY)))
    return file


@pytest.fixture
def there(hub, own):
    """The commit of a repository with a network."""
    return hub.put("owner/name", {WEIGHTS: own.read_bytes(), "README.md": b"# ours"})


def refused(capsys, *command):
    """The one line with which a command ends."""
    assert main([str(word) for word in command]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_the_control_no_other_machine_is_reached():
    for reach in (
        lambda: socket.create_connection(("192.0.2.1", 80), 1),
        lambda: huggingface_hub.HfApi(endpoint="https://huggingface.co").model_info("a/b"),
    ):
        with pytest.raises(Elsewhere):
            reach()


@pytest.mark.parametrize("file", ["", f"/{WEIGHTS}"])
@pytest.mark.parametrize("revision", ["", "@main", "@commit"])
def test_a_network_of_the_hub_is_that_here(there, own, tmp_path, file, revision):
    address = f"hf://owner/name{revision.replace('commit', there)}{file}"
    done = conversion.convert(address, tmp_path / "back.safetensors", verify=False)
    assert str(done.src) == f"hf://owner/name@{there}{file}"
    back, first = read_tensors(tmp_path / "back.safetensors"), read_tensors(own)
    assert all(back[key].tobytes() == value.tobytes() for key, value in first.items())


def test_frameworks_load_from_the_hub(there, own):
    torch, _ = pytest.importorskip("torch"), pytest.importorskip("jax")
    import unet_jax
    import unet_torch

    theirs, ours = unet_torch.load("hf://owner/name").state_dict(), unet_torch.load(own).state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    there = dict(unet_jax.load(f"hf://owner/name/{WEIGHTS}").variables())
    for key, value in unet_jax.load(own).variables():
        np.testing.assert_array_equal(there[key][...], value[...])


def test_weights_in_several_files_are_read_and_other_programs_ones_are_left(hub, own, tmp_path):
    shards.write(tmp_path / "parts", Checkpoint(TINY, trained_tensors(TINY)), size=4000)
    files = {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()}
    assert len(files) > 2
    hub.put("owner/name", {**files, "pytorch_model.bin": b"not fetched"})
    assert conversion.inspect("hf://owner/name").tensors == len(trained_tensors(TINY))
    assert not any("pytorch_model.bin" in request for request in hub.requests)


def test_what_was_read_stays_what_it_was_when_the_repository_goes_on(there, hub, own):
    pinned = as_path("hf://owner/name").resolve()
    hub.put("owner/name", {WEIGHTS: b"something else"})
    with at_hand(pinned) as local:
        assert (local / WEIGHTS).read_bytes() == own.read_bytes()
    with at_hand(as_path("hf://owner/name")) as local:  # the control
        assert (local / WEIGHTS).read_bytes() == b"something else"


def test_the_commit_is_said_and_json_is_json(there, capsys):
    assert main(["inspect", "hf://owner/name"]) == 0
    assert f"hf://owner/name is at commit {there}" in capsys.readouterr().out
    assert main(["inspect", "hf://owner/name", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == f"hf://owner/name@{there}"


@pytest.mark.parametrize("revision", ["", "@commit"])
def test_the_cache_is_read_where_there_is_no_net(there, hub, monkeypatch, revision):
    address = f"hf://owner/name{revision.replace('commit', there)}"
    conversion.inspect("hf://owner/name")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    objects._system_of.cache_clear()
    hub.requests.clear()
    assert conversion.inspect(address).path == f"hf://owner/name@{there}"
    assert not hub.requests
    with pytest.raises(StorageError, match="hf://owner/other: is not in the cache"):
        conversion.inspect("hf://owner/other")


FAULTS = {
    "no token": (lambda hub: setattr(hub.repositories["owner/name"], "private", True), "no such repository, or none"),
    "gated": (lambda hub: setattr(hub.repositories["owner/name"], "gated", True), "is gated: accept its terms"),
    "gone": (lambda hub: hub.repositories.clear(), "no such repository, or none that you may see: log in"),
    "file": (lambda hub: hub.repositories["owner/name"].commits[-1][1].pop(WEIGHTS), "no such file"),
    "bytes": (
        lambda hub: hub.faults.update({"GET /owner/name/resolve": [bytes]}),
        "not those of the Hub's digest",
    ),
    "cut": (lambda hub: hub.faults.update({"GET /owner/name/resolve": ["cut"] * 99}), "does not answer as it should"),
    "busy": (lambda hub: hub.faults.update({"GET /api/models": [503] * 99}), "tried 3 times"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_is_one_line_and_nothing_is_written(there, hub, fault, capsys, tmp_path, monkeypatch):
    break_it, line = FAULTS[fault]
    break_it(hub)
    if fault == "no token":
        monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("time.sleep", lambda _: None)  # of the client
    before = sorted(tmp_path.iterdir())
    said = refused(capsys, "convert", f"hf://owner/name/{WEIGHTS}", tmp_path / "out.safetensors", "--no-verify")
    assert line in said
    assert "hf://owner/name" in said
    assert {path for path in tmp_path.iterdir() if path not in before} <= {tmp_path / "cache"}
    assert not list((tmp_path / "cache").rglob(WEIGHTS))


def test_a_revision_that_is_not_there_is_one_line(there, capsys):
    assert "has no revision v9" in refused(capsys, "inspect", "hf://owner/name@v9")


@pytest.mark.parametrize("fault", [503, "cut"])
def test_what_passes_is_asked_again(there, hub, fault, own, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.faults = {"GET /api/models": [503], "GET /owner/name/resolve": [fault]}
    with at_hand(as_path(f"hf://owner/name/{WEIGHTS}")) as local:
        assert local.read_bytes() == own.read_bytes()
    assert not any(hub.faults.values())


def test_bytes_in_the_cache_that_have_changed_are_found_and_fetched_anew(there, tmp_path):
    conversion.inspect("hf://owner/name")
    (cached,) = (tmp_path / "cache").rglob(f"snapshots/*/{WEIGHTS}")
    cached.write_bytes(bytes(reversed(cached.read_bytes())))
    with pytest.raises(StorageError, match="removed from the cache, try again"):
        conversion.inspect("hf://owner/name")
    conversion.inspect("hf://owner/name")


@pytest.mark.parametrize(
    "address", ["hf://name", "hf://datasets/owner/name", "hf://owner/name@", "hf://owner/name@a@b", "hf://owner/na me"]
)
def test_addresses_that_are_none(hub, address):
    with pytest.raises(StorageError, match="no repository of a model; give it as hf://owner/name"):
        conversion.inspect(address)


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "OWN", "hf://owner/new", "--no-verify"],
        ["export", "OWN", "hf://owner/new/net.onnx", "--no-verify"],
        ["verify", "OWN", "OWN", "--json", "hf://owner/new/proof.json"],
        ["predict", "OWN", "CELLS/images", "--out", "hf://owner/new/masks", "--backend", "torch"],
        ["train", "--backend", "torch", "--data", "CELLS", "--out", "hf://owner/new/run", "--steps", "1"],
        ["pack", "CELLS", "hf://owner/new/packed"],
        ["compare", "OWN", "OWN", "--out", "hf://owner/new/report"],
    ],
    ids=lambda command: command[0],
)
def test_nothing_but_push_writes_there(hub, own, cells, command, capsys):
    pytest.importorskip("torch")
    words = [word.replace("OWN", str(own)).replace("CELLS", str(cells)) for word in command]
    assert "unet push writes them" in refused(capsys, *words)
    assert not hub.repositories


def pushed(hub, name="owner/name"):
    return hub.repositories[name].commits[-1][1]


def metadata(card):
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load(card.decode().split("---\n")[1])


def test_a_push_is_one_commit_of_weights_config_and_card(hub, own, capsys):
    assert main(["push", str(own), "owner/name", "--license", "mit"]) == 0
    repository = hub.repositories["owner/name"]
    assert len(repository.commits) == 2  # that of the new repository is the first
    files = pushed(hub)
    assert set(files) == {".gitattributes", WEIGHTS, "config.json", "README.md"}
    assert metadata(files["README.md"])["license"] == "mit"
    assert metadata(files["README.md"])["pipeline_tag"] == "image-segmentation"
    assert b"There is no certificate" in files["README.md"]
    assert b"verified" not in files["README.md"]
    assert json.loads(files["config.json"])["unet_twins"]["config"]["features"] == [4, 6, 8]
    assert f"hf://owner/name@{repository.commits[-1][0]}" in capsys.readouterr().out
    assert conversion.inspect("hf://owner/name").digests


def test_a_licence_of_ones_own_has_a_name(hub, own):
    assert main(["push", str(own), "owner/name", "--license", "other", "--license-name", "my-own-1.0"]) == 0
    found = metadata(pushed(hub)["README.md"])
    assert (found["license"], found["license_name"]) == ("other", "my-own-1.0")


def test_the_same_again_is_no_commit_and_another_one_keeps_the_first(hub, own, tmp_path, capsys):
    push = ["push", str(own), "owner/name", "--license", "mit"]
    assert main(push) == main(push) == 0
    repository = hub.repositories["owner/name"]
    (_, (first, files)) = repository.commits
    assert f"has these very files, at commit {first}" in capsys.readouterr().out
    hub.put("owner/name", {"notes.txt": b"theirs"})
    write(own, Checkpoint(TINY, trained_tensors(TINY, seed=1)))
    assert main([*push, "--message", "better"]) == 0
    assert f"before, it was at {repository.commits[2][0]}" in capsys.readouterr().out
    assert repository.messages[-1] == "better"
    assert pushed(hub)["notes.txt"] == b"theirs"
    assert repository.at(first)[1] == files
    assert pushed(hub)[WEIGHTS] != files[WEIGHTS]


def test_a_dry_run_writes_the_same_files_and_asks_nobody(hub, own, tmp_path, capsys):
    push = ["push", str(own), "owner/name", "--license", "mit"]
    assert main([*push, "--dry-run", str(tmp_path / "look")]) == 0
    assert not hub.requests
    assert main(push) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "look").iterdir()}.items() <= pushed(hub).items()
    assert "exists already; give a new folder" in refused(capsys, *push, "--dry-run", tmp_path / "look")


@pytest.fixture
def quick_proof(monkeypatch):
    """Conversions with a proof that nobody made."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    from test_certificate import a_proof

    monkeypatch.setattr("conversion.files.verify_runners", lambda a, b, progress: a_proof(a.config))


@pytest.fixture
def certified(own, quick_proof):
    """A network with its certificate, as an Orbax directory."""
    conversion.convert(own, own.with_name("model_jax"))
    return own.with_name("model_jax")


def test_a_certificate_goes_along_and_holds_what_comes_back(hub, own, certified, tmp_path, capsys):
    assert main(["push", str(certified), "owner/name", "--license", "mit"]) == 0
    assert certificate_path(Path(WEIGHTS)).name == CERTIFICATE
    card = pushed(hub)["README.md"].decode()
    assert "The network was verified" in card
    assert "| eval logits | float64 |" in card
    verify = ["verify", "--certificate", f"hf://owner/name/{CERTIFICATE}", str(own), f"hf://owner/name/{WEIGHTS}"]
    assert main(verify) == 0
    hub.put("owner/name", {WEIGHTS: own.read_bytes()})  # the same network, and other bytes
    assert main(verify) == 1


@pytest.mark.parametrize("config", few([None, b'{"model_type": "bert"}'], b'{"model_type": "bert"}'))
def test_what_was_pushed_is_read_by_its_address(hub, own, tmp_path, config):
    conversion.push(own, "owner/name", license="mit")
    if config is not None:  # of another program
        hub.put("owner/name", {"config.json": config})
    conversion.convert("hf://owner/name", tmp_path / "back.safetensors", verify=False)
    assert read_tensors(tmp_path / "back.safetensors").keys() == read_tensors(own).keys()
    conversion.push("hf://owner/name", "owner/again", license="mit")
    assert pushed(hub, "owner/again")[WEIGHTS] == pushed(hub)[WEIGHTS]
    assert is_run(tmp_path) is False
    (tmp_path / "config.json").write_text("{}")
    assert is_run(tmp_path)  # the control


def test_a_certificate_of_other_bytes_is_not_pushed(hub, own, certified, tmp_path, capsys):
    write(own, Checkpoint(TINY, trained_tensors(TINY, seed=1)))
    conversion.convert(own, tmp_path / "other_jax", verify=False)
    certificate_path(certified).rename(certificate_path(tmp_path / "other_jax"))
    said = refused(capsys, "push", tmp_path / "other_jax", "owner/name", "--license", "mit")
    assert "is not of other_jax, which is another file: the network in it is another one" in said
    assert not hub.requests


def test_a_stale_certificate_goes_with_what_it_spoke_of(hub, own):
    hub.put("owner/name", {CERTIFICATE: b"{}"})
    conversion.push(own, "owner/name", license="mit")
    assert CERTIFICATE not in pushed(hub)


def test_where_it_came_from_is_in_the_certificate(there, own, tmp_path, quick_proof, capsys):
    done = conversion.convert("hf://owner/name", tmp_path / "back.safetensors")
    assert done.certificate.source.origin == f"hf://owner/name@{there}"
    path = certificate_path(tmp_path / "back.safetensors")
    assert main(["verify", "--certificate", str(path)]) == 1
    assert f"it was read from hf://owner/name@{there}" in capsys.readouterr().out
    assert main(["verify", "--certificate", str(path), done.certificate.source.origin, str(done.dst)]) == 0
    text = json.loads(path.read_text())
    text["source"]["origin"] = "hf://owner/name"
    path.write_text(json.dumps(text))
    assert "an address that is none" in refused(capsys, "verify", "--certificate", path)


CERTIFIED = Certified(
    "the networks are the same", "2026-01-31T23:59:59Z", "0.7.0", [("eval logits", "float64", 1e-16, 1e-12)]
)


@pytest.mark.parametrize("certified", [None, CERTIFIED])
@pytest.mark.parametrize("by", get_args(By))
def test_what_was_not_proven_is_not_called_verified(by, certified):
    evidence = Evidence(by, "their|Class", "to 1e-15")
    checkpoint = Checkpoint(TINY, trained_tensors(TINY), evidence=evidence)
    text = card("owner/name", checkpoint, license=License("mit"), certified=certified)
    assert ("The network was verified" in text) == (certified is not None and by in ("code", "example"))
    assert ("There is no certificate" in text) == (certified is None)
    assert ("| eval logits | float64 | 1.0e-16 | 1.0e-12 |" in text) == (certified is not None)
    assert f"By {by}" in text
    assert r"| code | their\|Class |" in text
    assert f"any size from {TINY.minimum_size}x{TINY.minimum_size} up" in text


@pytest.mark.slow
def test_a_real_certificate_is_proven_anew_on_the_hub(hub, own, small_graph_proof):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    conversion.convert(own, own.with_name("model_jax"))
    conversion.push(own.with_name("model_jax"), "owner/name", license="mit")
    found = conversion.confirm(f"hf://owner/name/{CERTIFICATE}", own, f"hf://owner/name/{WEIGHTS}", again=True)
    assert found.confirmed
    assert found.proof is not None


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["owner/name"], "license"),
        (["owner/name", "--license", "Apache License"], "give it as the Hub names it"),
        (["owner/name", "--license", "nosuch"], "repositories-licenses lists all), or other with --license-name"),
        (["owner/name", "--license", "other"], "other needs it"),
        (["owner/name", "--license", "mit", "--license-name", "mine"], "--license-name goes with other"),
        (["owner/name", "--license", "other", "--license-name", "Mine: all"], "give lower-case letters"),
        (["owner/name/file", "--license", "mit"], "give it as owner/name"),
        (["owner/taken", "--license", "mit", "--private"], "everybody may see it already"),
        (["owner/parts", "--license", "mit"], "holds weights in several files"),
    ],
)
def test_pushes_that_are_refused(hub, own, words, line, capsys):
    hub.put("owner/taken", {"README.md": b""})
    hub.put("owner/parts", {f"{WEIGHTS}.index.json": b"{}"})
    assert line in refused(capsys, "push", own, *words)
    assert not any("owner/name" in request for request in hub.requests)
    assert len(hub.repositories["owner/taken"].commits) == len(hub.repositories["owner/parts"].commits) == 1


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ({"POST /api/repos/create": [500] * 9}, "tried 3 times"),
        ({"PUT /upload": [403] * 9}, "access denied"),
        ({"/commit/": [412]}, "somebody else has pushed"),
        ({"POST /api/validate-yaml": [400]}, "Invalid metadata in README.md"),
        pytest.param({"/commit/": [500] * 9}, "tried 3 times", marks=pytest.mark.slow),
    ],
)
def test_a_push_that_breaks_leaves_what_was_there(hub, own, fault, line, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.put("owner/name", {WEIGHTS: b"earlier"})
    hub.faults = fault
    assert line in refused(capsys, "push", own, "owner/name", "--license", "mit")
    assert pushed(hub) == {WEIGHTS: b"earlier"}


@pytest.mark.parametrize("token", [None, "hf_another"])
def test_nothing_is_pushed_without_the_token(hub, own, token, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", token) if token else monkeypatch.delenv("HF_TOKEN")
    assert "log in by `hf auth login`" in refused(capsys, "push", own, "owner/name", "--license", "mit")
    assert not hub.repositories


def test_a_commit_whose_answer_is_busy_is_made_once(hub, own):
    hub.faults = {"/commit/": [503]}
    conversion.push(own, "owner/name", license="mit", private=True)
    assert len(hub.repositories["owner/name"].commits) == 2
    assert hub.repositories["owner/name"].private


@pytest.fixture(params=["unet_torch", "unet_jax"])
def twin(request):
    pytest.importorskip(request.param.removeprefix("unet_"))
    return __import__(request.param)


@pytest.mark.parametrize(
    ("twin", "place"),
    few(
        {f"{twin}-{place}": (twin, place) for twin in ("unet_torch", "unet_jax") for place in ("hub", "folder")},
        *("unet_torch-hub", "unet_jax-folder"),
    ),
    indirect=["twin"],
)
def test_networks_come_and_go_by_the_three_methods(hub, own, twin, tmp_path, place):
    model = twin.load(own)
    if place == "hub":
        name, commit = "owner/name", model.push_to_hub("owner/name", license="mit")
        assert commit == hub.repositories[name].commits[-1][0]
        assert type(twin.UNet.from_pretrained(name, revision=commit)) is twin.UNet
    else:
        name = tmp_path / "saved"
        model.save_pretrained(name)
        with pytest.raises(CheckpointError, match="exists already"):
            model.save_pretrained(name)
        model.save_pretrained(name, license="mit", force=True)
        assert conversion.inspect(name).digests
    back = twin.UNet.from_pretrained(name)
    twin.save(back, tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == own.read_bytes()


def test_the_example_of_the_reference_runs(hub):
    pytest.importorskip("torch")
    attempted, said = failures(Pretrained.push_to_hub, "push_to_hub")
    assert attempted == 3
    assert not said, said
    assert "owner/name" in hub.repositories


def test_what_the_page_shows_runs(hub, own, tmp_path, monkeypatch):
    """The lines of docs/hub.md in Python."""
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    monkeypatch.chdir(tmp_path)
    hub.put("owner/name", {WEIGHTS: own.read_bytes()})
    page = (ROOT / "docs" / "hub.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {})
    assert pushed(hub, "owner/tuned")[WEIGHTS] == own.read_bytes()
    assert hub.repositories["owner/tuned"].private
    with pytest.raises(StorageError, match="has no revision"):  # the control
        exec(code.replace('revision="main"', 'revision="other"'), {})


@pytest.mark.parametrize("twin", few(["unet_torch", "unet_jax"], "unet_torch"), indirect=True)
def test_another_class_is_named(hub, own, twin):
    conversion.push(own, "owner/name", license="mit")

    class Other(twin.UNet):
        pass

    with pytest.raises(CheckpointError, match=f"holds a UNet, not a Other: {twin.__name__}.UNet.from_pretrained"):
        Other.from_pretrained("owner/name")


def test_a_run_that_starts_from_the_hub_keeps_the_commit(there, cells, tmp_path):
    pytest.importorskip("torch")
    recipe = ["--steps", "1", "--batch", "2", "--crop", "16"]
    start = ["--start", "hf://owner/name", "--data", str(cells), "--out", str(tmp_path / "run")]
    assert main(["train", "--backend", "torch", *start, *recipe]) == 0
    config = tmp_path / "run" / "config.json"
    assert json.loads(config.read_text())["recipe"]["start"] == f"hf://owner/name@{there}"


def test_without_the_package_one_line_says_what_to_install(own, tmp_path):
    block = "import sys; sys.modules['huggingface_hub'] = None; from unet_cli.main import main; sys.exit(main())"
    words = [sys.executable, "-c", block]
    push = ["push", str(own), "owner/name", "--license", "mit"]
    done = subprocess.run([*words, *push], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "this needs huggingface_hub, which is not installed: pip install " in done.stderr
    assert "[hub]'" in done.stderr


@pytest.mark.slow
def test_the_command_goes_where_the_environment_says(hub, hub_and_address, own, tmp_path):
    environment = {
        "HF_ENDPOINT": hub_and_address[1],
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": hub_server.TOKEN,
    }
    for words in (["push", str(own), "owner/name", "--license", "mit"], ["inspect", "hf://owner/name"]):
        done = subprocess.run(
            [sys.executable, "-m", "unet_cli", *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert f"hf://owner/name@{hub.repositories['owner/name'].commits[-1][0]}" in done.stdout

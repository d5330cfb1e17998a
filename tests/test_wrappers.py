"""Where in a file the network lies: wrappers, training checkpoints, Lightning files, several networks."""

import json

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors

from unet_cli.main import main
from unet_core import CheckpointError
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.contents import WRAPPERS
from unet_core.checkpoints.reading import Hints

torch = pytest.importorskip("torch")

import unet_torch
from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch


def state_dict(seed=0):
    return {key: as_torch(value) for key, value in trained_tensors(TINY, seed).items()}


def prefixed(prefix, seed=0):
    return {f"{prefix}{key}": value for key, value in state_dict(seed).items()}


def optimiser_state():
    return {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4, 3, 3, 3)}},
        "param_groups": [{"lr": 1e-3, "params": [0]}],
    }


def inner(name):
    """Single layers in a wrapper of their own, as `torch.compile(layer)` leaves them."""
    return {
        key.replace(".conv.", f".{name}.conv.") if "down" in key else key: value for key, value in state_dict().items()
    }


LIGHTNING = {
    "epoch": 3,
    "global_step": 12,
    "pytorch-lightning_version": "2.5.0",
    "state_dict": {**prefixed("model."), "criterion.pos_weight": torch.ones(1)},
    "loops": {},
    "callbacks": {},
    "optimizer_states": [optimiser_state()],
    "lr_schedulers": [],
    "hyper_parameters": {"lr": 1e-3},
}

FILES = {
    "bare": (state_dict, "", ()),
    "DataParallel": (lambda: prefixed("module."), "module", ("module.",)),
    "torch.compile": (lambda: prefixed("_orig_mod."), "_orig_mod", ("_orig_mod.",)),
    "model": (lambda: prefixed("model."), "model", ("model.",)),
    "net": (lambda: prefixed("net."), "net", ("net.",)),
    "four, one in another": (
        lambda: prefixed("module._orig_mod.model.net."),
        "module._orig_mod.model.net",
        ("module.", "_orig_mod.", "model.", "net."),
    ),
    "in the other order": (
        lambda: prefixed("net.model._orig_mod.module."),
        "net.model._orig_mod.module",
        ("net.", "model.", "_orig_mod.", "module."),
    ),
    "one twice": (lambda: prefixed("module.module."), "module.module", ("module.", "module.")),
    "around single layers": (lambda: inner("_orig_mod"), "", ("..._orig_mod.",)),
    "a class of one's own": (lambda: prefixed("segmenter."), "segmenter", ("segmenter.",)),
    "state_dict": (lambda: {"state_dict": state_dict()}, "state_dict", ()),
    "model_state_dict": (
        lambda: {"epoch": 1, "model_state_dict": state_dict(), "optimizer_state_dict": optimiser_state()},
        "model_state_dict",
        (),
    ),
    "model, wrapped": (lambda: {"model": prefixed("module."), "args": None}, "model.module", ("module.",)),
    "ema alone": (lambda: {"ema": state_dict()}, "ema", ()),
    "ema two dicts deep": (lambda: {"ema": {"shadow": state_dict()}}, "ema.shadow", ()),
    "Lightning": (lambda: LIGHTNING, "state_dict.model", ("model.",)),
    "an average of weights": (
        lambda: {"n_averaged": torch.tensor(4), **prefixed("module.")},
        "module",
        ("module.",),
    ),
}


@pytest.mark.parametrize(("make", "key", "wrappers"), FILES.values(), ids=FILES)
def test_the_network_is_found(tmp_path, make, key, wrappers):
    torch.save(make(), tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt")
    assert found.config == TINY
    for name, value in trained_tensors(TINY).items():
        assert np.array_equal(found.tensors[name], value)
    assert (found.reading.key, found.reading.wrappers) == (key, wrappers)


@pytest.mark.parametrize(
    ("name", "legacy"), [("epoch=3.ckpt", False), ("model.pth.tar", False), ("weights.bin", True), ("weights", False)]
)
def test_a_file_of_another_suffix_is_told_by_its_content(tmp_path, name, legacy):
    torch.save(LIGHTNING, tmp_path / name, _use_new_zipfile_serialization=not legacy)
    assert unet_torch.load(tmp_path / name).config == TINY
    assert main(["inspect", str(tmp_path / name)]) == 0


def test_safetensors_of_another_suffix_too(tmp_path):
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(TINY, trained_tensors(TINY)))
    (tmp_path / "a.safetensors").rename(tmp_path / "a.data")
    assert unet_torch.load(tmp_path / "a.data").config == TINY


def test_what_is_left_behind_is_said(tmp_path, capsys):
    torch.save(LIGHTNING, tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b.safetensors"), "--no-verify"]) == 0
    out = capsys.readouterr().out
    assert "from state_dict.model" in out
    for part in (
        "criterion.pos_weight (1 tensor)",
        "optimizer_states (a list)",
        "global_step 12",
        "hyper_parameters (a dict)",
    ):
        assert part in out


SEVERAL = {"model": state_dict(0), "ema": prefixed("module.", 1), "optimizer": optimiser_state()}


@pytest.mark.parametrize(("key", "seed"), [(None, 0), ("model", 0), ("ema", 1), ("ema.module", 1)])
def test_one_of_several_networks_is_chosen(tmp_path, key, seed):
    torch.save(SEVERAL, tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt", Hints(key=key))
    assert np.array_equal(found.tensors["out.bias"], trained_tensors(TINY, seed)["out.bias"])


def test_the_choice_among_several_is_said(tmp_path, capsys):
    torch.save(SEVERAL, tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b.safetensors"), "--no-verify"]) == 0
    assert "from model; also there: ema.module (choose with --key)" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "a.pt"), "--json", "--key", "ema"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == "ema.module"


@pytest.mark.parametrize(
    "state",
    [
        {"generator": state_dict(0), "student": state_dict(1)},
        {**prefixed("first."), **prefixed("second.", 1)},
    ],
    ids=["dicts", "prefixes"],
)
def test_of_networks_under_unusual_keys_none_is_preferred(tmp_path, state):
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"holds several networks: .*; choose one with --key"):
        torch_file.read(tmp_path / "a.pt")


def test_a_key_under_which_nothing_lies_is_refused_with_those_there_are(tmp_path):
    torch.save(SEVERAL, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match=r"no network lies under the key modell; there are: ema, ema\.module, model"
    ):
        torch_file.read(tmp_path / "a.pt", Hints(key="modell"))


def test_tensors_that_become_one_without_their_wrapper_are_refused(tmp_path):
    torch.save(state_dict() | inner("_orig_mod"), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="the same tensors as others once wrappers are taken off"):
        torch_file.read(tmp_path / "a.pt")


def test_an_optimiser_alone_is_named_so(tmp_path):
    torch.save(optimiser_state(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="an optimiser's state and no network"):
        torch_file.read(tmp_path / "a.pt")


def test_a_tensor_too_many_beside_wrapped_ones_is_refused(tmp_path):
    """Inside the wrapper nothing is left behind: it would be a part of the network."""
    torch.save({**prefixed("module."), "module.head.weight": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"not of this network: head\.weight"):
        torch_file.read(tmp_path / "a.pt")


@pytest.mark.parametrize("key", ["down1.conv.0.weight", "up1.conv.4.running_var", "out.bias"])
def test_a_missing_tensor_is_named_under_a_wrapper_too(tmp_path, key):
    state = prefixed("module.")
    del state[f"module.{key}"]
    torch.save({"state_dict": state}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"missing: {key}"):
        torch_file.read(tmp_path / "a.pt")


def test_a_number_is_another_key_than_its_digits(tmp_path):
    """One would otherwise take the other's place unseen."""
    torch.save({**state_dict(), "3": torch.ones(1), 3: torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"not of this network: 3, \[3\]$"):
        torch_file.read(tmp_path / "a.pt")


MANY = {
    "dicts": lambda: {f"d{number}": {"weight": torch.ones(1, 1, 3, 3)} for number in range(1000)},
    "wrappers": lambda: {
        ".".join([*np.random.default_rng(number).choice(WRAPPERS, 8), "weight"]): torch.ones(1, 1, 3, 3)
        for number in range(1000)
    },
    "prefixes": lambda: {f"p{number}.down1.conv.0.weight": torch.ones(1, 1, 3, 3) for number in range(1000)},
}


@pytest.mark.parametrize("make", few(MANY, "prefixes"))
def test_a_thousand_places_are_not_looked_through(tmp_path, make):
    torch.save(make(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="in more dicts and wrappers than any checkpoint"):
        torch_file.read(tmp_path / "a.pt")

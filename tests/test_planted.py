"""Forks that keep every name of a network and compute something else: each is read right, or found and refused."""

import dataclasses
import functools

import numpy as np
import pytest
from conftest import few

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from forks import ARGUMENTS, FORKS, OF_THE_FAMILY, built, written

import conversion
from conversion.backends.backend import runner_of_checkpoint, runner_of_code
from conversion.code import Known, values_of
from conversion.containers import opened
from conversion.proof.proof import verify_runners
from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig
from unet_core.graph import Graph

pytestmark = pytest.mark.usefixtures("one_thread")

FOUND = {
    "none": {},
    "half-pixel corners": {"align_corners": False},
    "another epsilon": {"norm_epsilon": 1e-3},
    "no sigmoid": {"output": "logits"},
}
"""What an example shows of those that are of the family."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For each fork its code, its weights, and an answer that it gave."""
    made = tmp_path_factory.mktemp("forks")
    for fork in FORKS:
        code = written(fork, made)
        model = built(code)
        x = torch.randn(2, 3, 37, 45, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            answer = model(x)
        torch.save(model.state_dict(), code.with_suffix(".pt"))
        np.savez(code.with_suffix(".npz"), input=x.numpy(), output=answer.numpy())
    return made


def files(folder, fork):
    code = written(fork, folder)
    return code, code.with_suffix(".pt"), code.with_suffix(".npz")


def by_code(folder, fork):
    code, weights, _ = files(folder, fork)
    return opened(weights, Known(module=f"{code}:UNet", kwargs=values_of(ARGUMENTS.split())))


@pytest.fixture(scope="module")
def read(folder):
    """A fork, read from its code."""
    return functools.cache(lambda fork: by_code(folder, fork))


def answers(model, size, seed=2):
    """What the user's own module answers in float64, channels last; and to what."""
    x = np.random.default_rng(seed).standard_normal((1, *size, 3), np.float32)
    with torch.no_grad():
        found = model.double()(torch.from_numpy(x).double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return x, found.numpy()


ALL = few(FORKS.keys(), "LeakyReLU")


@pytest.mark.parametrize("fork", ALL)
def test_its_code_is_read_right(folder, read, fork):
    checkpoint = read(fork).checkpoint
    assert checkpoint.evidence.by == "code"
    assert isinstance(checkpoint.config, UNetConfig if fork in (*OF_THE_FAMILY, "nearest") else Graph)
    x, expected = answers(built(files(folder, fork)[0]), (50, 61))
    found = runner_of_checkpoint(checkpoint, "jax", "it").as_called().predict(x, "float64")
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("fork", few(OF_THE_FAMILY, "half-pixel corners", "no sigmoid"))
def test_an_example_finds_what_is_of_the_family(folder, fork):
    _, weights, pair = files(folder, fork)
    checkpoint = opened(weights, Known(example=pair)).checkpoint
    assert checkpoint.evidence.by == "example"
    told = {
        name: getattr(checkpoint.config, name) for name in ("align_corners", "skip_first", "output", "norm_epsilon")
    }
    assert told == {
        "align_corners": True,
        "skip_first": False,
        "output": "sigmoid",
        "norm_epsilon": 1e-5,
        **FOUND[fork],
    }
    x, expected = answers(built(files(folder, fork)[0]), (50, 61))
    found = runner_of_checkpoint(checkpoint, "jax", "it").as_called().predict(x, "float64")
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("fork", few([fork for fork in FORKS if fork not in OF_THE_FAMILY], "LeakyReLU"))
def test_an_example_refuses_what_is_not(folder, fork):
    _, weights, pair = files(folder, fork)
    with pytest.raises(
        CheckpointError, match=r"none answers what .* says; the nearest, .* off.*--module FILE.py:Class"
    ):
        opened(weights, Known(example=pair))


@pytest.mark.parametrize("fork", FORKS)
def test_names_alone_prove_nothing(folder, fork):
    evidence = opened(files(folder, fork)[1]).checkpoint.evidence
    assert (evidence.by, evidence.proves) == ("names", False)
    assert "a fork with the same names may compute something else: give --module or --example" in str(evidence)


def other(checkpoint, operation, **attributes):
    """The same network with an attribute of an operation changed everywhere."""
    graph = checkpoint.config
    nodes = tuple(
        dataclasses.replace(node, attributes={**node.attributes, **attributes}) if node.operation == operation else node
        for node in graph.nodes
    )
    return dataclasses.replace(checkpoint, config=dataclasses.replace(graph, nodes=nodes))


WRONG = {
    "LeakyReLU": ("leaky_relu", {"slope": 0.02}, "slope is 0.02 instead of 0.01"),
    "GroupNorm": ("group_norm", {"epsilon": 1e-3}, "epsilon is 0.001 instead of 1e-05"),
}


@pytest.mark.parametrize(
    "fork",
    few(list(WRONG), "LeakyReLU"),
)
def test_the_proof_against_the_code_fails_where_jax_is_given_something_else(read, fork):
    found = read(fork)
    operation, attributes, cause = WRONG[fork]
    wrong = runner_of_checkpoint(other(found.checkpoint, operation, **attributes), "jax", "B").as_called()
    proof = verify_runners(runner_of_code(found.live, found.checkpoint, "A"), wrong, size=(32, 41))
    assert not proof.equal
    first = next(node.name for node in found.checkpoint.config.nodes if node.operation == operation)
    assert proof.departure.layer == first
    assert proof.departure.cause == cause


def test_what_was_converted_by_names_is_not_what_the_code_computes(folder, capsys):
    code, weights, _ = files(folder, "half-pixel corners")
    target = folder / "by_names.pt"
    conversion.convert(weights, target, verify=False)
    named = ["--module", f"{code}:UNet", "--kwargs", *ARGUMENTS.split()]
    assert main(["verify", str(weights), str(target), *named, "--size", "16x16"]) == 1
    assert "DIFFERENT: the networks differ" in capsys.readouterr().out

"""Networks that others wrote, at small widths: read from their code, and proven against it in JAX."""

import pytest

pytest.importorskip("jax")
torch = pytest.importorskip("torch")

import foreign_networks

from benchmarks import networks
from benchmarks.public_networks import NETWORKS, built

QUICK = "nnunet.PlainConvUNet"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == QUICK else pytest.mark.long) for name in NETWORKS]
)
def test_it_is_proven_against_its_code(name):
    pytest.importorskip(NETWORKS[name].package)
    found = networks.prove(name)
    assert found.evidence.by == "code"
    tracks = any(key.endswith("running_mean") for key in built(name).state_dict())
    assert found.errors.keys() == networks.BUDGETS.keys() - (set() if tracks else {networks.STATISTICS})
    assert found.ok, found.errors


WITH_THE_TRAITS_OF_KNOWN_REPOSITORIES = (
    "AttentionGates",
    "Recurrent",
    "NestedSkips",
    "Unpadded",
    "CroppedFromBothEnds",
    "AveragePools",
    "Antialiased",
    "VGG",
    "Residual",
    "BranchOnSize",
    "Dropouts",
    "DropPath",
    "AttentionBlock",
    "Tied",
    "Volume",
)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "unchecked_shapes")
@pytest.mark.parametrize("name", WITH_THE_TRAITS_OF_KNOWN_REPOSITORIES)
def test_modules_of_every_kind_are_proven_against_their_code(name):
    import conversion

    module = foreign_networks.filled(getattr(foreign_networks, name)())
    errors = networks.errors_of(module, conversion.to_jax(module))
    assert errors.keys() >= networks.BUDGETS.keys() - {networks.STATISTICS}
    assert networks.within(errors), errors


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_another_momentum_is_seen_after_twenty_updates():
    import conversion

    pytest.importorskip(NETWORKS[QUICK].package)
    module = built(QUICK)
    apart = networks.updated(module, conversion.to_jax(module), momentum=0.89)
    assert apart > 1e3 * networks.BUDGETS[networks.UPDATED]

"""What a training runs on: devices, and this process among those that share the run; asked of the framework."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from conversion.backends.frameworks import needed
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.errors import ConfigError
from unet_core.training.opening import Machine
from unet_core.training.run import Backend
from unet_core.training.train_config import TrainConfig


@dataclass(frozen=True)
class Cluster:
    """The hosts on which JAX trains, where neither SLURM nor a TPU says so; see `unet_jax.training.hosts.started`."""

    hosts: int | None = None
    host: int | None = None
    coordinator: str | None = None


AS_STARTED = Cluster()
"""One process, unless SLURM or a TPU says otherwise."""


@contextmanager
def machine_of(
    backend: Backend, recipe: TrainConfig, mesh: str | None, cluster: Cluster = AS_STARTED
) -> Iterator[Machine]:
    """The devices of this machine, and the processes that share the training, until the end of the `with`.

    Args:
        backend: the framework.
        recipe: how to train.
        mesh: for JAX, as `unet_jax.training.mesh.device_mesh` takes it.
        cluster: for JAX; torchrun tells PyTorch.

    Raises:
        ConfigError: they do not fit the recipe, or are not the framework's.
        MissingFrameworkError: it is not installed.
    """
    if backend == "jax":
        meshes = needed("unet_jax.training.mesh")
        with needed("unet_jax.training.hosts").started(cluster.hosts, cluster.host, cluster.coordinator) as hosts:
            devices = meshes.device_mesh(recipe.batch, mesh)

            def check(network: Checkpoint) -> None:
                meshes.check_rows(devices, recipe, network.config)

            yield Machine(check, {"mesh": devices, "hosts": hosts}, hosts.index, hosts.wait)
        return
    if mesh is not None or cluster != AS_STARTED:
        raise ConfigError(f"--{'hosts' if mesh is None else 'mesh'} is for --backend jax")
    with needed("unet_torch.training.processes").started() as processes:

        def check(network: Checkpoint) -> None:
            processes.check(recipe, network.config)

        yield Machine(check, {"processes": processes}, processes.rank, processes.wait)

"""What a training runs on: devices, and this process among those that share the run; asked of the framework."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from conversion.backends.frameworks import importing
from unet_core.errors import ConfigError
from unet_core.progress import Progress
from unet_core.training.opening import Machine
from unet_core.training.recorder import Outcome
from unet_core.training.run import Backend, Run
from unet_core.training.train_config import TrainConfig


@runtime_checkable
class Trainer(Protocol):
    """`training.train.train` of either twin, which has its devices already."""

    def __call__(self, run: Run, /, *, progress: Progress) -> Outcome: ...


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
    backend: Backend, config: TrainConfig, mesh: str | None, cluster: Cluster = AS_STARTED
) -> Iterator[tuple[Machine, Trainer]]:
    """The devices of this machine and the processes that share the training, until the end of the `with`; what trains.

    Args:
        backend: the framework.
        config: how to train.
        mesh: for JAX, as `unet_jax.training.mesh.device_mesh` takes it.
        cluster: for JAX; torchrun tells PyTorch.

    Raises:
        ConfigError: they do not fit it, or are not the framework's.
        MissingFrameworkError: it is not installed.
    """
    if backend == "jax":
        with importing():
            from unet_jax.training import hosts, train
            from unet_jax.training import mesh as meshes
        with hosts.started(cluster.hosts, cluster.host, cluster.coordinator) as found:
            devices = meshes.device_mesh(config.batch, mesh)
            machine = Machine(
                lambda network: meshes.check_rows(devices, config, network.config),
                found.index,
                found.wait,
                divided=found.count > 1,
            )
            yield machine, partial(train.train, mesh=devices, hosts=found)
        return
    if mesh is not None or cluster != AS_STARTED:
        raise ConfigError(f"--{'hosts' if mesh is None else 'mesh'} is for --backend jax")
    with importing():
        from unet_torch.training.processes import started
        from unet_torch.training.train import train as train_in_torch
    with started() as processes:
        machine = Machine(lambda network: processes.check(config, network.config), processes.rank, processes.wait)
        yield machine, partial(train_in_torch, processes=processes)

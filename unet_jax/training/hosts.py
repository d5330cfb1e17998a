"""The processes that train one network together, one on every host of a TPU slice or a cluster: `jax.distributed`.

PyTorch has `unet_torch/training/processes.py`. Every host runs the same program on its own devices and on its own
part of each batch; what they have to agree on besides is here, and how they notice that one of them is gone.
"""

import importlib.util
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils
from jaxtyping import Shaped

from unet_core.device_errors import of_device
from unet_core.errors import ConfigError, RunError, UNetError, first_line
from unet_core.machine import tpu_chips
from unet_core.training.signals import Request
from unet_jax.training.leaving import leave, leave_at_exit
from unet_jax.training.rendezvous import is_own
from unet_jax.training.watch import Watch

_START = 120
"""Seconds in which all hosts have to be there."""
_HEARTBEAT = 20
"""Seconds after which JAX itself takes a silent host for dead, and ends this one."""
_SHUTDOWN = 15
"""Seconds that the first host to end waits for the others."""
_VERDICT = 10
"""Seconds for `Watch` to say which host is gone, after an exchange with it has failed."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Hosts:
    """This process among those that train together. The first one, 0, writes the history and tells."""

    index: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and tells."""
        return self.index == 0

    def wait(self) -> None:
        """Return once all have called it."""
        if self.count > 1:
            multihost_utils.sync_global_devices("wait")

    def all(self, holds: bool) -> bool:
        """Whether it holds on every host."""
        return bool(self.gathered(np.array(holds)).all())

    def gathered(self, part: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "hosts ..."]:
        """The parts of all hosts, in every bit, along a new first axis; they have the same shape and dtype."""
        if self.count == 1:
            return part[None]
        plain = np.frombuffer(part.tobytes(), np.uint8)  # JAX would make float32 of float64
        parts = np.asarray(multihost_utils.process_allgather(plain)).reshape(self.count, -1)
        return np.frombuffer(parts.tobytes(), part.dtype).reshape(self.count, *part.shape)

    def stops(self, step: int, request: Request) -> bool:
        """Whether to stop after this step, because one of the hosts was asked to.

        SIGTERM to any of them, which is also how a preemption is announced, goes through JAX's own service: it makes
        all agree on a step that none has passed. All have to ask after every step.
        """
        if self.count > 1 and multihost_utils.reached_preemption_sync_point(step):
            request.signal = request.signal or signal.SIGTERM
            return True
        return self.count == 1 and request.signal is not None


@contextmanager
def started(count: int | None = None, index: int | None = None, coordinator: str | None = None) -> Iterator[Hosts]:
    """All hosts of the training, until the end of the `with`; nothing of JAX may have run on a device before.

    Without arguments they are the tasks of a SLURM step, or the hosts of a TPU slice, where this process is one of
    several; otherwise it is alone. A host that ends before the others ends them too, within seconds, with a line on
    stderr that names it, and with exit code 2.

    Args:
        count: hosts; 1: this process is alone, whatever SLURM or a TPU says.
        index: which of them this one is, from 0 up.
        coordinator: where the first one listens, as NAME:PORT; the others reach it there.

    Raises:
        ConfigError: they are not all given, or make no sense.
        RunError: the others are not there within two minutes, or JAX cannot tell who they are.
    """
    _check(count, index, coordinator)
    if count == 1 or (count is None and not _is_one_of_several()):
        yield Hosts()
        return
    hosts = _brought_together(count, index, coordinator)
    if hosts.count == 1:
        yield hosts
        jax.distributed.shutdown()
        return
    watch = Watch(hosts.index, hosts.count)
    try:
        yield hosts
        hosts.wait()
    except JaxRuntimeError as error:
        leave_at_exit(2)
        if of_device(error):
            watch.failed(first_line(error))
            raise
        time.sleep(_VERDICT)  # in which the watch ends this process, if it was another host's end
        watch.failed(first_line(error))
        raise RunError(f"an exchange between the hosts has failed: {first_line(error)}") from error
    except BaseException as error:
        leave_at_exit(_code_of(error))
        watch.failed(first_line(error))
        raise
    watch.close()
    jax.distributed.shutdown()


def _brought_together(count: int | None, index: int | None, coordinator: str | None) -> Hosts:
    """This one among all of them, who then know each other; see `started`."""
    advice = f"start all of them within {_START} seconds, or give --hosts 1 to train on this one alone"
    late = threading.Timer(_START, leave, [f"the hosts are not all there: {advice}"])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=_START + _VERDICT,  # at which JAX would abort
            heartbeat_timeout_seconds=_HEARTBEAT,
            shutdown_timeout_seconds=_SHUTDOWN,
            coordinator_bind_address=_bound(coordinator) if index == 0 else None,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise RunError(f"the hosts do not find each other: {first_line(error)}; {advice}") from error
    finally:
        late.cancel()
    return Hosts(jax.process_index(), jax.process_count())


def _check(count: int | None, index: int | None, coordinator: str | None) -> None:
    if count is None or count == 1:
        if index or coordinator is not None:
            raise ConfigError("--host and --coordinator: are for --hosts 2 and more; give all three, or none")
        return
    if count < 1:
        raise ConfigError(f"--hosts {count}: give a whole number from 1 up")
    if index is None or coordinator is None:
        raise ConfigError(f"--hosts {count}: needs --host, the number of this one, and --coordinator NAME:PORT")
    if not 0 <= index < count:
        raise ConfigError(f"--host {index}: give a number from 0 to {count - 1}")
    name, _, port = coordinator.rpartition(":")
    if not (name and port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigError(
            f"--coordinator {coordinator}: give the first host's name and a free port of it, as node1:8476"
        )


def _bound(coordinator: str | None) -> str | None:
    """Where the first host's service of JAX listens: at the coordinator's address; None: where JAX would by itself.

    That is at every address of the host: where nobody says what the coordinator's is, and where the others know its
    name by another address than this host does: /etc/hosts may call it 127.0.1.1, or a router may stand between.
    """
    if coordinator is None or "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:  # which JAX itself reads
        return None
    name = coordinator.rpartition(":")[0].strip("[]")
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except OSError:
        return None  # JAX says what is wrong with it
    outer = {address for address in found if not address.startswith("127.") and address != "::1"}
    return coordinator if name in _LOOPBACK or any(map(is_own, outer)) else None


def _is_one_of_several() -> bool:
    """Whether SLURM has started several of this process; or there may be several, for this is the host of a TPU."""
    if "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return True
    allowed = os.environ.get("JAX_PLATFORMS", "tpu").split(",")
    return "tpu" in allowed and tpu_chips() > 0 and importlib.util.find_spec("libtpu") is not None


def _code_of(error: BaseException) -> int:
    """What the command ends with after this."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, UNetError | OSError | MemoryError) or of_device(error) else 1

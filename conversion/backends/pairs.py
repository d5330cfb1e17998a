"""A runner for each of two networks, whatever they are: files, live models, a network and its own conversion."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conversion.backends.backend import (
    Framework,
    Precision,
    Runner,
    Step,
    Tracer,
    backend_of,
    frameworks_of,
    other_framework,
    runner_of_checkpoint,
    runner_of_code,
)
from conversion.containers import Opened, opened
from unet_core.checkpoints.checkpoint import Checkpoint, file_names
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.config import UNetConfig
from unet_core.errors import UNetError
from unet_core.graph import Graph
from unet_core.graph.canonical import Tensors
from unet_core.graph.family import graph, renamed
from unet_core.paths import as_source

_TITLES: Mapping[Framework, str] = {"torch": "PyTorch", "jax": "JAX"}


def runners_of(a: Any, b: Any, hints: Hints = NO_HINTS) -> tuple[Runner, Runner]:
    """A runner for each of two networks: paths of checkpoints, torch modules, or JAX models.

    A `.safetensors` file belongs to no framework: it runs in the one that the other network does not run in, so that
    the twins meet; of two such files, the first runs in torch and the second in JAX. A torch module, or a file whose
    code is known, runs by its own code.

    Args:
        a, b: the networks.
        hints: what `a` does not tell, its code among that; all but `key` and `dialect` goes for `b` too, where that
            stores no config.

    Raises:
        UNetError: a checkpoint cannot be read or trusted, or a network is none of the three.
        MissingFrameworkError: a framework is not installed.
    """
    lent = dataclasses.replace(hints, key=None, dialect=None, where_needed=True)
    return paired(_opened(a, hints), _opened(b, lent), (str(a), str(b)))


def paired(a: Any, b: Any, names: tuple[str, str]) -> tuple[Runner, Runner]:
    """As `runners_of`, of live models and of what was opened already."""
    frameworks = frameworks_of(_framework_of(a), _framework_of(b))
    return together(*(_runner(*of) for of in zip((a, b), frameworks, names, strict=True)))


def converted(a: Any, hints: Hints = NO_HINTS) -> tuple[Runner, Runner]:
    """A runner of a network, and one of the same network in the other framework; arguments and errors as `runners_of`.

    A `.safetensors` file first runs in torch.
    """
    found = _opened(a, hints)
    first = _runner(found, _framework_of(found) or "torch", str(a))
    second = other_framework(first.framework)
    network = Checkpoint(first.config, dict(first.tensors), first.origin, evidence=first.evidence)
    return together(first, runner_of_checkpoint(network, second, f"{first.name}, in {_TITLES[second]}"))


def together(a: Runner, b: Runner) -> tuple[Runner, Runner]:
    """Both, made comparable.

    They return the same: what calling them returns, where one of them tells no logits. And where one of them
    was read from its code, the other is a graph, too, whose tensors go by the names that they came with.
    """
    if a.whole or b.whole:
        a, b = a.as_called(), b.as_called()
    by_code = [isinstance(runner.config, Graph) for runner in (a, b)]
    if by_code[0] == by_code[1]:
        return a, b
    other: Any = _Renamed(b if by_code[0] else a)
    return (a, other) if by_code[0] else (other, b)


class _Renamed:
    """A runner of a UNet of the family, as a graph whose tensors have their names in the project that it came from."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        config = runner.config
        assert isinstance(config, UNetConfig)
        own = file_names(config, runner.origin.dialect, runner.origin)
        self._names = {key: own.get(key, key) for key in runner.tensors}
        self.config = renamed(graph(config), self._names)
        self.tensors = self._named(runner.tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def with_tensors(self, tensors: Tensors) -> "_Renamed":
        canonical = {name: key for key, name in self._names.items()}
        return _Renamed(self._runner.with_tensors({canonical[name]: value for name, value in tensors.items()}))

    def as_called(self) -> "_Renamed":
        return _Renamed(self._runner.as_called())

    def step(self, x: np.ndarray, cotangent: np.ndarray, precision: Precision) -> Step:
        done = self._runner.step(x, cotangent, precision)
        return dataclasses.replace(done, gradients=self._named(done.gradients), statistics=self._named(done.statistics))

    def tracer(self, precision: Precision, *, training: bool) -> Tracer:
        twin = Checkpoint(self.config, self.tensors)
        return runner_of_checkpoint(twin, self.framework, self.name).tracer(precision, training=training)

    def _named(self, tensors: Tensors) -> dict[str, np.ndarray]:
        return {self._names[key]: value for key, value in tensors.items()}


def _opened(network: Any, hints: Hints) -> Any:
    return opened(as_source(network), hints) if isinstance(network, str | Path) else network


def _framework_of(network: Any) -> Framework | None:
    if isinstance(network, Opened):
        return network.framework
    bases = {base.__module__.split(".")[0] for base in type(network).__mro__}
    if "torch" in bases:
        return "torch"
    if "flax" in bases:
        return "jax"
    raise UNetError(f"a path, a torch module or a JAX model is needed, got {type(network).__name__}")


def _runner(network: Any, framework: Framework, name: str) -> Runner:
    if not isinstance(network, Opened):
        return backend_of(framework).runner_of(network, f"the {framework} model")
    if network.live is not None and framework == "torch":
        return runner_of_code(network.live, network.checkpoint, name)
    return runner_of_checkpoint(network.checkpoint, framework, name)

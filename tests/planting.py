"""Runners in PyTorch whose executor is at fault at one node."""

from unittest import mock

import numpy as np
import torch
from conftest import trained_tensors

from conversion.backends.torch_backend import TorchRunner
from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_torch import execution
from unet_torch.checkpoint import from_checkpoint

CONFIG = UNetConfig(2, 2, (6, 8))


def checkpoint(config=CONFIG, seed=0, **changed):
    return Checkpoint(config, {**trained_tensors(config, seed), **changed})


def in_torch(config=CONFIG, at=None, fault=None, runner=TorchRunner, **changed):
    """A network, of which one node computes something else.

    Args:
        config: of the network.
        at: the name of the node.
        fault: is given what the node computes, a function of inputs and, by their roles, tensors; then these.
        runner: the class.
        changed: tensors.
    """
    given = checkpoint(config, **{name.replace("__", "."): value for name, value in changed.items()})
    plain = execution._computed

    def computed(node, inputs, arrays, attributes, parts):
        def row(*inputs, **arrays):
            return plain(node, list(inputs), arrays, attributes, parts)

        if node.name != at:
            return row(*inputs, **arrays)
        run = attributes.get("run")
        return fault(row, *inputs, **arrays, **({"run": run} if run else {}))

    class Planted(runner):
        def tracer(self, precision, *, training):
            trace = super().tracer(precision, training=training)

            def patched(*given):
                with mock.patch.object(execution, "_computed", computed):
                    return trace(*given)

            return patched

    return (runner if at is None else Planted)(from_checkpoint(given), given, "B")


def by_moments(moments):
    """A fault of a BatchNorm: in training it normalises with moments that are not those that it tracks."""

    def fault(row, x, *, run, weight, bias, **tensors):
        y = row(x, weight=weight, bias=bias, **tensors)
        if not run.training:
            return y
        mean, variance = moments(x)
        return (x - mean) / torch.sqrt(variance + 1e-5) * weight[:, None, None] + bias[:, None, None]

    return fault


def transposed(name):
    """A kernel whose height and width are swapped."""
    value = trained_tensors(CONFIG)[f"{name}.weight"]
    return {f"{name}.weight": np.ascontiguousarray(value.swapaxes(2, 3))}

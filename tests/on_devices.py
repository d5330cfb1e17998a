"""A few updates by the JAX trainer's own functions on simulated devices, in a process of its own.

python tests/on_devices.py JOBS OUT, where JOBS is JSON: {"recipe": ..., "steps": ..., "jobs": {name: job}}; it may have
"graph", the JSON of a network, in place of the recipe. A job has the "mesh" (none: the first device alone), and may
have "parts" (of the batch, for BatchNorm), "forms": "default" (those that other platforms than a CPU compile) or
"strips" (each quarter of a picture's rows is an example of its own), "then": another mesh, on which the state is put at
the end, and "shared": whether it is written and read there as several hosts do. OUT/NAME.npz gets what came of it.
"""

import dataclasses
import json
import os
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import numpy as np
from conftest import trained_tensors
from graphs import trained
from jax import lax
from jax.sharding import AxisType, Mesh

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.graph import Graph
from unet_core.training.train_config import TrainConfig
from unet_jax.training.hosts import Hosts
from unet_jax.training.mesh import device_mesh
from unet_jax.training.shared_states import SharedStates
from unet_jax.training.step import (
    abstract_model,
    compiled,
    controls_of,
    host_arrays,
    host_network,
    new_state,
    placed,
    updater,
)

CHANNELS, CLASSES = 3, 2


def batches(recipe, steps):
    rng = np.random.default_rng(0)
    shape = (recipe.batch * recipe.accumulate, recipe.crop, recipe.crop)
    for _ in range(steps):
        labels = rng.integers(CLASSES, size=shape).astype(np.uint8)
        yield Batch(rng.random((*shape, CHANNELS), np.float32) + labels[..., None], labels)


def strips(part):
    """Each quarter of the rows as an example of its own, which does not see its neighbours'."""
    count, batch, height = part.shape[:3]
    return part.reshape(count, 4 * batch, height // 4, *part.shape[3:])


def first_device():
    return Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))


def shared(state, start, recipe, mesh):
    """The state as it is read, in parts, where it was written in parts."""
    with tempfile.TemporaryDirectory() as folder, SharedStates(Path(folder), 1, Hosts()) as states:
        states.keep(1, state, start)
        states._settle()
        found, state = states.restored(start, recipe, mesh)
    assert found == 1
    return state


def train(recipe, steps, job, graph=None):
    """Losses and norms, the state after the last step by its names, and bytes on each device."""
    if job.get("forms") == "default":
        lax.platform_dependent = lambda *operands, default, **_: default(*operands)
    recipe = dataclasses.replace(recipe, norm_parts=job.get("parts", 1))
    config = recipe.network(CHANNELS, CLASSES) if graph is None else Graph.from_json(graph)
    start = Checkpoint(config, (trained_tensors if graph is None else trained)(config, dtype=np.float64))
    mesh = device_mesh(recipe.batch, job["mesh"]) if job.get("mesh") else first_device()
    state = new_state(start, recipe, mesh)
    kept = jax.tree.leaves((state.params, state.slots, state.average))
    sizes = [sum(array.addressable_data(device).nbytes for array in kept) for device in range(mesh.size)]
    update = updater(recipe, abstract_model(start, recipe), mesh)
    if job.get("forms") == "strips":
        whole, update = update, jax.jit(lambda state, *both, controls: whole(state, *map(strips, both), controls))
        run = lambda state, batch, controls: update(state, *batch, controls=controls)  # noqa: E731
        arguments = 0
    else:
        program = compiled(update, state, recipe, mesh, CHANNELS)
        run = lambda state, batch, controls: program(state, *batch, controls)  # noqa: E731
        arguments = program.memory_analysis().argument_size_in_bytes
    values = []
    for step, batch in enumerate(placed(batches(recipe, steps), recipe, mesh)):
        state, value = run(state, batch, controls_of(recipe.part(step, []), recipe.renewal(step), mesh, step))
        values.append(np.asarray(value))
    if job.get("shared"):
        state = shared(state, start, recipe, mesh)
    tensors = host_network(state.params, state.stats, start).tensors
    arrays = host_arrays(state)
    if "then" in job:
        network = Checkpoint(config, tensors)
        state = new_state(network, recipe, device_mesh(recipe.batch, job["then"]), arrays)
        tensors, arrays = host_network(state.params, state.stats, network).tensors, host_arrays(state)
    found = {**tensors, **arrays}
    return {"values": np.array(values), "bytes": np.array(sizes), "arguments": np.array(arguments), **found}


def main(jobs, out):
    given = json.loads(jobs)
    recipe = TrainConfig.from_dict(given["recipe"])
    usual = lax.platform_dependent
    for name, job in given["jobs"].items():
        with jax.enable_x64(True):
            np.savez(Path(out) / f"{name}.npz", **train(recipe, given["steps"], job, given.get("graph")))
        lax.platform_dependent = usual


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Comparisons that never ran, with figures as real ones have them."""

import dataclasses
import math

import numpy as np

from conversion.diagnosis.trials import Trial
from unet_compare.findings import (
    Comparison,
    Cost,
    Curve,
    Divergence,
    Ladder,
    NetworkSummary,
    Picture,
    Row,
    Rung,
    Table,
    Trajectories,
)
from unet_compare.speed.plan import Candidate, Case
from unet_compare.speed.report import Environment, Found, Memory, judged
from unet_core.config import UNetConfig
from unet_core.data.synthetic import Synthetic
from unet_core.graph.family import graph

FEATURES = (4, 6, 8)
PARTS = ("weights", "statistics")
PASSES = ("eval", "training", "backward", "update")


def layers_of(config):
    """The names of the nodes, in forward order."""
    return [node.name for node in graph(config).nodes if node.name != "sigmoid"]


def table(rng, pass_, mode, layers, quantities, *, departs=None):
    """Errors that grow with the depth; from the layer `departs` on B is another network."""
    rows, gone = [], False
    for index, layer in enumerate(layers):
        gone = departs is not None and (layer == departs if mode == "isolated" else gone or layer == departs)
        depth = 1 if mode == "isolated" else 1 + index / 3
        for quantity, wanted in quantities.items():
            if layer.partition("#")[0].rpartition(".")[2] not in wanted:
                continue
            own = 6e-8 * depth * rng.uniform(0.7, 1.3)
            wide = 0.0 if mode == "isolated" and "pool" in layer else 1.5e-16 * depth * rng.uniform(0.7, 1.5)
            other = own * rng.uniform(0.55, 1.1)
            if gone:
                wide, other = (0.037 * rng.uniform(0.8, 1.2),) * 2
            rows.append(Row(layer, quantity, wide, 1e-12, own, other, math.inf if "grad" in quantity else 1.25 * own))
    return Table(pass_, mode, tuple(rows))


def tables(layers, *, departs=None, passes=PASSES):
    rng = np.random.default_rng(0)
    every = {"0", "1", "2", "3", "4", "5", "max_pool", "interpolate", "concatenate", "out"}
    convolutions = {"0", "1", "3", "4", "out"}
    forward = {"output": every}
    training = {"output": every, "running statistics": {"1", "4"}}
    backward = {"gradient of the output": every, "gradient of the parameters": convolutions}
    kinds = [
        (pass_, mode, order, quantities)
        for pass_, order, quantities in (
            ("eval", layers, forward),
            ("training", layers, training),
            ("backward", layers[::-1], backward),
        )
        for mode in ("cumulative", "isolated")
    ]
    kinds.append(("update", "isolated", layers, {"step of the parameters": convolutions}))
    return tuple(
        table(rng, pass_, mode, order, wanted, departs=departs)
        for pass_, mode, order, wanted in kinds
        if pass_ in passes
    )


def trajectories(steps=60, *, apart=False):
    rng = np.random.default_rng(1)
    at = np.arange(1, steps + 1)
    base = 0.12 + 0.6 * np.exp(-at / (steps / 4)) + 0.03 * rng.standard_normal(steps)
    found = []
    for number, role in enumerate(("A", "B", *["band"] * 4)):
        growth = np.minimum(2e-8 * 1.25 ** (at + rng.uniform(-2, 2)), 0.02 * (1 + 0.1 * number)) if number else 0 * at
        growth = growth * (1 + 0.2 * rng.random(steps)) + (apart and role == "B") * 0.05 * np.sqrt(at)
        loss = base * (1 + 0.3 * np.minimum(growth, 0.2) * rng.standard_normal(steps))
        norm = 0.4 + base * rng.uniform(0.8, 1.6, steps) * (1 + growth)
        dice = tuple((int(step), float(0.93 - base[step - 1] + growth[step - 1])) for step in at[9::10])
        framework = "jax" if role == "B" else "torch"
        numbers = (tuple(map(float, values)) for values in (loss, norm, growth, 0.3 * growth))
        found.append(Curve(role, framework, role, *numbers, dice))
    verdict = "B leaves the band after step 1." if apart else "B stays within the band for all 60 steps."
    where, of = "16 drawn pictures of cells", "one unit in the last place of every weight"
    limits = (tuple(4 * max(getattr(one, part)[step] for one in found[2:]) for step in range(steps)) for part in PARTS)
    return Trajectories(steps, 4, 96, 1e-3, where, of, tuple(found), 0.0, *limits, 1 if apart else None, verdict)


def ladder():
    rungs = [
        Rung(role, framework, precision, error, 0.9312 + dice, 0.8713 + dice, dice, dice, flipped)
        for precision, of_a, of_b, dice, flipped in (
            ("float64", 0.0, 7.5e-16, 0.0, 0),
            ("float32", 3.4e-7, 1.9e-7, 0.0, 0),
            ("bfloat16", 8.1e-3, 7.7e-3, -2.1e-4, 143),
        )
        for role, framework, error in (("A", "torch", of_a), ("B", "jax", of_b))
    ]
    return Ladder(8, 131072, tuple(rungs), {"tf32": "this device has no such units"})


def cost():
    cpu = {"platform": "cpu", "device": "cpu", "tf32": False}
    machine = {"cpu": "Example CPU", "cores": 2, "load": 0.1, "malloc": "", "all_cores": 2, "platform": "Linux"}
    versions = {"python": "3.11.9", "torch": "2.13.0+cpu", "jax": "0.10.2"}
    environment = Environment(machine, versions, {"torch": cpu, "jax": cpu})
    cases = []
    for case, seconds in ((Case("inference", 1, 256, 256), 0.9), (Case("training", 2, 128, 128), 1.7)):
        found = [
            Found(Candidate(name, words), tuple(scale * seconds * (1 + 0.03 * n) for n in range(3)), (5e10,) * 3,
                  ((None, None),) * 3, 4.2,
                  Memory(10**8, 2 * 10**8, 9 * 10**8), (1.0,))
            for name, words, scale in (("torch", ("compile", "channels_last"), 1.0), ("jax", ("ours",), 0.84))
        ]  # fmt: skip
        cases.append(judged(case, graph(UNetConfig(features=FEATURES)), found, {"jax:plain": "out of memory"}))
    return Cost(environment, tuple(cases), "Two rounds of two candidates.")


def _blurred(values, width):
    for axis in (0, 1):
        values = np.apply_along_axis(np.convolve, axis, values, np.full(width, 1 / width), "same")
    return values


def picture(number=0, size=64, *, apart=0.0, channels=3):
    image, truth = Synthetic(size=size, channels=channels).pair(number)
    rng = np.random.default_rng(number)
    inside = 12 * _blurred(truth.astype(float), size // 8) - 6 + rng.standard_normal(truth.shape) / 20
    a = (1 / (1 + np.exp(-inside))).astype(np.float32)
    b = (a + 6e-7 * a * (1 - a) * rng.standard_normal(a.shape) + apart * (a - np.roll(a, 2, 1))).astype(np.float32)
    return Picture(f"{number:03d}.png", image / 255, truth, a, b, 7.7e-7)


def faithful(features=FEATURES, steps=20, size=32, pictures=2, passes=PASSES):
    """Every part, and nothing departs."""
    config = UNetConfig(features=features)
    fields = dataclasses.asdict(config)
    parts = tables(layers_of(config), passes=passes)
    return Comparison(
        NetworkSummary("model.pt", "torch", "cpu", {"torch": "2.13.0+cpu"}, fields),
        NetworkSummary("model_jax", "jax", "cpu", {"jax": "0.10.2", "flax": "0.12.8"}, fields),
        tensors=64,
        identical=64,
        incomparable=None,
        divergence=Divergence("random 3x75x91", parts, None, None, None, None, (), None),
        trajectories=trajectories(steps),
        ladder=ladder(),
        cost=cost(),
        pictures=tuple(picture(number, size) for number in range(pictures)),
        notes=("No GPU was found: tf32 was left out.",),
        seconds=83.4,
    )


def different(layer="interpolate", passes=PASSES, **more):
    """The same, but that B's upsampling is another one from this layer on."""
    found = faithful(passes=passes, **more)
    names = [row.layer for row in found.divergence.tables[0].rows]
    trials = (
        Trial("half-pixel corners instead of align_corners", 3.1e-16, True),
        Trial("padded with zeros instead of resized", 0.021, False),
        Trial("[skip, upsampled] instead of [upsampled, skip]", 1.1, False),
    )
    cause = "the upsampling uses half-pixel corners instead of align_corners"
    parts = tables(names, departs=layer, passes=passes)
    return dataclasses.replace(
        found,
        b=dataclasses.replace(found.b, config={**found.b.config, "align_corners": False}),
        divergence=Divergence("random 3x75x91", parts, layer, "output", "float64", 0.037, trials, cause),
        trajectories=trajectories(len(found.trajectories.curves[0].loss), apart=True),
        pictures=tuple(picture(n, one.a.shape[0], apart=0.4) for n, one in enumerate(found.pictures)),
    )

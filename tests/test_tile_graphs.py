"""Exact tiles of any network that allows them, against the whole picture, in both frameworks in float64."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from graphs import small, trained
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unet_core import UNetConfig
from unet_core.graph import tiled
from unet_core.graph.family import graph as graph_of
from unet_core.graph.regions import reach
from unet_core.graph.scales import refusal, spreads, unit
from unet_core.graph.tiled import tile_plan

torch = pytest.importorskip("torch")

import foreign_networks
import foreign_unets
from torch import nn
from torch.nn import functional as F

import unet_torch
from unet_torch.execution import execute

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILY = {
    f"{upsampling}-{fit}-{'corners' if corners else 'centres'}": dataclasses.replace(
        TINY, upsampling=upsampling, fit=fit, align_corners=corners
    )
    for upsampling in ("bilinear", "transposed")
    for fit in ("resize", "pad")
    for corners in (True, False)
}


class Layers(nn.Module):
    """One layer after the other, and the picture's size again."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class Resized(nn.Module):
    """Down and up by interpolations."""

    def __init__(self, down, mode, **options):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.down, self.mode, self.options = down, mode, options

    def forward(self, x):
        y = self.down(self.first(x))
        return self.last(F.interpolate(y, x.shape[2:], mode=self.mode, **self.options))


class ChannelsLast(nn.Module):
    """LayerNorm of each point, with the channels last meanwhile."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.linear = nn.Conv2d(3, 4, 5, padding=2), nn.LayerNorm(4), nn.Linear(4, 4)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        y = self.linear(self.norm(self.first(x).permute(0, 2, 3, 1)))
        return self.last(F.gelu(y).permute(0, 3, 1, 2)) * x.mean(1, keepdim=True)


def logarithms():
    """Beyond the end of a map lies what is no number."""
    return Layers(nn.Conv2d(3, 4, 3, padding=1), Logarithm(), nn.Conv2d(4, 2, 3, padding=1))


class Logarithm(nn.Module):
    def forward(self, x):
        return torch.log(x * x / (x * x).sum(1, keepdim=True) + 1e-3)


MODULES = {
    "gates": foreign_networks.AttentionGates,
    "recurrent": foreign_networks.Recurrent,
    "nested": foreign_networks.NestedSkips,
    "unpadded": foreign_networks.Unpadded,
    "cropped": foreign_networks.CroppedFromBothEnds,
    "antialiased": foreign_networks.Antialiased,
    "VGG": foreign_networks.VGG,
    "milesial": lambda: foreign_unets.Milesial(3, 2, True, width=2),
    "logarithms": logarithms,
    "channels last": ChannelsLast,
    "reflect": lambda: Layers(
        nn.Conv2d(3, 4, 7, padding=3, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, 2, padding=1, padding_mode="replicate"),
        nn.ConvTranspose2d(4, 2, 3, 2, 1, 1),
    ),
    "transposed": lambda: Layers(
        nn.Conv2d(3, 4, 5, 4, 2), nn.ReLU(), nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ConvTranspose2d(4, 2, 3, 2, 1, 1)
    ),
    "pools": lambda: Layers(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Conv2d(4, 8, 3, padding=2, dilation=2),
        nn.PixelShuffle(2),
        nn.Conv2d(2, 2, 3, padding=1),
    ),
    "pixels": lambda: Layers(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3, padding=1), nn.PixelShuffle(2)),
    "not square": lambda: Layers(nn.Conv2d(3, 4, (3, 5), (2, 1), (1, 2)), nn.Conv2d(4, 2, (1, 7), (1, 3), (0, 3))),
    "average, cubic": lambda: Resized(nn.AvgPool2d(2), "bicubic", align_corners=False),
    "by four": lambda: Resized(nn.Conv2d(4, 4, 4, 4), "bilinear", align_corners=True),
    "nearest": lambda: Resized(nn.MaxPool2d(2), "nearest"),
    "exact": lambda: Resized(nn.MaxPool2d(2), "nearest-exact"),
    "1.5": lambda: Resized(nn.Upsample(scale_factor=1.5, mode="bilinear"), "bilinear", antialias=True),
}


EVEN = ("nested", "pixels")
"""These take no odd sizes."""


@functools.cache
def read(name):
    """The graph of one of the modules, and its tensors in float64."""
    module = foreign_networks.filled(MODULES[name]()).double().eval()
    reading = unet_torch.read(module, (24, 24), channels=3, sizes=[] if name in EVEN else [(25, 31)])
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return reading.graph, {key: value.detach().numpy() for key, value in tensors.items()}


def family(config):
    return graph_of(config), trained_tensors(config, dtype=np.float64)


def in_torch(graph, tensors, x):
    arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in tensors.items()}
    with torch.inference_mode():
        return execute(graph, arrays, torch.from_numpy(x), until=graph.logits).answer.numpy()


@functools.cache
def jitted(graph):
    import jax

    from unet_jax.execution import execute

    return jax.jit(lambda tensors, x: execute(graph, tensors, x, until=graph.logits).answer)


def in_jax(graph, tensors, x):
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        return np.moveaxis(np.asarray(jitted(graph)(tensors, np.moveaxis(x, 1, -1))), -1, 1)


def starts(graph, size, tile, axis, less=0):
    """The first pixels of the tiles, and how much of their beginnings and ends does not count."""
    before, after = reach(graph, size)[axis]
    before -= less
    if tile[axis] >= size[axis]:
        return (0,), before, after
    step = tile[axis] - before - after
    assert step > 0, (tile, before, after)
    return tuple(range(0, size[axis] - tile[axis] + step, step)), before, after


def stitched(graph, tensors, x, tile, execute, plan=None, less=0):
    size, whole = x.shape[2:], None
    plan = plan or tile_plan(graph, size, tile)
    rates, answered = spreads(graph)[graph.nodes[-1].name].rates, graph.answered(size)
    lines = [starts(graph, size, tile, axis, less) for axis in (0, 1)]
    for start in itertools.product(lines[0][0], lines[1][0]):
        part = np.zeros((*x.shape[:2], *tile))
        seen = x[:, :, start[0] : start[0] + tile[0], start[1] : start[1] + tile[1]]
        part[:, :, : seen.shape[2], : seen.shape[3]] = seen
        answer = execute(plan.graph, {**tensors, **plan.tensors(start, double=True)}, part)
        if whole is None:
            whole = np.full((*answer.shape[:2], *answered), np.nan)
        places = []
        for axis, (firsts, before, after) in enumerate(lines):
            base = int(start[axis] * rates[axis])
            first = 0 if start[axis] == 0 else int(before * rates[axis])
            end = int((tile[axis] - after) * rates[axis]) if start[axis] != firsts[-1] else answered[axis] - base
            places.append((slice(first, end), slice(base + first, base + end)))
        (rows, high), (columns, wide) = places
        whole[:, :, high, wide] = answer[:, :, rows, columns]
    return whole


def picture(graph, size):
    return np.random.default_rng(sum(size)).standard_normal((1, graph.in_channels, *size))


def error(found, expected):
    return np.abs(found - expected).max() / np.ptp(expected)


def tiles(graph, size, more=1):
    """Tiles that move on by `more` units."""
    (top, bottom), (left, right) = reach(graph, size)
    return top + bottom + more * unit(graph), left + right + (more + 1) * unit(graph)


def check(graph, tensors, size, tile, execute=in_torch):
    x = picture(graph, size)
    return error(stitched(graph, tensors, x, tile, execute), in_torch(graph, tensors, x))


SLOWER = ("nested", "VGG", "milesial", "recurrent", "gates", "pixels", "antialiased", "unpadded")


@pytest.mark.parametrize("name", few(list(MODULES), *(name for name in MODULES if name not in SLOWER)))
@pytest.mark.parametrize("sizes", few({"one": (((96, 120), (97, 123)),), "other": (((48, 168), (47, 160)),)}, "one"))
def test_tiles_of_any_network_are_the_whole_picture(name, sizes):
    graph, tensors = read(name)
    assert not refusal(graph)
    size = sizes[name not in EVEN]
    small, large = tiles(graph, size, 24 // unit(graph)), (168 // unit(graph) * unit(graph),) * 2
    for tile in (small, large, (small[0], large[1])):
        assert check(graph, tensors, size, tile) < 1e-12


@pytest.mark.parametrize("name", FAMILY)
def test_tiles_of_the_family_are_the_whole_picture(name):
    graph, tensors = family(FAMILY[name])
    for size in ((101, 87), (4, 130), (83, 64)):
        assert check(graph, tensors, size, (64, 68)) < 1e-12
    assert unit(graph) == 4


@given(st.sampled_from(list(FAMILY.values())), st.integers(4, 90), st.integers(4, 90), st.integers(1, 6))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_and_tile(config, height, width, more):
    graph, tensors = family(dataclasses.replace(config, features=(2, 2, 2)))
    assert check(graph, tensors, (height, width), tiles(graph, (height, width), more)) < 1e-12


@pytest.mark.parametrize("name", few(["reflect", "pools", "average, cubic", "VGG", "cropped"], "reflect", "pools"))
def test_jax_answers_the_same(name):
    graph, tensors = read(name)
    size = (49, 41)
    assert check(graph, tensors, size, tiles(graph, size, 24 // unit(graph)), in_jax) < 1e-12


@pytest.mark.parametrize("name", few(["bilinear-resize-corners", "transposed-pad-centres"], "bilinear-resize-corners"))
def test_jax_answers_the_same_in_the_family(name):
    graph, tensors = family(FAMILY[name])
    assert check(graph, tensors, (75, 61), (68, 64), in_jax) < 1e-12


def test_what_leaves_something_out_is_seen():
    """The controls: less of the surroundings, or no masks, or weights of another place."""
    graph, tensors = family(TINY)
    size, tile = (101, 87), (64, 68)
    x, plan = picture(graph, size), tile_plan(graph, size, tile)
    whole = in_torch(graph, tensors, x)
    assert error(stitched(graph, tensors, x, tile, in_torch, plan), whole) < 1e-12
    assert error(stitched(graph, tensors, x, tile, in_torch, plan, less=8), whole) > 1e-9

    def other(wrong, of_ends):
        def changed(make):
            return (lambda *where: wrong(make(*where)).copy()) if (make(0, True).shape == (2,)) == of_ends else make

        makers = tuple({name: changed(make) for name, make in part.items()} for part in plan.makers)
        return dataclasses.replace(plan, makers=makers)

    for wrong in (other(lambda ends: ends + 2, True), other(lambda taps: taps[::-1], False)):
        assert error(stitched(graph, tensors, x, tile, in_torch, wrong), whole) > 1e-3


def test_the_reach_is_hardly_more_than_it_must_be():
    """In pixels of the finest map; tiles begin at multiples of 16."""
    size = (5000, 4001)
    assert reach(graph_of(UNetConfig()), size) == ((128, 128),) * 2
    assert reach(graph_of(UNetConfig(upsampling="transposed", fit="pad")), size) == ((96, 96),) * 2


@pytest.mark.parametrize("name", FAMILY)
def test_one_graph_serves_tiles_of_all_pictures(name):
    graph = graph_of(FAMILY[name])
    plans = [tile_plan(graph, size, (64, 80)) for size in ((100, 130), (117, 98), (40, 37), (61, 200))]
    assert len({plan.graph for plan in plans}) == 1
    assert all(plan.graph == plans[0].graph for plan in plans)
    assert plans[0].tensors((0, 24)).keys() == plans[1].tensors((24, 0)).keys()


def test_a_picture_as_large_as_the_tile_needs_nothing_of_it():
    graph = graph_of(TINY)
    plan = tile_plan(graph, (64, 80), (64, 80))
    assert plan.graph is graph
    assert plan.tensors((0, 0)) == {}


def test_a_pass_costs_no_more_operations_than_the_network():
    """Beside one mask before each convolution: our networks are as fast in tiles as at once."""
    graph = graph_of(TINY)
    plan = tile_plan(graph, (100, 130), (64, 80))
    more = [node.operation for node in plan.graph.nodes if node.operation not in {n.operation for n in graph.nodes}]
    assert set(more) == {"inside"}
    assert len(plan.graph.nodes) - len(graph.nodes) == len(more)
    assert len(more) < sum(node.operation == "convolution" for node in graph.nodes)


class Transposed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        y = self.conv(x)
        return y + y.mean((2, 3), keepdim=True)


REFUSED = {
    "group_norm": (lambda: small(), "node bottom.1, group_norm: it draws on the whole map at once"),
    "mean": (
        lambda: unet_torch.read(Transposed(), (8, 8)).graph,
        r"node mean, mean: it draws on the whole map at once",
    ),
    "circular": (
        lambda: unet_torch.read(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"), (8, 8)).graph,
        "pad: it pads with the other end of the map",
    ),
    "average": (
        lambda: (
            unet_torch.read(Layers(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(3, 2, 1)), (8, 8)).graph
        ),
        "average_pool: it divides by another number at the border",
    ),
    "squeeze": (
        lambda: unet_torch.read(foreign_networks.Residual().eval(), (32, 32)).graph,
        "adaptive_average_pool: it draws on the whole map at once",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_draws_on_the_whole_map_is_refused_by_its_name(name):
    make, message = REFUSED[name]
    found = refusal(make())
    assert message in found
    assert "\n" not in found


def test_a_new_operation_is_refused(monkeypatch):
    from unet_core.graph import Node
    from unet_core.graph.operations import OPERATIONS

    row = dataclasses.replace(OPERATIONS["relu"], name="new")
    monkeypatch.setitem(OPERATIONS, "new", row)
    graph = graph_of(TINY)
    nodes = (*graph.nodes, Node("last", "new", (graph.nodes[-1].name,)))
    assert "node last, new: " in refusal(dataclasses.replace(graph, nodes=nodes))


def test_a_table_of_numbers_stays_out_of_it():
    """Tensors that nothing uses, and those of two names, are where they were."""
    graph = small()
    nodes = tuple(
        dataclasses.replace(node, operation="relu", tensors={}, attributes={}) if node.name == "bottom.1" else node
        for node in graph.nodes
    )
    graph = dataclasses.replace(graph, nodes=nodes)
    assert check(graph, trained(graph, dtype=np.float64), (60, 46), (24, 28)) < 1e-12
    assert tiled.tile_plan(graph, (60, 46), (24, 28)).graph.tensors["table"].shape == (2, 3)

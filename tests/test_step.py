"""Updates of a tiny network in both twins, from the same start on the same batches: everything stays the same."""

import copy
import dataclasses
import functools
import io

import numpy as np
import pytest
from conftest import few, trained_tensors

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch
from unet_core.data.labels import IGNORED
from unet_core.data.masks import Masks
from unet_core.errors import CheckpointError, ConfigError
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.train_config import TrainConfig

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx

from unet_jax.operations import OPERATIONS
from unet_jax.training import step as in_jax
from unet_jax.training.layout import in_torchs_layout
from unet_jax.training.mesh import device_mesh
from unet_torch.canonical import to_canonical
from unet_torch.training import step as in_torch

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RATES = (0.01, 0.02, 0.005)
# Few levels where few are enough: XLA takes seconds for each of them.
BASE = TrainConfig(features=(4, 6), batch=2, crop=8, precision="float64", loss=Loss("cross-entropy+dice"))
RECIPES = {
    "adam, ema": dataclasses.replace(BASE, ema=0.9, features=(4, 6, 8)),
    "nesterov, clip, weights": dataclasses.replace(
        BASE,
        optimizer=Optimizer("sgd", momentum=0.9, nesterov=True, weight_decay=0.01, clip=0.1),
        loss=Loss(class_weights=(0.5, 2.0)),
    ),
    "rmsprop, transposed, accumulate": dataclasses.replace(
        BASE, optimizer=Optimizer("rmsprop", momentum=0.5), upsampling="transposed", accumulate=2
    ),
    "parts": dataclasses.replace(BASE, batch=4, norm_parts=2),
    "ignored, accumulate": dataclasses.replace(
        BASE,
        masks=Masks(ignore=255),
        accumulate=2,
        optimizer=Optimizer("rmsprop", momentum=0.5),
        loss=Loss("cross-entropy+dice", (0.5, 2.0, 1.0)),
    ),
}


NAMES = pytest.mark.parametrize("name", few(list(RECIPES), "adam, ema", "ignored, accumulate"))
SLOTS = {"exp_avg": "mu", "exp_avg_sq": "nu", "square_avg": "nu", "momentum_buffer": "trace"}
CLASSES = {"adam, ema": 2, "nesterov, clip, weights": 2, "rmsprop, transposed, accumulate": 3, "parts": 2}
CLASSES["ignored, accumulate"] = 3


@functools.cache
def start(recipe, classes=2):
    config = recipe.network(3, classes)
    return Checkpoint(config, trained_tensors(config, dtype=np.float64))


def batches(recipe, classes=2, steps=3):
    rng = np.random.default_rng(0)
    shape = (recipe.batch * recipe.accumulate, recipe.crop, recipe.crop)
    for _ in range(steps):
        image = rng.random((*shape, 3), np.float32)
        labels = rng.integers(classes, size=shape).astype(np.uint8)
        if recipe.masks.ignore is not None:  # in each picture a corner, and the first of what is accumulated whole
            labels[:, :3, :5] = labels[: recipe.batch] = IGNORED
        yield Batch(image, labels)


@dataclasses.dataclass
class Seen:
    """What one update has made: by torch's names, everything as NumPy has it."""

    loss: float
    norm: float
    network: dict
    slots: dict
    average: dict | None


def torch_state(recipe, checkpoint):
    state = in_torch.new_state(checkpoint, recipe, CPU)
    return state, in_torch.updater(recipe, state)


def torch_seen(state, values):
    slots = {kind: {} for kind in SLOTS.values()}
    for name, parameter in state.model.named_parameters():
        for kind, value in state.optimizer.state[parameter].items():
            if kind in SLOTS:
                slots[SLOTS[kind]][name] = value.numpy().copy()
    average = None if state.average is None else copy.deepcopy(to_canonical(state.average))
    slots = {kind: tensors for kind, tensors in slots.items() if tensors}
    return Seen(*values.tolist(), copy.deepcopy(to_canonical(state.model)), slots, average)


def run_torch(recipe, checkpoint, classes=2, steps=3):
    state, update = torch_state(recipe, checkpoint)
    seen = []
    for step, batch in enumerate(batches(recipe, classes, steps)):
        values = update(*in_torch.placed(batch, recipe, CPU), RATES[step], recipe.renewal(step))
        seen.append(torch_seen(state, values))
    return seen


class InJax:
    """A compiled update with its mesh."""

    def __init__(self, recipe, checkpoint):
        self.recipe, self.checkpoint = recipe, checkpoint
        with jax.enable_x64(recipe.precision == "float64"):
            self.mesh = device_mesh(recipe.batch)
            self.model = in_jax.abstract_model(checkpoint, recipe)
            self.update = in_jax.compiled(in_jax.updater(recipe, self.model), self.new_state(), recipe, self.mesh, 3)

    def new_state(self, checkpoint=None, saved=None):
        with jax.enable_x64(self.recipe.precision == "float64"):
            return in_jax.new_state(checkpoint or self.checkpoint, self.recipe, self.mesh, saved)

    def step(self, state, step, batch):
        with jax.enable_x64(self.recipe.precision == "float64"):
            ((image, labels),) = in_jax.placed(iter([batch]), self.recipe, self.mesh)
            controls = in_jax.controls_of(RATES[step], self.recipe.renewal(step), self.mesh)
            return self.update(state, image, labels, controls)

    def tensors(self, params, stats):
        return in_jax.host_network(params, stats, self.checkpoint).tensors

    def slots(self, state):
        """By optax's names of the fields, then by torch's names of the parameters."""
        found = {}
        for part in jax.tree.leaves(state.slots, is_leaf=lambda part: hasattr(part, "_fields")):
            for kind in set(getattr(part, "_fields", ())) & set(SLOTS.values()):
                tensors = self.tensors(getattr(part, kind), state.stats)
                found[kind] = {name: value for name, value in tensors.items() if not name.endswith(STATISTICS)}
        return found

    def run(self, classes=2):
        state, seen = self.new_state(), []
        for step, batch in enumerate(batches(self.recipe, classes)):
            state, values = self.step(state, step, batch)
            average = None if state.average is None else self.tensors(*state.average)
            seen.append(Seen(*values.tolist(), self.tensors(state.params, state.stats), self.slots(state), average))
        return seen


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@functools.cache
def compiled(name):
    return InJax(RECIPES[name], start(RECIPES[name], CLASSES[name]))


@functools.cache
def jaxs(name):
    return compiled(name).run(CLASSES[name])


@functools.cache
def torchs(name):
    return run_torch(RECIPES[name], start(RECIPES[name], CLASSES[name]), CLASSES[name])


def distance(a, b):
    """The largest difference, as a part of the largest entry of the tensor that it is in."""
    assert a.keys() == b.keys()
    scales = {name: np.abs(b[name]).max() or 1 for name in b}
    return max(np.abs(np.float64(a[name]) - b[name]).max() / scales[name] for name in b)


def only(tensors, *, statistics):
    return {name: value for name, value in tensors.items() if name.endswith(STATISTICS) == statistics}


@NAMES
@pytest.mark.parametrize("step", few([0, 2], 2))
def test_loss_and_norm_agree(name, step):
    ours, theirs = jaxs(name)[step], torchs(name)[step]
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-12)
    assert ours.norm == pytest.approx(theirs.norm, rel=1e-10)
    assert ours.loss != pytest.approx(torchs(name)[1].loss, rel=1e-6), "the control: another step"


@NAMES
@pytest.mark.parametrize("step", [0, 2])
@pytest.mark.parametrize("statistics", [False, True], ids=["parameters", "statistics"])
def test_the_networks_agree(name, step, statistics):
    ours, theirs, before = (
        only(seen.network, statistics=statistics)
        for seen in (jaxs(name)[step], torchs(name)[step], torchs(name)[max(step - 1, 0) or 1])
    )
    assert distance(ours, theirs) < 1e-10
    assert distance(ours, before) > 1e-6, "the control: another step"


@NAMES
@pytest.mark.parametrize("step", [0, 2])
def test_the_optimizers_moments_agree(name, step):
    ours, theirs = jaxs(name)[step].slots, torchs(name)[step].slots
    kinds = {"adam, ema": {"mu", "nu"}, "nesterov, clip, weights": {"trace"}, "parts": {"mu", "nu"}}
    assert ours.keys() == theirs.keys() == kinds.get(name, {"nu", "trace"})
    assert max(distance(ours[kind], theirs[kind]) for kind in ours) < 1e-10


@pytest.mark.parametrize("step", [0, 2])
def test_the_averages_agree(step):
    ours, theirs = jaxs("adam, ema")[step], torchs("adam, ema")[step]
    assert distance(ours.average, theirs.average) < 1e-10
    if step == 0:
        assert distance(ours.average, ours.network) == 0
    else:
        assert distance(ours.average, ours.network) > 1e-4, "the control: the network itself"


def test_the_counters_count_every_batch():
    """Two for each update that takes two."""
    started = start(RECIPES["ignored, accumulate"], 3).tensors["bottom.conv.1.num_batches_tracked"]
    for seen in (jaxs, torchs):
        network = seen("ignored, accumulate")[2].network
        assert network["bottom.conv.1.num_batches_tracked"] - started == 6


def test_one_batch_of_all_is_not_accumulation():
    """The control: BatchNorm's statistics are over a batch, not over all batches of an update."""
    name = "ignored, accumulate"
    recipe = dataclasses.replace(RECIPES[name], accumulate=1, batch=4)
    ignored = run_torch(recipe, start(RECIPES[name], 3), 3, steps=1)[0]
    assert ignored.loss != pytest.approx(jaxs(name)[0].loss, rel=1e-6)
    assert distance(ignored.network, jaxs(name)[0].network) > 1e-6


def test_statistics_of_the_whole_batch_would_be_seen():
    """The control: without parts, the same recipe is another training."""
    recipe = dataclasses.replace(RECIPES["parts"], norm_parts=1)
    whole = run_torch(recipe, start(recipe), steps=1)[0]
    assert whole.loss != pytest.approx(jaxs("parts")[0].loss, rel=1e-6)


def test_running_statistics_are_those_of_the_first_part():
    """With the parts the other way round the loss is the same, and the statistics are the other part's."""
    recipe = RECIPES["parts"]
    (given,) = batches(recipe, steps=1)
    turned = Batch(*(np.concatenate((part[2:], part[:2])) for part in given))
    state, update = torch_state(recipe, start(recipe))
    seen = torch_seen(state, update(*in_torch.placed(turned, recipe, CPU), RATES[0], recipe.renewal(0)))
    expected = jaxs("parts")[0]
    assert seen.loss == pytest.approx(expected.loss, rel=1e-12)
    assert distance(*(only(one.network, statistics=False) for one in (seen, expected))) < 1e-10
    assert distance(*(only(one.network, statistics=True) for one in (seen, expected))) > 1e-6


def test_a_biased_variance_would_be_seen(monkeypatch):
    """The control: Flax's own BatchNorm tracks it."""

    row = OPERATIONS["batch_norm"]

    @functools.wraps(row.function)
    def biased(x, *, run, **given):
        y = row.function(x, run=run, **given)
        run.track("variance", 0.9 * given["variance"] + 0.1 * x.var((0, 1, 2)))
        return y

    monkeypatch.setitem(OPERATIONS, "batch_norm", dataclasses.replace(row, function=biased))
    name = "nesterov, clip, weights"
    with jax.enable_x64(True):
        checkpoint, recipe = start(RECIPES[name]), RECIPES[name]
        graphdef = nnx.graphdef(in_jax.abstract_model(checkpoint, recipe))
        state = in_jax.new_state(checkpoint, recipe, device_mesh(recipe.batch))

        @jax.jit
        def forward(params, stats, image):
            model = nnx.merge(graphdef, *in_torchs_layout((params, stats)), copy=True)
            model.logits(image)
            return nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

        stats = forward(state.params, state.stats, jnp.asarray(next(batches(recipe)).image, jnp.float64))
        found = in_jax.host_network(state.params, stats, checkpoint).tensors
    broken, right = (only(tensors, statistics=True) for tensors in (found, torchs(name)[0].network))
    means = [{key: value for key, value in one.items() if key.endswith("mean")} for one in (broken, right)]
    assert distance(*means) < 1e-10
    assert distance(broken, right) > 1e-4


def test_clipping_and_weights_take_part():
    """The control: without them, the same recipe is another training."""
    name = "nesterov, clip, weights"
    recipe = RECIPES[name]
    assert torchs(name)[0].norm > 0.1
    for change in ({"optimizer": dataclasses.replace(recipe.optimizer, clip=None)}, {"loss": Loss()}):
        other = run_torch(dataclasses.replace(recipe, **change), start(recipe), steps=1)
        assert distance(other[0].network, jaxs(name)[0].network) > 1e-6


def test_what_is_ignored_takes_part_without_being_asked():
    """The control: as background, the same pixels make it another training."""
    name = "ignored, accumulate"
    recipe, expected = RECIPES[name], torchs(name)[0]
    (given,) = batches(recipe, 3, steps=1)
    batch = Batch(given.image, np.where(given.labels == IGNORED, 0, given.labels).astype(np.uint8))
    state, update = torch_state(recipe, start(recipe, 3))
    seen = torch_seen(state, update(*in_torch.placed(batch, recipe, CPU), RATES[0], recipe.renewal(0)))
    assert distance(seen.network, expected.network) > 1e-6


def test_remat_changes_nothing():
    name = "nesterov, clip, weights"
    seen = InJax(dataclasses.replace(RECIPES[name], remat=True), start(RECIPES[name])).run()
    for found, expected in zip(seen, jaxs(name), strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-12)
        assert distance(found.network, expected.network) < 1e-12


def test_a_saved_state_goes_on_bit_for_bit_in_jax():
    name = "adam, ema"
    run, data = compiled(name), list(batches(RECIPES[name]))
    state = run.new_state()
    for step in range(2):
        state, _ = run.step(state, step, data[step])
    checkpoint, saved = in_jax.host_network(state.params, state.stats, run.checkpoint), in_jax.host_arrays(state)
    state, values = run.step(run.new_state(checkpoint, saved), 2, data[2])
    expected = jaxs(name)[2]
    assert values.tolist() == [expected.loss, expected.norm]
    assert distance(run.tensors(state.params, state.stats), expected.network) == 0
    assert distance(run.tensors(*state.average), expected.average) == 0
    fresh, _ = run.step(run.new_state(checkpoint), 2, data[2])
    assert distance(run.tensors(fresh.params, fresh.stats), expected.network) > 1e-6, "the control: new moments"


def test_a_saved_state_goes_on_bit_for_bit_in_torch():
    name = "adam, ema"
    recipe, data = RECIPES[name], list(batches(RECIPES[name]))
    state, update = torch_state(recipe, start(recipe))
    for step in range(2):
        update(*in_torch.placed(data[step], recipe, CPU), RATES[step], recipe.renewal(step))
    file = io.BytesIO()
    torch.save(state.state_dict(2), file)
    file.seek(0)
    state, update = torch_state(recipe, start(recipe))
    state.load_state_dict(torch.load(file, weights_only=True))
    values = update(*in_torch.placed(data[2], recipe, CPU), RATES[2], recipe.renewal(2))
    found, expected = torch_seen(state, values), torchs(name)[2]
    assert (found.loss, found.norm) == (expected.loss, expected.norm)
    assert distance(found.network, expected.network) == distance(found.average, expected.average) == 0


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": Optimizer("sgd", momentum=0.9)},
        {"optimizer": Optimizer("rmsprop")},
        {"ema": None},
        {"precision": "float32"},
    ],
)
def test_a_saved_state_of_another_training_is_refused(x64, other):
    recipe = RECIPES["adam, ema"]
    mesh = device_mesh(recipe.batch)
    saved = in_jax.host_arrays(in_jax.new_state(start(recipe), recipe, mesh))
    with pytest.raises(CheckpointError, match="holds the optimiser of another training: "):
        in_jax.new_state(start(recipe), dataclasses.replace(recipe, **other), mesh, saved)


def test_a_host_array_is_a_copy(x64):
    """An update gives its state's memory away."""
    recipe = RECIPES["adam, ema"]
    saved = in_jax.host_arrays(in_jax.new_state(start(recipe), recipe, device_mesh(recipe.batch)))
    assert all(value.flags.owndata and value.flags.writeable for value in saved.values())


@pytest.mark.slow
def test_bfloat16_keeps_float32_weights_and_statistics():
    recipe = dataclasses.replace(BASE, precision="bfloat16", ema=0.9)
    config = recipe.network(3, 2)
    checkpoint = Checkpoint(config, trained_tensors(config))
    ours, theirs = InJax(recipe, checkpoint).run(), run_torch(recipe, checkpoint)
    exact = run_torch(BASE, start(BASE), steps=1)
    kinds = {value.dtype for seen in (*ours, *theirs) for value in [*seen.network.values(), *seen.average.values()]}
    assert kinds == {np.dtype(np.float32), np.dtype(np.int64)}
    assert {value.dtype for seen in (*ours, *theirs) for value in seen.slots["nu"].values()} == {np.dtype(np.float32)}
    for found in (ours[0], theirs[0]):
        assert found.loss == pytest.approx(exact[0].loss, rel=0.03)
        assert found.loss != pytest.approx(exact[0].loss, rel=1e-5), "the control: it does compute in bfloat16"


def test_batches_are_placed_in_order():
    recipe = dataclasses.replace(BASE, precision="float32", accumulate=3)
    data = list(batches(recipe, steps=5))
    mesh = device_mesh(recipe.batch)
    found = list(in_jax.placed(iter(data), recipe, mesh))
    assert len(found) == 5
    for (image, labels), batch in zip(found, data, strict=True):
        assert image.shape == (3, 2, 8, 8, 3)
        np.testing.assert_array_equal(np.concatenate(image), batch.image)
        np.testing.assert_array_equal(np.concatenate(labels), batch.labels)
        theirs, _ = in_torch.placed(batch, recipe, CPU)
        assert theirs.is_contiguous()
        np.testing.assert_array_equal(theirs.permute(0, 2, 3, 1), batch.image)


def test_torchs_statistics_of_a_flat_picture_are_accurate_as_maps_lie_in_memory():
    x = torch.full((2, 8, 256, 256), 0.3)
    x[:, :, :64, :64] = torch.rand((2, 8, 64, 64), generator=torch.Generator().manual_seed(0)) * 3
    exact = torch.nn.BatchNorm2d(8).double()(x.double())

    def apart(memory_format):
        return (torch.nn.BatchNorm2d(8)(x.contiguous(memory_format=memory_format)) - exact).norm() / exact.norm()

    assert apart(in_torch.memory_format(CPU, 4)) < 2e-7
    assert apart(torch.channels_last) > 2e-6, "the control"


def test_devices_that_do_not_divide_the_batch_are_an_error(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match="batch 6: is not divided by the 4 devices; give a multiple of 4"):
        device_mesh(6)

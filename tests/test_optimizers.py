"""Optimisers, clipping and the average of the weights: optax and torch over many steps; and what a recipe refuses."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core.data.augmentation import Augmentation
from unet_core.errors import ConfigError
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.train_config import TrainConfig

STEPS = 15
RATES = [0.1 / (1 + step % 4) for step in range(STEPS)]
SETTINGS = {
    "adam": Optimizer(),
    "adam, decay": Optimizer(weight_decay=0.1),
    "adam, betas": Optimizer(betas=(0.5, 0.9), epsilon=1e-3),
    "adamw": Optimizer("adamw"),
    "sgd": Optimizer("sgd"),
    "sgd, momentum": Optimizer("sgd", momentum=0.9),
    "sgd, nesterov, decay": Optimizer("sgd", momentum=0.9, nesterov=True, weight_decay=0.1),
    "rmsprop": Optimizer("rmsprop", epsilon=1e-3),
    "rmsprop, momentum": Optimizer("rmsprop", momentum=0.9, alpha=0.9),
}


def starts():
    rng = np.random.default_rng(0)
    return {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}


def gradients():
    """For every step; of very different sizes, and some zeros."""
    rng = np.random.default_rng(1)
    scales = {"a": np.logspace(-6, 3, 4), "b": np.array([0.0, 1e-9, 1e-3, 1.0, 1e3])}
    return [
        {name: rng.standard_normal(value.shape) * scales[name] for name, value in starts().items()}
        for _ in range(STEPS)
    ]


def in_torch(make):
    """All parameters after every step."""
    torch = pytest.importorskip("torch")
    params = {name: torch.nn.Parameter(torch.from_numpy(value)) for name, value in starts().items()}
    optimizer = make(params.values())
    after = []
    for rate, gradient in zip(RATES, gradients(), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, param in params.items():
            param.grad = torch.from_numpy(gradient[name])
        optimizer.step()
        after.append(np.concatenate([param.detach().numpy().copy().ravel() for param in params.values()]))
    return np.stack(after)


def in_jax(transformation, *, scaled=False):
    """The same; `scaled`: the updates are ready to be added, as those of optax's own optimisers are."""
    jax = pytest.importorskip("jax")

    @jax.jit
    def train(params, gradients, rates):
        def step(carry, now):
            params, state = carry
            gradient, rate = now
            updates, state = transformation.update(gradient, state, params)
            params = jax.tree.map(lambda p, u: p + u if scaled else p - rate * u, params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, transformation.init(params)), (gradients, rates))[1]

    stacked = {name: np.stack([gradient[name] for gradient in gradients()]) for name in starts()}
    after = train(starts(), stacked, np.array(RATES))
    return np.concatenate([np.asarray(after[name]).reshape(STEPS, -1) for name in starts()], axis=1)


def torchs(settings):
    unet_torch = pytest.importorskip("unet_torch.training.optimizers")
    return in_torch(lambda params: unet_torch.optimizer_of(settings, params))


def differ(a, b):
    """Whether the comparison of the test below would fail."""
    return not np.allclose(a, b, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", SETTINGS)
def test_optax_steps_as_torch_does(x64, name):
    ours = pytest.importorskip("unet_jax.training.optimizers").optimizer_of(SETTINGS[name])
    expected = torchs(SETTINGS[name])
    found = in_jax(ours)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
    assert differ(found[1:], expected[:-1]), "the control: a step too early"


@pytest.mark.parametrize("name", ["rmsprop", "rmsprop, momentum", "adamw", "sgd, momentum"])
def test_optaxs_own_are_others(x64, name):
    """The controls: what optax does by default; the rate of each step is the same as above."""
    optax, jnp = pytest.importorskip("optax"), pytest.importorskip("jax.numpy")
    rates, settings = jnp.asarray(RATES), SETTINGS[name]
    controls = {
        "rmsprop": optax.rmsprop(lambda count: rates[count], settings.alpha, settings.epsilon),
        "rmsprop, momentum": optax.rmsprop(
            lambda count: rates[count], settings.alpha, settings.epsilon, eps_in_sqrt=False, momentum=0.9
        ),
        "adamw": optax.adamw(lambda count: rates[count]),
        "sgd, momentum": optax.chain(optax.ema(0.9, debias=False), optax.scale_by_learning_rate(lambda n: rates[n])),
    }
    assert differ(in_jax(controls[name], scaled=True), torchs(settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_optimizer_has_something_to_save(name):
    """Orbax writes no empty tree."""
    jax, optimizers = pytest.importorskip("jax"), pytest.importorskip("unet_jax.training.optimizers")
    assert jax.tree.leaves(jax.eval_shape(optimizers.optimizer_of(SETTINGS[name]).init, starts()))


def test_decay_in_the_gradient_is_not_adamws(x64):
    """The control: adam and adamw with the same decay."""
    adam, adamw = (torchs(Optimizer(name, weight_decay=0.1)) for name in ("adam", "adamw"))
    assert differ(adam, adamw)


def test_the_settings_are_torchs_defaults():
    """So that an option that is left out means what it means in a script in PyTorch."""
    torch = pytest.importorskip("torch")
    from unet_torch.training.optimizers import optimizer_of

    param = [torch.nn.Parameter(torch.zeros(1))]
    theirs = (torch.optim.Adam(param), torch.optim.AdamW(param), torch.optim.SGD(param), torch.optim.RMSprop(param))
    for name, plain in zip(("adam", "adamw", "sgd", "rmsprop"), theirs, strict=True):
        ours = optimizer_of(Optimizer(name), param).defaults
        assert type(optimizer_of(Optimizer(name), param)) is type(plain)
        assert {**ours, "lr": 0} == {**plain.defaults, "lr": 0}


@pytest.mark.parametrize("most", [None, 1e-4, 2.0, 1e9])
def test_clipping_is_torchs(x64, most):
    torch, unet_torch = pytest.importorskip("torch"), pytest.importorskip("unet_torch.training.optimizers")
    unet_jax, optax = pytest.importorskip("unet_jax.training.optimizers"), pytest.importorskip("optax")
    gradient = gradients()[0]
    params, twins = ({name: torch.nn.Parameter(torch.tensor(g)) for name, g in gradient.items()} for _ in range(2))
    for name, value in gradient.items():
        params[name].grad, twins[name].grad = torch.tensor(value), torch.tensor(value)
    expected = torch.nn.utils.clip_grad_norm_(params.values(), math.inf if most is None else most)
    norm = unet_torch.clipped(twins.values(), most)
    ours, norm_in_jax = unet_jax.clipped(gradient, most)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-14)
    assert float(norm_in_jax) == pytest.approx(expected.item(), rel=1e-14)
    for name in gradient:
        assert torch.equal(twins[name].grad, params[name].grad)
        np.testing.assert_allclose(ours[name], params[name].grad, rtol=1e-13)
    if most is not None and most < 1e9:
        control, _ = optax.clip_by_global_norm(most).update(gradient, optax.EmptyState())
        assert differ(control["a"], params["a"].grad), "the control: no 1e-6 beside the norm"


def test_no_clipping_changes_no_bit(x64):
    unet_jax = pytest.importorskip("unet_jax.training.optimizers")
    gradient = gradients()[0]
    for most in (None, 1e9):
        np.testing.assert_array_equal(unet_jax.clipped(gradient, most)[0]["a"], gradient["a"])


@functools.cache
def networks(steps=6):
    """States of a small network in training, on the way: weights, statistics, and counters of batches."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    states = []
    for step in range(steps + 1):
        states.append({name: value.clone() for name, value in model.state_dict().items()})
        model(torch.randn(8, 3, dtype=torch.float64) + step).square().sum().backward()
        with torch.no_grad():
            for param in model.parameters():
                param -= 0.01 * param.grad
    return model, states


def torchs_average(model, states, decay):
    """torch.optim.swa_utils.AveragedModel, which copies the first network that it is shown."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model.load_state_dict(states[0])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    for state in states[1:]:
        model.load_state_dict(state)
        average.update_parameters(model)
    return {name.removeprefix("module."): value for name, value in average.state_dict().items() if name != "n_averaged"}


def average_in_torch(states, recipe):
    from unet_torch.training.optimizers import averaged

    average = {name: value.clone() for name, value in states[0].items()}
    for step, state in enumerate(states[1:]):
        averaged(average, state, recipe.renewal(step))
    return {name: value.numpy() for name, value in average.items()}


@functools.cache
def jitted_average():
    return pytest.importorskip("jax").jit(pytest.importorskip("unet_jax.training.optimizers").averaged)


def average_in_jax(states, recipe):
    move = jitted_average()
    average = {name: value.numpy() for name, value in states[0].items()}
    for step, state in enumerate(states[1:]):
        average = move(
            average, {name: value.numpy() for name, value in state.items()}, np.float64(recipe.renewal(step))
        )
    return average


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("twin", [average_in_torch, average_in_jax])
def test_the_average_is_torchs(x64, twin, decay):
    model, states = networks()
    found, expected = twin(states, TrainConfig(ema=decay)), torchs_average(model, states, decay)
    floats = [name for name in expected if expected[name].is_floating_point()]
    assert len(floats) == 6
    for name in floats:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-13)
    weights = expected["0.weight"]
    assert differ(average_in_torch(states[1:], TrainConfig(ema=decay))["0.weight"], weights), "the control: one fewer"
    assert differ(twin(states, TrainConfig(ema=decay - 1e-9))["0.weight"], weights), "the control: another decay"


@pytest.mark.parametrize("twin", [average_in_torch, average_in_jax])
def test_counters_are_the_current_ones(x64, twin):
    """Torch's average of whole numbers rounds down, and so stands still: the one difference to AveragedModel."""
    model, states = networks()
    assert int(twin(states, TrainConfig(ema=0.9))["1.num_batches_tracked"]) == 6
    assert int(torchs_average(model, states, 0.9)["1.num_batches_tracked"]) < 6


@pytest.mark.parametrize("twin", [average_in_torch, average_in_jax])
def test_the_first_average_is_a_copy(x64, twin):
    """Bit for bit, whatever was there before."""
    _, (old, new) = networks(1)
    old = {name: (value + 1).exp() * math.pi if value.is_floating_point() else value for name, value in old.items()}
    found = twin([old, new], TrainConfig(ema=0.999))
    for name, value in new.items():
        np.testing.assert_array_equal(found[name], value.numpy())


def test_the_first_average_is_renewed_whole():
    assert [TrainConfig(ema=0.75).renewal(step) for step in range(3)] == [1, 0.25, 0.25]


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (Loss, {"loss": "hinge"}, "loss: one of cross-entropy, dice, cross-entropy\\+dice is needed, got 'hinge'"),
        (Loss, {"class_weights": (1.0, 0.0)}, r"class_weights \(1.0, 0.0\): give a positive number for every class"),
        (Loss, {"class_weights": (1.0, -1.0)}, "class_weights .*: give a positive number"),
        (Loss, {"class_weights": (1.0, math.nan)}, "class_weights .*: give a positive number"),
        (Loss, {"class_weights": (1.0, math.inf)}, "class_weights .*: give a positive number"),
        (Optimizer, {"optimizer": "lion"}, "optimizer: one of adam, adamw, sgd, rmsprop is needed, got 'lion'"),
        (Optimizer, {"rate": -0.1}, "rate -0.1: give a number from 0 up"),
        (Optimizer, {"rate": math.nan}, "rate nan: give a number from 0 up"),
        (Optimizer, {"rate": math.inf}, "rate inf: give a number from 0 up"),
        (Optimizer, {"weight_decay": -1.0}, "weight_decay -1.0: give a number from 0 up"),
        (Optimizer, {"epsilon": -1e-8}, "epsilon -1e-08: give a number from 0 up"),
        (Optimizer, {"betas": (1.0, 0.9)}, r"betas \(1.0, 0.9\): give numbers from 0 up and below 1"),
        (Optimizer, {"betas": (0.9, math.nan)}, "betas .*: give numbers from 0 up and below 1"),
        (Optimizer, {"optimizer": "sgd", "momentum": 1.0}, "momentum 1.0: give numbers from 0 up and below 1"),
        (Optimizer, {"alpha": -0.1}, "alpha -0.1: give numbers from 0 up and below 1"),
        (Optimizer, {"optimizer": "sgd", "nesterov": True}, "nesterov: is for sgd with a momentum"),
        (
            Optimizer,
            {"optimizer": "rmsprop", "nesterov": True, "momentum": 0.9},
            "nesterov: is for sgd with a momentum",
        ),
        (Optimizer, {"momentum": 0.9}, "momentum 0.9: is for sgd and rmsprop; adam has betas"),
        (Optimizer, {"clip": 0.0}, "clip 0.0: give a number above 0"),
        (Optimizer, {"clip": math.nan}, "clip nan: give a number above 0"),
        (Augmentation, {"rotation": -1.0}, "rotation -1.0: give a number from 0 to 180"),
        (Augmentation, {"rotation": 181.0}, "rotation 181.0: give a number from 0 to 180"),
        (Augmentation, {"scale": -0.1}, "scale -0.1: give a number from 0 to 10"),
        (Augmentation, {"brightness": math.nan}, "brightness nan: give a number from 0 to 10"),
        (Augmentation, {"contrast": 1.1}, "contrast 1.1: give a number from 0 to 1"),
        (Augmentation, {"noise": math.inf}, "noise inf: give a number from 0 to 10"),
        *(
            (TrainConfig, {name: 0}, f"{name} 0: give a whole number from 1 up")
            for name in ("steps", "batch", "accumulate")
        ),
        *(
            (TrainConfig, {name: 0}, f"{name} 0: give a whole number from 1 up")
            for name in ("crop", "log_every", "keep")
        ),
        *((TrainConfig, {f"{name}_every": 0}, f"{name}_every 0: give a whole") for name in ("validate", "save")),
        (TrainConfig, {"seed": -1}, "seed -1: give a whole number from 0 to 4294967295"),
        (TrainConfig, {"seed": 2**32}, "seed 4294967296: give a whole number from 0 to 4294967295"),
        (TrainConfig, {"ema": 0.0}, "ema 0.0: give a number between 0 and 1"),
        (TrainConfig, {"ema": 1.0}, "ema 1.0: give a number between 0 and 1"),
        (
            TrainConfig,
            {"precision": "float16"},
            "precision: one of float32, bfloat16, float64 is needed, got 'float16'",
        ),
    ],
)
def test_settings_that_describe_no_training_are_refused(kind, fields, reason):
    with pytest.raises(ConfigError, match=f"^{reason}"):
        kind(**fields)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_decay_left_out_is_torchs_default(name):
    assert Optimizer(name).decay == (0.01 if name == "adamw" else 0)
    assert Optimizer(name, weight_decay=0.0).decay == 0
    assert Optimizer(name, weight_decay=0.3).decay == 0.3


def test_the_rate_is_a_part_of_the_optimizers():
    recipe = TrainConfig(steps=10, optimizer=Optimizer(rate=0.5), schedule=Schedule("plateau", warmup=2, patience=0))
    assert [recipe.part(step, losses) for step, losses in ((0, []), (1, []), (2, [1.0]), (3, [1.0, 2.0]))] == [
        0.25,
        0.5,
        0.5,
        0.05,
    ]


fractions = st.floats(0, 1, exclude_min=True, exclude_max=True)
counts = st.integers(1, 10**6)
recipes = st.builds(
    TrainConfig,
    features=st.lists(counts, min_size=2, max_size=5).map(tuple),
    upsampling=st.sampled_from(["bilinear", "transposed"]),
    start=st.none() | st.text(),
    seed=st.integers(0, 2**32 - 1),
    **dict.fromkeys(("steps", "batch", "accumulate", "crop", "validate_every", "save_every", "log_every"), counts),
    precision=st.sampled_from(["float32", "bfloat16", "float64"]),
    ema=st.none() | fractions,
    validation=fractions,
    keep=counts,
    loss=st.builds(
        Loss,
        st.sampled_from(["cross-entropy", "dice", "cross-entropy+dice"]),
        st.none() | st.lists(fractions, min_size=2, max_size=4).map(tuple),
    ),
    optimizer=st.builds(
        Optimizer,
        st.sampled_from(["adam", "adamw", "sgd", "rmsprop"]),
        rate=fractions,
        weight_decay=st.none() | fractions,
        betas=st.tuples(fractions, fractions),
        clip=st.none() | fractions,
    ),
    schedule=st.builds(Schedule, st.sampled_from(["constant", "cosine", "step", "plateau"]), final=fractions),
    augmentation=st.builds(Augmentation, st.booleans(), st.booleans(), rotation=fractions, noise=fractions),
)


@settings(max_examples=50)
@given(recipes)
def test_a_recipe_survives_json(recipe):
    again = TrainConfig.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert hash(again) == hash(recipe), "tuples, as before, and not lists"
    assert recipe.changes(again) == []


def test_a_recipe_of_an_earlier_release_is_read():
    """Its statistics were over the whole batch."""
    earlier = {name: value for name, value in TrainConfig().to_dict().items() if name != "norm_parts"}
    assert TrainConfig.from_dict(earlier) == TrainConfig()


def changed(**fields):
    return {**TrainConfig().to_dict(), **fields}


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        "recipe",
        {},
        changed(colour="red"),
        changed(steps="many"),
        changed(steps=None),
        changed(loss=None),
        changed(loss={"loss": "hinge"}),
        changed(loss={"lost": "dice"}),
        changed(optimizer={"rate": "fast"}),
        changed(precision="float8"),
        changed(seed=-1),
        {name: value for name, value in TrainConfig().to_dict().items() if name != "schedule"},
        {name: value for name, value in TrainConfig().to_dict().items() if name != "steps"},
        changed(augmentation={"flips": True}),
    ],
)
def test_fields_that_are_no_recipe_are_refused(fields):
    with pytest.raises(ConfigError):
        TrainConfig.from_dict(fields)


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (TrainConfig(), []),
        (TrainConfig(steps=5, log_every=7, save_every=3, keep=9), []),
        (TrainConfig(seed=1), ["--seed"]),
        (TrainConfig(validate_every=7), ["--validate-every"]),
        (TrainConfig(batch=8, ema=0.5), ["--batch", "--ema"]),
        (TrainConfig(loss=Loss(class_weights=(1.0, 2.0))), ["--class-weights"]),
        (TrainConfig(optimizer=Optimizer("sgd", momentum=0.9)), ["--optimizer", "--momentum"]),
        (TrainConfig(augmentation=Augmentation(flips=False)), ["--flips"]),
    ],
)
def test_changes_are_named_as_they_are_typed(other, options):
    assert TrainConfig().changes(other) == options


def test_another_length_is_another_cosine():
    recipe = TrainConfig(schedule=Schedule("cosine"))
    assert recipe.changes(dataclasses.replace(recipe, steps=5, keep=1)) == ["--steps"]


def test_no_two_options_have_one_name():
    """`changes` flattens the parts of a recipe."""
    fields = TrainConfig().to_dict()
    nested = [name for part in fields.values() if isinstance(part, dict) for name in part]
    plain = [name for name, value in fields.items() if not isinstance(value, dict)]
    assert len({*nested, *plain}) == len(nested) + len(plain)


@pytest.mark.parametrize(("classes", "channels", "output"), [(2, 1, "sigmoid"), (3, 3, "softmax"), (7, 7, "softmax")])
def test_the_network_has_a_logit_for_every_class_and_one_for_two(classes, channels, output):
    config = TrainConfig(features=(4, 8), upsampling="transposed").network(5, classes)
    assert (config.in_channels, config.out_channels, config.output) == (5, channels, output)
    assert (config.features, config.upsampling) == ((4, 8), "transposed")


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (TrainConfig(crop=8), "crop 8: is too small for 5 levels; 32 will do"),
        (TrainConfig(crop=16, batch=1), "crop 16: is too small for 5 levels; 32 will do"),
        (TrainConfig(loss=Loss(class_weights=(1.0, 2.0, 3.0))), "the masks have 2 classes; give 2"),
        (TrainConfig(features=(4,)), "features: 2 to 32 levels"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(recipe, reason):
    with pytest.raises(ConfigError, match=reason):
        recipe.network(3, 2)


@pytest.mark.parametrize("recipe", [TrainConfig(crop=16, batch=2), TrainConfig(crop=32, batch=1)])
def test_two_values_for_each_channel_at_the_bottom_are_enough(recipe):
    assert recipe.network(3, 2).minimum_size == 16

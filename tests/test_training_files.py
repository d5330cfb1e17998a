"""Training files of PyTorch scripts: their optimiser's state in optax and back, and what is refused by name."""

import argparse
import copy
import functools
import json
import shutil

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import optax
from flax import nnx
from foreign_networks import NestedSkips
from foreign_unets import FlatUNet, Milesial
from foreign_unets import trained as trained_module

import conversion
import unet_jax
from conversion.code import Known
from conversion.scripts import understood_training
from unet_cli.main import main
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.reading import read_contents
from unet_core.errors import CheckpointError
from unet_core.graph.canonical import infer_config, tensor_specs
from unet_core.training.script_file import refuse
from unet_core.training.state import difference
from unet_jax.canonical import nest, translate
from unet_torch.canonical import to_canonical
from unet_torch.checkpoint import from_checkpoint
from unet_torch.training import optimizer_state

RATE = 0.01


def read_training(path):
    """The training in a file, of which nothing is left behind."""
    training, left = understood_training(path)
    refuse(left, (), str(path))
    return training


def own():
    return from_checkpoint(Checkpoint(TINY, trained_tensors(TINY, dtype=np.float64)))


def milesial():
    return trained_module(Milesial(3, 2, True, width=4)).double()


def decayed(model, **options):
    """The usual two groups: what has one dimension is not decayed."""
    kernels, others = ([p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
    return torch.optim.AdamW([{"params": kernels}, {"params": others, "weight_decay": 0.0, "name": "rest"}], **options)


OPTIMIZERS = {
    "adam": lambda model: torch.optim.Adam(model.parameters(), RATE),
    "adam, names": lambda model: torch.optim.Adam(model.named_parameters(), RATE, weight_decay=0.1),
    "adamw, groups": lambda model: decayed(model, lr=RATE, weight_decay=0.1),
    "sgd": lambda model: torch.optim.SGD(model.parameters(), RATE),
    "sgd, nesterov": lambda model: torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True),
    "rmsprop": lambda model: torch.optim.RMSprop(model.parameters(), RATE),
    "rmsprop, momentum": lambda model: torch.optim.RMSprop(model.parameters(), RATE, momentum=0.9),
}


CASES = [*((name, own) for name in OPTIMIZERS), ("adamw, groups", milesial), ("sgd, nesterov", milesial)]
SOME_CASES = few(
    {f"{name}, {network.__name__}": (name, network) for name, network in CASES},
    "rmsprop, momentum, own",
    "adamw, groups, milesial",
)
SOME = [name if name == "adam" else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
"""All, of which the quick tests try one."""


def kernels(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


CHAINS = {
    "adam": lambda: optax.adam(RATE),
    "adam, names": lambda: optax.chain(optax.add_decayed_weights(0.1), optax.adam(RATE)),
    "adamw, groups": lambda: optax.adamw(optax.constant_schedule(RATE), weight_decay=0.1, mask=kernels),
    "sgd": lambda: optax.sgd(RATE),
    "sgd, nesterov": lambda: optax.sgd(RATE, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optax.chain(
        optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False), optax.scale_by_learning_rate(RATE)
    ),
    "rmsprop, momentum": lambda: optax.chain(
        optax.scale_by_rms(0.99, 1e-8, eps_in_sqrt=False), optax.trace(0.9), optax.scale_by_learning_rate(RATE)
    ),
}
"""The optax chain that does what each of these does; docs/switching.md has them."""


def gradient(model, seed):
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal(tuple(p.shape))) for p in model.parameters()]


def step(model, optimizer, seed, *, without=()):
    for number, (parameter, value) in enumerate(zip(model.parameters(), gradient(model, seed), strict=True)):
        parameter.grad = None if number in without else value.to(parameter.dtype)
    optimizer.step()


def script(name, network=own, steps=3):
    """A model and its optimiser in the middle of a training."""
    model = network()
    optimizer = OPTIMIZERS[name](model) if isinstance(name, str) else name(model)
    for seed in range(steps):
        step(model, optimizer, seed)
    return model, optimizer


def saved(path, model, optimizer, **beside):
    torch.save({"epoch": 7, "model": model.state_dict(), "optimizer": optimizer.state_dict(), **beside}, path)
    return path


def same(a, b):
    """Whether two loaded files are the same in every bit, type and order."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b and type(a) is type(b)


def there_and_back(path):
    folder = path.parent
    conversion.convert(path, folder / "state", to="jax", verify=False)
    conversion.convert(folder / "state", folder / "back.pt", to="torch", verify=False)
    return torch.load(folder / "back.pt", weights_only=True)


@pytest.mark.parametrize(("name", "network"), SOME_CASES)
def test_a_file_comes_back_as_it_was(tmp_path, name, network):
    model, optimizer = script(name, network)
    path = saved(tmp_path / "run.pt", model, optimizer, step=3, loss=0.5, args={"size": (64, 64), 1: [None, True]})
    assert same(there_and_back(path), torch.load(path, weights_only=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_script_goes_on_with_what_comes_back(tmp_path, name):
    model, optimizer = script(name)
    back = there_and_back(saved(tmp_path / "run.pt", model, optimizer))
    again, other = script(name, steps=0)
    again.load_state_dict(back["model"], strict=True)
    other.load_state_dict(back["optimizer"])
    for both in ((model, optimizer), (again, other)):
        step(*both, 3)
    assert same(again.state_dict(), model.state_dict())
    assert same(other.state_dict(), optimizer.state_dict())


def by_canonical_name(model, tensors):
    """Tensors in the order of a module's parameters, by canonical names."""
    found = to_canonical(model)
    contents = Contents("a model", {"": {key: value.shape for key, value in found.items()}}, lambda *_: found)
    names = {name: key for key, name in read_contents(contents).reading.keys.items()}
    return {
        names[name]: value.detach().numpy() for (name, _), value in zip(model.named_parameters(), tensors, strict=True)
    }


def in_jax(model, tensors):
    found = by_canonical_name(model, tensors)
    config = infer_config({key: value.shape for key, value in found.items()}, "a model")
    return nest(translate(found, "jax", config, whole=False))


def on_in_torch(model, optimizer, steps=3):
    model, optimizer = copy.deepcopy((model, optimizer))
    for seed in range(10, 10 + steps):
        step(model, optimizer, seed)
    return by_canonical_name(model, model.parameters())


def on_in_optax(model, chain, state, steps=3):
    params = in_jax(model, model.parameters())

    @jax.jit
    def update(gradients, state, params):
        updates, state = chain.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for seed in range(10, 10 + steps):
        params, state = update(in_jax(model, gradient(model, seed)), state, params)
    return {  # of a UNet, the names are the same
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }


def distance(a, b):
    assert a.keys() == b.keys()
    return max(np.abs(np.asarray(a[key]) - np.asarray(b[key])).max() / np.abs(b[key]).max() for key in b)


@pytest.mark.parametrize(("name", "network"), SOME_CASES)
def test_optax_goes_on_where_torch_stood(x64, tmp_path, name, network):
    model, optimizer = script(name, network)
    chain = CHAINS[name]()
    fresh = jax.jit(chain.init)(in_jax(model, model.parameters()))
    expected = on_in_torch(model, optimizer)
    state = conversion.optimizer_to_optax(saved(tmp_path / "run.pt", model, optimizer), fresh)
    assert distance(on_in_optax(model, chain, state), expected) < 1e-12
    if name != "sgd":
        assert distance(on_in_optax(model, chain, fresh), expected) > 1e-6, "the control: without its memory"


@pytest.mark.parametrize("name", SOME)
def test_a_live_optimiser_gives_the_same_state_as_its_file(x64, tmp_path, name):
    model, optimizer = script(name)
    fresh = jax.jit(CHAINS[name]().init)(in_jax(model, model.parameters()))
    path = saved(tmp_path / "run.pt", model, optimizer, step=3)
    conversion.convert(path, tmp_path / "state", to="jax", verify=False)
    states = [
        conversion.optimizer_to_optax(optimizer, fresh, model=model),
        conversion.optimizer_to_optax(optimizer.state_dict(), fresh, model=model),
        conversion.optimizer_to_optax(path, fresh),
        conversion.optimizer_to_optax(tmp_path / "state", fresh),
    ]
    for state in states[1:]:
        assert jax.tree.structure(state) == jax.tree.structure(states[0])
        assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(states[0])))


def labels(params):
    return jax.tree.map(lambda leaf: "kernel" if leaf.ndim > 1 else "other", params)


ADAM = optax.scale_by_adam()
SOMEWHERE = {
    "at the end": optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1), ADAM),
    "chains in chains": optax.chain(optax.chain(optax.identity(), optax.chain(ADAM)), optax.scale(-1.0)),
    "in a partition": optax.partition({"kernel": optax.chain(ADAM), "other": optax.adam(0.1)}, labels),
    "in inject_hyperparams": optax.inject_hyperparams(optax.adamw)(learning_rate=0.1),
    "in MultiSteps": optax.MultiSteps(optax.adam(optax.cosine_decay_schedule(0.1, 100)), 4),
    "with schedules": optax.chain(ADAM, optax.scale_by_schedule(lambda n: 0.1 * n), optax.scale_by_learning_rate(0.1)),
}


@pytest.mark.parametrize("where", SOMEWHERE)
def test_moments_are_found_wherever_they_are(x64, where):
    model, optimizer = script("adam")
    fresh = jax.jit(SOMEWHERE[where].init)(in_jax(model, model.parameters()))
    state = conversion.optimizer_to_optax(optimizer, fresh, model=model)
    counts = [int(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state) if "count" in str(path[-1])]
    assert counts
    assert set(counts) == {3}
    assert same(conversion.optimizer_to_torch(state, optimizer, model), optimizer.state_dict())


@pytest.mark.parametrize("name", SOME)
@pytest.mark.slow
def test_the_state_of_an_nnx_optimizer_is_filled(name):
    """In float32, on JAX's devices, ready for the next update; and back."""
    model, optimizer = script(name, lambda: own().float())
    twin = conversion.to_jax(model)
    target = nnx.Optimizer(twin, CHAINS[name](), wrt=nnx.Param)
    target.opt_state = conversion.optimizer_to_optax(optimizer, target.opt_state, model=model, step=3)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(target.opt_state))
    back = conversion.optimizer_to_torch(target.opt_state, optimizer, model, step=3)
    assert same(back, optimizer.state_dict())
    target.update(twin, nnx.state(twin, nnx.Param))


LEFT = {
    "amsgrad": lambda model: torch.optim.Adam(model.parameters(), amsgrad=True),
    "centered": lambda model: torch.optim.RMSprop(model.parameters(), centered=True),
    "dampening": lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, dampening=0.5),
    "maximize": lambda model: torch.optim.AdamW(model.parameters(), maximize=True),
}


def with_left(name, path):
    """A file that holds something that cannot be carried."""
    model, optimizer = script(LEFT.get(name, "adam"))
    beside = {}
    if name == "frozen":
        model, optimizer = script("adam", steps=0)
        step(model, optimizer, 0, without=(4,))
    if name == "step":
        step(model, optimizer, 5, without=(4,))
    if name in ("scheduler", "lr_schedulers"):
        states = [make(optimizer).state_dict() for make in (lambda o: torch.optim.lr_scheduler.StepLR(o, 3),)]
        beside = {name: states if name == "lr_schedulers" else states[0]}
    if name == "plateau":
        beside = {name: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer).state_dict()}
    if name == "scaler":
        beside = {name: torch.amp.GradScaler("cpu").state_dict()}
    if name == "rng":
        beside = {name: torch.get_rng_state()}
    if name == "ema":
        beside = {name: own().state_dict()}
    return saved(path, model, optimizer, **beside)


NAMED = [*LEFT, "frozen", "step", "scheduler", "lr_schedulers", "plateau", "scaler", "rng", "ema"]


@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_carried_is_named_and_refused(tmp_path, capsys, name):
    path = with_left(name, tmp_path / "run.pt")
    assert main(["convert", str(path), str(tmp_path / "state"), "--to", "jax", "--no-verify"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot be carried: {name} (" in line
    assert line.endswith(f"to leave it behind, say --drop {name}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize("name", [*NAMED[:1], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMED[1:])])
def test_what_is_dropped_is_said(tmp_path, capsys, name):
    path = with_left(name, tmp_path / "run.pt")
    command = ["convert", str(path), str(tmp_path / "state"), "--to", "jax", "--no-verify", "--drop", name]
    assert main(command) == 0
    assert f"left behind: {name}\n" in capsys.readouterr().out
    conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    kinds = {"centered": torch.optim.RMSprop, "dampening": torch.optim.SGD, "maximize": torch.optim.AdamW}
    model = own()
    again = kinds.get(name, torch.optim.Adam)(model.parameters(), 0.1)
    again.load_state_dict(back["optimizer"])
    step(model, again, 9)
    assert name not in back


def test_a_name_that_is_not_there_cannot_be_dropped(tmp_path):
    path = with_left("scaler", tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="has nothing named amsgrad to drop; there is to drop: scaler"):
        conversion.convert(path, tmp_path / "state", to="jax", drop=["scaler", "amsgrad"])


@pytest.mark.parametrize("kind", ["NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "ASGD", "Rprop"])
def test_other_optimisers_are_refused(tmp_path, kind):
    model, optimizer = script(lambda model: getattr(torch.optim, kind)(model.parameters()))
    with pytest.raises(CheckpointError, match="the optimiser is none of Adam, AdamW, SGD and RMSprop"):
        read_training(saved(tmp_path / "run.pt", model, optimizer))


def weights_and_others(model):
    """Groups that share shapes: nothing but names tells a BatchNorm's weight from its bias."""
    weights = [(name, p) for name, p in model.named_parameters() if name.endswith("weight")]
    biases = [(name, p) for name, p in model.named_parameters() if name.endswith("bias")]
    return weights, biases


def test_groups_that_leave_open_which_parameter_is_which_are_refused(tmp_path):
    model, optimizer = script(
        lambda model: torch.optim.Adam([{"params": [p for _, p in group]} for group in weights_and_others(model)])
    )
    with pytest.raises(CheckpointError, match="leaves open which parameter is which: make the optimiser of model"):
        read_training(saved(tmp_path / "run.pt", model, optimizer))


def test_groups_with_names_are_not(tmp_path):
    model, optimizer = script(
        lambda model: torch.optim.Adam([{"params": group} for group in weights_and_others(model)])
    )
    read = read_training(saved(tmp_path / "run.pt", model, optimizer)).state.optimizer.moments["exp_avg"]
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(read[name], optimizer.state[parameter]["exp_avg"])


@pytest.mark.parametrize(
    ("arrange", "reason"),
    [
        (
            lambda found: found[::-1],
            "the optimiser's parameters are not those of the network, in order: parameter 0 is 2, ",
        ),
        (lambda found: found[:-1], "the optimiser has 31 parameters, the network 32; nothing tells which is which"),
        (lambda found: [*found, torch.nn.Parameter(torch.zeros(3))], "the optimiser has 33 parameters, the network 32"),
    ],
    ids=["reversed", "fewer", "more"],
)
def test_parameters_that_are_not_the_networks_are_refused(tmp_path, arrange, reason):
    model, optimizer = script(lambda model: torch.optim.Adam(arrange(list(model.parameters()))))
    with pytest.raises(CheckpointError, match=reason):
        read_training(saved(tmp_path / "run.pt", model, optimizer))


def test_fewer_parameters_with_names_are_matched(tmp_path):
    """A script that trains the decoder alone."""
    model, optimizer = script(
        lambda model: torch.optim.Adam([(n, p) for n, p in model.named_parameters() if n.startswith("up")])
    )
    path = saved(tmp_path / "run.pt", model, optimizer)
    moments = read_training(path).state.optimizer.moments["exp_avg"]
    assert moments.keys() == {name for name, _ in model.named_parameters() if name.startswith("up")}
    assert same(there_and_back(path), torch.load(path, weights_only=True))


@given(st.data())
@settings(max_examples=12)
def test_groups_are_matched_rightly_or_not_at_all(data):
    """Whatever parameters a script puts into which group, in the module's order."""
    model = trained_module(FlatUNet()) if data.draw(st.booleans()) else own()
    parameters = list(model.parameters())
    count = data.draw(st.integers(1, 4))
    chosen = [data.draw(st.integers(0, count - 1)) for _ in parameters]
    groups = [[p for p, number in zip(parameters, chosen, strict=True) if number == group] for group in range(count)]
    optimizer = torch.optim.Adam([{"params": group} for group in groups if group])
    step(model, optimizer, 0)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    try:
        found = optimizer_state.read(optimizer.state_dict(), {name: name for name in shapes}, shapes, "it")
    except CheckpointError:
        return
    for name, parameter in model.named_parameters():
        np.testing.assert_array_equal(found.state.moments["exp_avg"][name], optimizer.state[parameter]["exp_avg"])


def wrapped(model, prefix):
    return {f"{prefix}{name}": value for name, value in model.state_dict().items()}


@pytest.mark.parametrize("prefix", few(["module.", "_orig_mod.", "module._orig_mod.", "net."], "module._orig_mod."))
@pytest.mark.parametrize("name", few(["adam", "adam, names"], "adam, names"))
def test_wrapped_networks(tmp_path, prefix, name):
    model, optimizer = script(name)
    file = {"state_dict": wrapped(model, prefix), "optimizer_state_dict": optimizer.state_dict(), "global_step": 3}
    torch.save(file, tmp_path / "run.pt")
    assert read_training(tmp_path / "run.pt").state.step == 3
    assert same(there_and_back(tmp_path / "run.pt"), torch.load(tmp_path / "run.pt", weights_only=True))


def test_a_lightning_file(tmp_path):
    """Its optimisers lie in a list."""
    model, optimizer = script("adam")
    file = {"state_dict": wrapped(model, "model."), "optimizer_states": [optimizer.state_dict()], "epoch": 3}
    torch.save(file, tmp_path / "run.pt")
    assert same(there_and_back(tmp_path / "run.pt"), torch.load(tmp_path / "run.pt", weights_only=True))


@pytest.mark.slow
def test_steps_of_old_releases_of_torch_are_numbers(tmp_path):
    model, optimizer = script("adam")
    old = optimizer.state_dict()
    for entry in old["state"].values():
        entry["step"] = int(entry["step"])
    torch.save({"model": model.state_dict(), "optimizer": old}, tmp_path / "run.pt")
    assert same(there_and_back(tmp_path / "run.pt"), torch.load(tmp_path / "run.pt", weights_only=True))


@functools.cache
def adam_file():
    model, optimizer = script("adam", lambda: own().float())
    return {"epoch": 7, "model": model.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            lambda file: file.pop("optimizer"),
            "holds no optimiser's state, only epoch, model; leave --to out for the network",
        ),
        (lambda file: file.update(other=file["optimizer"]), "holds several optimisers: optimizer, other"),
        (lambda file: file["optimizer"].pop("state"), "is no state_dict of a torch optimiser"),
        (lambda file: file["optimizer"].update(param_groups=[]), "is no state_dict of a torch optimiser"),
        (lambda file: file["optimizer"].update(param_groups=[3]), "is no state_dict of a torch optimiser"),
        (lambda file: file["optimizer"]["param_groups"][0].update(params=[0, 0]), "are not 0 to 1, in order"),
        (lambda file: file["optimizer"]["state"].update({99: {"step": 1}}), "has states of no parameter: 99"),
        (lambda file: file["optimizer"]["state"][3].update(step=1.5), "the step of parameter 3 is no count: 1.5"),
        (lambda file: file["optimizer"]["state"][3].update(step="one"), "the step of parameter 3 is no count: one"),
        (lambda file: file["optimizer"]["state"][3].update(step=torch.ones(2)), "the step of parameter 3 is no count"),
        (lambda file: file["optimizer"]["state"][3].update(step=float("nan")), "the step of parameter 3 is no count"),
        (
            lambda file: file["optimizer"]["state"][3].update(exp_avg=torch.ones(7, 7)),
            "parameter 3 is 7x7",
        ),
        (
            lambda file: file["optimizer"]["state"][3].update(exp_avg_sq=torch.ones(7, 7)),
            "exp_avg_sq of .* \\(7x7\\)",
        ),
        (
            lambda file: file["optimizer"]["state"][0].update(exp_avg=torch.ones(4, 3, 3, 3, dtype=torch.int32)),
            "the optimiser's state is torch.int32, not floating-point",
        ),
        (
            lambda file: file["optimizer"]["state"][0].update(exp_avg=torch.ones(1).expand(4, 3, 3, 3)),
            "these tensors claim more numbers than the file holds: exp_avg",
        ),
        (
            lambda file: file["optimizer"]["state"][0].update(exp_avg=torch.full((4, 3, 3, 3), float("nan"))),
            "exp_avg of down1.conv.0.weight: holds values that are not finite",
        ),
        (
            lambda file: file["optimizer"]["state"][0].update(exp_avg_sq=torch.full((4, 3, 3, 3), -1.0)),
            "exp_avg_sq of down1.conv.0.weight: holds values below zero",
        ),
    ],
)
def test_damaged_states_are_refused_in_one_line(tmp_path, damage, reason):
    file = copy.deepcopy(adam_file())
    damage(file)
    torch.save(file, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=reason) as caught:
        conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", verify=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "state").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A script's file, and the directory that it was converted to."""
    folder = tmp_path_factory.mktemp("made")
    torch.save(copy.deepcopy(adam_file()), folder / "run.pt")
    conversion.convert(folder / "run.pt", folder / "state", to="jax", verify=False)
    return folder


@pytest.fixture
def converted(made, tmp_path):
    """A copy of both: the path of the directory."""
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True) / "state"


def test_the_directory_is_a_network_too(converted):
    model = unet_jax.load(converted)
    assert model.config == TINY
    found = conversion.inspect(converted)
    assert found.beside == ("training (an optimiser's state)",)


def test_a_flipped_bit_in_the_moments_is_seen(converted, tmp_path):
    record = converted / "digests" / "metadata"
    fields = json.loads(record.read_text())
    name = next(name for name in fields["sha256"] if ".mu." in name)
    fields["sha256"][name] = "0" * 64
    record.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=f"the sha256 of {name} is not the stored one"):
        conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)
    assert not (tmp_path / "back.pt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda _, text=text: text for text in ("{", '{"dict": [["order", 3]]}')),
        *(pytest.param(lambda _, text=text: text, marks=pytest.mark.slow) for text in ("[]", '{"dict": 1}', "null")),
        lambda text: text.replace('"epoch"', '"epic"', 1),
        lambda text: text.replace('"optimizer"', '"other"', 1),
        lambda text: text.replace("down1.conv.0.weight", "down9.conv.0.weight", 1),
        lambda text: text.replace('["params", [0, ', '["params", [', 1),
    ],
)
def test_a_damaged_record_is_refused(converted, tmp_path, damage):
    file = converted / "digests" / "metadata"
    fields = json.loads(file.read_text())
    fields["script"] = damage(fields["script"])
    file.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=r"the record of the script's file is (damaged|that of another network)"):
        conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)


@pytest.mark.parametrize(
    ("src", "dst", "to", "reason"),
    [
        ("run.pt", "other.pt", "jax", "--to jax takes a .pt file to a name without a suffix"),
        ("run.pt", "other", "torch", "--to torch takes a directory to a .pt file"),
        ("state", "other", "jax", "--to jax takes a .pt file to a name without a suffix"),
        ("network", "other.pt", "torch", "holds a network, but no training; leave --to out"),
        ("network.safetensors", "other", "jax", "a safetensors file holds a network alone, no training"),
        ("missing.pt", "other", "jax", "missing.pt: no such file or directory"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(converted, tmp_path, src, dst, to, reason):
    if src.startswith("network"):
        unet_jax.save(unet_jax.load(converted), tmp_path / src)
    with pytest.raises(CheckpointError, match=reason):
        conversion.convert(tmp_path / src, tmp_path / dst, to=to)
    assert not (tmp_path / dst).exists()


@pytest.mark.parametrize("options", [["--drop", "scheduler"], ["--drop", "scheduler", "--no-verify"]])
@pytest.mark.usefixtures("converted")
def test_nothing_is_dropped_from_a_network(tmp_path, capsys, options):
    assert main(["convert", str(tmp_path / "run.pt"), str(tmp_path / "other"), *options]) == 2
    assert "--drop scheduler: is for the training files of scripts, with --to" in capsys.readouterr().err


def filled(chain, *, step=None, network=own, name="adam", **options):
    model, optimizer = script(name, network)
    state = chain.init(in_jax(model, model.parameters()))
    return conversion.optimizer_to_optax(optimizer, state, model=model, step=step, **options)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: filled(optax.sgd(0.1)), "has no place for mu of .*; build a chain that remembers it"),
        (
            lambda: filled(optax.chain(ADAM, optax.trace(0.9))),
            "the optax state remembers trace, this adam in torch does not; build a chain without",
        ),
        (
            lambda: filled(optax.chain(optax.trace(0.9), optax.scale_by_schedule(lambda n: n)), name="sgd, nesterov"),
            "the optax state counts updates, and nothing tells how many were made: give step",
        ),
        (
            lambda: filled(optax.chain(ADAM, optax.ema(0.9))),
            "cannot be carried: .*ema \\(which no optimiser of torch's",
        ),
        (lambda: filled(optax.scale_by_belief()), "has no place for mu of "),
        (lambda: filled(ADAM, drop=["amsgrad"]), "has nothing named amsgrad to drop"),
        (
            lambda: conversion.optimizer_to_optax(OPTIMIZERS["adam"](own()), ADAM.init({})),
            "which parameter is which, only the module tells: give model",
        ),
        (
            lambda: conversion.optimizer_to_optax(OPTIMIZERS["adam"](own()), ADAM.init({}), model=own()),
            "the optimiser has 32 parameters that are not the module's",
        ),
    ],
)
def test_chains_that_do_not_fit_are_refused(x64, call, reason):
    with pytest.raises(CheckpointError, match=reason):
        call()


def test_moments_are_not_rounded():
    """float64 in torch, float32 in JAX."""
    with pytest.raises(CheckpointError, match=r"is float64 .*, and in the optax state float32"):
        filled(ADAM)


def test_what_optax_alone_remembers_may_be_dropped(x64):
    state = filled(optax.chain(ADAM, optax.ema(0.9)), drop=["ema", "count"])
    assert int(state[0].count) == 3


def taken(state, optimizer, model, **options):
    return conversion.optimizer_to_torch(state, OPTIMIZERS[optimizer](model), model, **options)


@pytest.mark.parametrize(
    ("chain", "optimizer", "options", "reason"),
    [
        (ADAM, "sgd", {}, "the optax state remembers exp_avg, exp_avg_sq, the torch optimiser, sgd, nothing"),
        (optax.identity(), "adam", {}, "the optax state remembers nothing, the torch optimiser, adam, exp_avg"),
        (optax.trace(0.9), "rmsprop, momentum", {}, "the torch optimiser, rmsprop, square_avg, momentum_buffer"),
        (optax.scale_by_rms(), "rmsprop", {}, "torch counts updates, the optax state does not: give step"),
        (optax.chain(ADAM, optax.ema(0.9)), "adam", {}, "the optax state: cannot be carried: "),
        (optax.chain(ADAM, ADAM), "adam", {}, "the optax state remembers mu of .* twice, in two transformations"),
    ],
)
def test_states_that_are_not_the_torch_optimisers_are_refused(x64, chain, optimizer, options, reason):
    model = own()
    with pytest.raises(CheckpointError, match=reason):
        taken(chain.init(in_jax(model, model.parameters())), optimizer, model, **options)


@pytest.mark.parametrize("name", ["amsgrad", "centered", "dampening", "maximize"])
def test_a_torch_optimiser_with_what_optax_does_not_remember_is_refused(x64, name):
    model = own()
    state = (optax.trace(0.9) if name == "dampening" else ADAM).init(in_jax(model, model.parameters()))
    with pytest.raises(CheckpointError, match=f"the torch optimiser has .*{name}"):
        conversion.optimizer_to_torch(state, LEFT[name](model), model)


def test_different_counts_are_refused(x64):
    model = own()
    state = list(optax.adam(optax.constant_schedule(0.1)).init(in_jax(model, model.parameters())))
    state[0] = state[0]._replace(count=np.int32(3))
    with pytest.raises(CheckpointError, match="the optax state counts 0 and 3 updates"):
        taken(tuple(state), "adam", model)


def test_half_an_accumulated_update_is_refused(x64):
    model = own()
    chain = optax.MultiSteps(optax.adam(0.1), 4)
    params = in_jax(model, model.parameters())
    _, state = chain.update(params, chain.init(params), params)
    with pytest.raises(CheckpointError, match="the optax state holds the gradients of a part of an update"):
        taken(state, "adam", model)


@pytest.mark.parametrize("verify", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_command_says_what_was_carried(tmp_path, capsys, verify):
    model, optimizer = script("adam", lambda: own().float())
    path = saved(tmp_path / "run.pt", model, optimizer)
    options = [] if verify else ["--no-verify"]
    assert main(["convert", str(path), str(tmp_path / "state"), "--to", "jax", *options]) == 0
    out = capsys.readouterr().out
    specs = tensor_specs(TINY)
    arrays = len(specs) + 2 * sum(spec.trained for spec in specs.values())
    said = "alike in both frameworks" if verify else "not verified"
    assert f"state: step 3, {arrays} arrays, {said}" in " ".join(out.split())
    assert "left behind" not in out


def test_both_files_hold_the_same_training(made):
    assert difference(*(read_training(made / name).state for name in ("run.pt", "state"))) == []


def test_a_tree_of_other_names_than_the_twins_is_refused():
    model = own()
    with pytest.raises(CheckpointError, match=r"not of it: 0\.weight"):
        taken(ADAM.init({"0": {"weight": np.zeros(3)}}), "adam", model)


RATES = optax.linear_schedule(1.0, 0.0, 10)


@pytest.mark.slow
def test_a_schedule_that_is_injected_goes_on(x64):
    """Its count is a state of its own."""
    chain = optax.inject_hyperparams(optax.adamw)(learning_rate=RATES, weight_decay=optax.constant_schedule(0.1))
    state = filled(chain)
    assert {int(inner.count) for inner in state.hyperparams_states.values()} == {3}
    model, _ = script("adam")
    params = in_jax(model, model.parameters())
    _, state = chain.update(in_jax(model, gradient(model, 1)), state, params)
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.7)


@pytest.mark.parametrize(
    "order",
    few(
        {
            " ".join(order): (order,)
            for order in (("model", "ema"), ("ema", "model"), ("best_state", "model_state_dict"))
        },
        "ema model",
    ),
)
def test_of_several_networks_the_one_that_is_read_keeps_its_key(tmp_path, order):
    model, optimizer = script("adam")
    networks = {"ema": own().state_dict(), "best_state": own().state_dict()}
    file = {name: networks.get(name, model.state_dict()) for name in order}
    torch.save({**file, "optimizer": optimizer.state_dict()}, tmp_path / "run.pt")
    chosen = next(name for name in order if name not in networks)
    (other,) = set(order) - {chosen}
    with pytest.raises(CheckpointError, match=rf"cannot be carried: {other} \("):
        read_training(tmp_path / "run.pt")
    conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", drop=[other], verify=False)
    conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert set(back) == {chosen, "optimizer"}
    assert same(dict(back[chosen]), dict(model.state_dict()))


@pytest.mark.slow
def test_a_network_that_is_chosen_by_its_key_comes_back_under_it(tmp_path):
    model, optimizer = script("adam")
    file = {"model": own().state_dict(), "ema": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(file, tmp_path / "run.pt")
    hints = conversion.Hints(key="ema")
    conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", hints=hints, drop=["model"], verify=False)
    conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)
    assert same(dict(torch.load(tmp_path / "back.pt", weights_only=True)["ema"]), dict(model.state_dict()))


@pytest.mark.parametrize(
    ("name", "steps", "chain", "reason"),
    [
        ("adam", 3, optax.chain(ADAM, ADAM), "remembers mu of .* twice, in two transformations"),
        ("sgd", 3, optax.adam(0.1), "the optax state remembers mu, nu, this sgd in torch does not"),
        ("sgd", 3, optax.sgd(0.1, momentum=0.9), "the optax state remembers trace, this sgd in torch does not"),
        ("sgd, nesterov", 0, optax.adam(0.1), "the optax state remembers mu, nu, this sgd in torch does not"),
        (
            "adam",
            3,
            optax.chain(optax.MultiSteps(optax.adam(0.1), 4).gradient_transformation(), optax.scale_by_schedule(RATES)),
            "counts steps outside MultiSteps and updates inside",
        ),
    ],
)
def test_chains_of_another_kind_are_refused(x64, name, steps, chain, reason):
    model, optimizer = script(name, steps=steps)
    state = chain.init(in_jax(model, model.parameters()))
    with pytest.raises(CheckpointError, match=reason):
        conversion.optimizer_to_optax(optimizer, state, model=model, step=steps if "sgd" in name else None)


@pytest.mark.parametrize("name", ["adam", "sgd, nesterov", "rmsprop"])
def test_an_optimiser_before_its_first_step_is_carried(x64, name):
    model, optimizer = script(name, steps=0)
    fresh = jax.jit(CHAINS[name]().init)(in_jax(model, model.parameters()))
    state = conversion.optimizer_to_optax(optimizer, fresh, model=model, step=0)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(fresh)))


def decoder_alone(model):
    return torch.optim.AdamW([parameter for name, parameter in model.named_parameters() if name.startswith("up")])


def only_decoder(params):
    return {block: jax.tree.map(lambda _, name=block: name.startswith("up"), tree) for block, tree in params.items()}


def test_parameters_that_torch_does_not_train_are_named_where_the_chain_does(x64):
    model, optimizer = script(decoder_alone)
    params = in_jax(model, model.parameters())
    with pytest.raises(CheckpointError, match=r"frozen \(in the chain, and without moments in torch"):
        conversion.optimizer_to_optax(optimizer, ADAM.init(params), model=model)
    masked = optax.masked(ADAM, only_decoder)
    state = conversion.optimizer_to_optax(optimizer, masked.init(params), model=model)
    assert same(conversion.optimizer_to_torch(state, optimizer, model), optimizer.state_dict())


def test_parameters_that_the_chain_does_not_train_are_named_where_torch_does(x64):
    model, optimizer = script("adam")
    state = optax.masked(ADAM, only_decoder).init(in_jax(model, model.parameters()))
    state = state._replace(inner_state=state.inner_state._replace(count=np.int32(3)))
    with pytest.raises(CheckpointError, match=r"frozen \(in the torch optimiser, and not remembered"):
        conversion.optimizer_to_torch(state, optimizer, model)
    assert set(conversion.optimizer_to_torch(state, optimizer, model, drop=["frozen"])["state"]) < set(range(32))


@pytest.mark.parametrize("setting", ["lr_in_momentum", "amsbound", "trust_coeff"])
def test_settings_of_lookalikes_are_named(setting, tmp_path):
    """Optimisers of other packages derive from torch's, and add to its settings."""
    model, optimizer = script("rmsprop")
    optimizer.param_groups[0][setting] = True
    with pytest.raises(CheckpointError, match=rf"{setting} \(a setting that rmsprop in torch has not\)"):
        read_training(saved(tmp_path / "run.pt", model, optimizer))


def test_one_name_of_two_things_tells_both(tmp_path):
    model, optimizer = script("adam")
    step(model, optimizer, 5, without=(4,))
    path = saved(tmp_path / "run.pt", model, optimizer, step=torch.tensor(4))
    with pytest.raises(CheckpointError, match=r"step \(parameters were updated 3 to 4 times, .*, and Tensor\)"):
        read_training(path)


def test_a_momentum_that_only_some_groups_have_is_carried(tmp_path):
    def mixed(model):
        wide, narrow = ([p for p in model.parameters() if (p.ndim > 1) == kernel] for kernel in (True, False))
        return torch.optim.SGD([{"params": wide, "momentum": 0.9}, {"params": narrow}], lr=0.1)

    model, optimizer = script(mixed)
    path = saved(tmp_path / "run.pt", model, optimizer)
    assert same(there_and_back(path), torch.load(path, weights_only=True))


@pytest.mark.parametrize(
    ("name", "step", "reason"),
    [
        ("adam", 77, "torch counts 3 updates, and step says 77; leave it out"),
        ("sgd", -3, "step -3: give a whole number from 0 up"),
        ("sgd", 2**40, "1099511627776 updates were made; the optax state counts up to 2147483647"),
    ],
)
def test_steps_that_cannot_be_are_refused(x64, name, step, reason):
    chain = optax.chain(CHAINS[name](), optax.scale_by_schedule(RATES))
    with pytest.raises(CheckpointError, match=reason):
        filled(chain, name=name, step=step)


def test_what_the_caller_says_counts_more_than_a_files_own_counter(x64, tmp_path):
    """Which may be the step within an epoch."""
    model, optimizer = script("sgd")
    chain = optax.chain(optax.sgd(0.1), optax.scale_by_schedule(RATES))
    fresh = jax.jit(chain.init)(in_jax(model, model.parameters()))
    path = saved(tmp_path / "run.pt", model, optimizer, step=2)
    for said, count in ((None, 2), (30, 30)):
        assert int(conversion.optimizer_to_optax(path, fresh, step=said)[1].count) == count


def test_a_dialect_is_not_for_a_training_file(tmp_path):
    torch.save(adam_file(), tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match="a training file goes back under its own names; leave --dialect out"):
        conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", dialect="milesial")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("value", [float("inf"), 3e9])
def test_steps_beyond_all_counting_are_refused(tmp_path, capsys, value):
    file = copy.deepcopy(adam_file())
    for entry in file["optimizer"]["state"].values():
        entry["step"] = torch.tensor(value)
    torch.save(file, tmp_path / "run.pt")
    assert main(["convert", str(tmp_path / "run.pt"), str(tmp_path / "state"), "--to", "jax"]) == 2
    assert "the step of parameter 0 is no count" in capsys.readouterr().err


def test_a_scheduler_is_found_wherever_it_lies(tmp_path):
    model, optimizer = script("adam")
    path = saved(tmp_path / "run.pt", model, optimizer, extra={"more": [{"last_epoch": 3}]})
    with pytest.raises(CheckpointError, match=r"cannot be carried: extra \(a learning-rate scheduler's state\)"):
        read_training(path)


def test_capturable_settings_come_back_as_numbers(tmp_path):
    """lr and betas may be tensors in torch."""
    model, optimizer = script("adam")
    file = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    file["optimizer"]["param_groups"][0].update(lr=torch.tensor(RATE), betas=(torch.tensor(0.5), 0.9))
    torch.save(file, tmp_path / "run.pt")
    group = there_and_back(tmp_path / "run.pt")["optimizer"]["param_groups"][0]
    assert (group["lr"], group["betas"]) == (pytest.approx(RATE), (0.5, 0.9))


def test_an_sgd_without_a_counter_has_no_step_to_tell(tmp_path, capsys):
    model, optimizer = script("sgd")
    path = saved(tmp_path / "run.pt", model, optimizer)
    assert main(["convert", str(path), str(tmp_path / "state"), "--to", "jax", "--no-verify"]) == 0
    assert "step" not in capsys.readouterr().out.split("->")[1]


def test_one_group_for_every_parameter_is_refused_as_open(tmp_path):
    model, optimizer = script(lambda model: torch.optim.Adam([{"params": [p]} for p in model.parameters()]))
    with pytest.raises(CheckpointError, match="leaves open which parameter is which"):
        read_training(saved(tmp_path / "run.pt", model, optimizer))


def test_something_else_than_an_optimiser_is_refused():
    with pytest.raises(CheckpointError, match="a torch optimiser, its state_dict or a path is needed, got list"):
        conversion.optimizer_to_optax([], (), model=own())


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("heads", [1, 2])
def test_parameters_that_a_script_never_updated_come_back_without_moments(tmp_path, heads):
    """Of two heads the second is the network's answer; the first may have been trained beside it, or not at all."""
    module = NestedSkips()
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    for _ in range(2):
        optimizer.zero_grad()
        sum(answer.square().mean() for answer in module(torch.rand(2, 3, 16, 16))[-heads:]).backward()
        optimizer.step()
    path = tmp_path / "theirs.pt"
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, path)
    known = Known(module=module, out=1)
    conversion.convert(path, tmp_path / "ours", to="jax", hints=known, verify=False)
    conversion.convert(tmp_path / "ours", tmp_path / "again.pt", to="torch", verify=False)
    state, again = (torch.load(one)["optimizer"]["state"] for one in (path, tmp_path / "again.pt"))
    assert len(state) == len(optimizer.param_groups[0]["params"]) - 2 * (heads == 1)
    same(state, again)


def test_objects_beside_are_left_behind_by_name_and_numpys_numbers_carried(tmp_path):
    file = adam_file() | {"args": argparse.Namespace(lr=1), "best": np.float64(0.5)}
    torch.save(file, tmp_path / "run.pt")
    with pytest.raises(CheckpointError, match=r"cannot be carried: args \(Namespace\); .* --drop args"):
        conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", verify=False)
    conversion.convert(tmp_path / "run.pt", tmp_path / "state", to="jax", drop=["args"], verify=False)
    conversion.convert(tmp_path / "state", tmp_path / "back.pt", to="torch", verify=False)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back["best"] == 0.5
    assert same(back["optimizer"], file["optimizer"])
    assert "args" not in back

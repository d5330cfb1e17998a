"""Any graph as a module: PyTorch's and JAX's answer alike, and each is at home in its framework."""

import copy

import numpy as np
import pytest
from conftest import few, trained_tensors

from unet_core.config import UNetConfig
from unet_core.graph import INPUT, Graph, Node, Tensor
from unet_core.graph.canonical import COUNTER
from unet_core.graph.family import graph

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx

from unet_jax import execution as execution_of_jax
from unet_jax.network import Network, frozen, name_of, path_of
from unet_torch import execution as execution_of_torch
from unet_torch.canonical import as_torch, fill
from unet_torch.model import UNet
from unet_torch.network import Network as TorchNetwork

TINY = UNetConfig(in_channels=3, out_channels=2, features=(3, 4))
CONFIGS = {
    "bilinear": TINY,
    "transposed": UNetConfig(features=(3, 4), upsampling="transposed", conv_bias=True),
    "padded": UNetConfig(features=(2, 3, 4), fit="pad", skip_first=True, align_corners=False, output="softmax"),
}


def filled(network, tensors, dtype=np.float32):
    for name, variable in network.variables():
        value = tensors[name]
        variable.set_value(jax.device_put(np.array(value, np.int32 if value.dtype == COUNTER else dtype)))
    return network


@nnx.jit
def answer(network, x):
    return network(x)


@nnx.jit
def logits(network, x):
    return network.logits(x)


def picture(shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def with_dropout(network, kind="maps", rate=0.5):
    """The same network with dropout behind its first ReLU."""
    at = next(number for number, node in enumerate(network.nodes) if node.operation == "relu")
    before = network.nodes[at]
    dropout = Node("dropout", "dropout", (before.name,), {}, {"rate": rate, "kind": kind})
    after = [
        Node(
            node.name,
            node.operation,
            tuple("dropout" if name == before.name else name for name in node.inputs),
            node.tensors,
            node.attributes,
        )
        for node in network.nodes[at + 1 :]
    ]
    return Graph(network.in_channels, (*network.nodes[: at + 1], dropout, *after), network.tensors)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("config", "training"),
    few(
        {
            f"{mode}-{name}": (config, mode == "training")
            for mode in ("eval", "training")
            for name, config in CONFIGS.items()
        },
        *("eval-bilinear", "training-bilinear", "training-padded"),
    ),
)
def test_both_networks_answer_as_the_hand_written_module(config, training):
    tensors = trained_tensors(config, dtype=np.float64)
    module = UNet.from_config(config)
    fill(module, tensors)
    mirror = TorchNetwork(graph(config))
    fill(mirror, tensors)
    network = filled(Network(graph(config), param_dtype=jnp.float64), tensors, np.float64)
    x = picture((2, 3, 13, 22), np.float64)
    answers = [one.train(training)(torch.from_numpy(x)).detach().numpy() for one in (module, mirror)]
    network.train() if training else network.eval()
    answers.append(np.asarray(answer(network, jnp.array(x.transpose(0, 2, 3, 1)))).transpose(0, 3, 1, 2))
    assert np.array_equal(answers[0], answers[1])
    np.testing.assert_allclose(answers[2], answers[0], rtol=0, atol=1e-12)
    for name, value in module.state_dict().items():
        assert torch.equal(mirror.state_dict()[name], value), name
    for name, variable in network.variables():
        np.testing.assert_allclose(np.asarray(variable[...]), module.state_dict()[name].numpy(), rtol=1e-12, atol=1e-12)


def test_a_torch_network_has_the_state_dict_of_the_module():
    module, mirror = UNet.from_config(TINY), TorchNetwork(graph(TINY))
    assert list(mirror.state_dict()) == list(module.state_dict())
    assert [name for name, _ in mirror.named_parameters()] == [name for name, _ in module.named_parameters()]


def twice():
    """A network with one kernel under two names."""
    kernel = Tensor((3, 3, 1, 1), "parameter")
    again = Tensor((3, 3, 1, 1), "parameter", "first.weight")
    still = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    nodes = [
        Node(name, "convolution", (before,), {"weight": f"{name}.weight"}, still)
        for before, name in (("input", "first"), ("first", "second"))
    ]
    return Graph(3, tuple(nodes), {"first.weight": kernel, "second.weight": again})


def test_a_tensor_under_two_names_stands_in_the_state_dict_twice_and_is_one():
    network = TorchNetwork(twice())
    value = torch.rand(3, 3, 1, 1)
    network.load_state_dict({"first.weight": value, "second.weight": value}, strict=True, assign=True)
    (parameter,) = network.parameters()
    assert list(network.state_dict()) == ["first.weight", "second.weight"]
    network(torch.rand(1, 3, 4, 4)).sum().backward()
    assert parameter.grad is not None
    assert len(list(copy.deepcopy(network).parameters())) == 1


@pytest.mark.parametrize(
    "name", ["logits.weight", "graph.0.conv.weight", "train.eval.weight", "a.sow_.bias", "config.x"]
)
def test_a_name_that_a_method_has_is_a_name_for_a_tensor_too(name):
    assert name_of(path_of(name)) == name
    tensors = {name: Tensor((4, 3, 1, 1), "parameter")}
    still = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    named = Graph(3, (Node("a", "convolution", ("input",), {"weight": name}, still),), tensors)
    network = Network(named)
    assert network(jnp.ones((1, 4, 4, 3))).shape == (1, 4, 4, 4)
    (path,) = (path for path, _ in nnx.to_flat_state(nnx.state(network, nnx.Param)))
    assert name_of(path) == name
    assert list(TorchNetwork(named).state_dict()) == [name]


@pytest.fixture(scope="module")
def network():
    return filled(Network(graph(TINY)), trained_tensors(TINY))


@pytest.fixture(scope="module")
def pictures():
    return jnp.array(picture((2, 8, 12, 3)))


def test_jit_and_vmap_run_it(network, pictures):
    network.eval()
    graphdef, state = nnx.split(network)
    expected = nnx.jit(lambda model, x: model(x))(network, pictures)
    np.testing.assert_allclose(jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, pictures), expected)
    each = jax.jit(jax.vmap(lambda x: nnx.merge(graphdef, state)(x[None])[0]))(pictures)
    np.testing.assert_allclose(each, expected, atol=1e-6)


def test_bfloat16_computes_in_it_and_keeps_float32_statistics(pictures):
    narrow = filled(Network(graph(TINY), dtype=jnp.bfloat16), trained_tensors(TINY))
    assert logits(narrow, pictures).dtype == jnp.bfloat16
    kinds = {variable.dtype for _, variable in narrow.variables()}
    assert kinds == {jnp.dtype("float32"), jnp.dtype("int32")}


@pytest.mark.slow
def test_remat_gives_the_same_gradients(pictures):
    def gradients(remat):
        model = filled(Network(graph(TINY), remat=remat), trained_tensors(TINY))
        return nnx.to_flat_state(nnx.jit(nnx.grad(lambda model: (model.logits(pictures) ** 2).mean()))(model))

    for (path, ours), (_, theirs) in zip(gradients(False), gradients(True), strict=True):
        np.testing.assert_allclose(ours[...], theirs[...], rtol=1e-4, atol=1e-6, err_msg=str(path))


def test_a_folded_copy_answers_as_the_network_in_eval_mode(network, pictures):
    network.eval()
    folded = frozen(network)
    assert not any(node.operation == "batch_norm" for node in folded.graph.nodes)
    np.testing.assert_allclose(answer(folded, pictures), answer(network, pictures), atol=2e-6)


class Head(nnx.Module):
    """A network of one's own with a ported one inside."""

    def __init__(self, backbone, rngs):
        self.backbone = backbone
        self.head = nnx.Conv(2, 4, (1, 1), rngs=rngs)

    def __call__(self, x):
        return self.head(self.backbone.logits(x))


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
def test_it_is_a_part_of_a_module_of_ones_own(pictures, frozen):
    import optax

    model = Head(filled(Network(graph(TINY)), trained_tensors(TINY)), nnx.Rngs(0))
    wrt = nnx.All(nnx.Param, nnx.PathContains("head")) if frozen else nnx.Param
    if frozen:
        model.backbone.eval()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=wrt)
    before = {name: np.array(variable[...]) for name, variable in model.backbone.variables()}
    head = np.array(model.head.kernel[...])

    @nnx.jit
    def step(model, optimizer):
        gradients = nnx.grad(lambda model: (model(pictures) ** 2).mean(), argnums=nnx.DiffState(0, wrt))(model)
        optimizer.update(model, gradients)

    step(model, optimizer)
    assert not np.array_equal(model.head.kernel[...], head)
    moved = [name for name, variable in model.backbone.variables() if not np.array_equal(variable[...], before[name])]
    assert (not moved) if frozen else ("down1.conv.0.weight" in moved and "down1.conv.1.running_mean" in moved)


@pytest.mark.parametrize("kind", few(["elements", "maps", "examples"], "maps"))
def test_dropout_draws_from_rngs_in_training_alone(pictures, kind):
    dropping = filled(Network(with_dropout(graph(TINY), kind)), trained_tensors(TINY))
    run = nnx.jit(lambda model, key: model.logits(pictures, rngs=key))
    first, again, *others = (run(dropping, jax.random.key(seed)) for seed in (1, 1, *range(2, 8)))
    np.testing.assert_array_equal(first, again)
    assert not all(np.array_equal(first, other) for other in others)
    with pytest.raises(ValueError, match="give rngs"):
        run(dropping, None)
    dropping.eval()
    np.testing.assert_array_equal(run(dropping, jax.random.key(1)), run(dropping, jax.random.key(2)))


@pytest.mark.slow
def test_rngs_of_its_own_draw_anew_at_every_call(pictures):
    dropping = filled(Network(with_dropout(graph(TINY)), rngs=nnx.Rngs(dropout=1)), trained_tensors(TINY))
    assert not np.array_equal(dropping.logits(pictures), dropping.logits(pictures))


def test_parts_of_a_batch_are_normalised_apart_in_both(one_thread):
    x = picture((4, 3, 8, 8))
    tensors = trained_tensors(TINY)
    ours = TorchNetwork(graph(TINY), norm_parts=2)
    fill(ours, tensors)
    theirs = filled(Network(graph(TINY), norm_parts=2), tensors)
    whole = filled(Network(graph(TINY)), tensors)
    there = jnp.array(x.transpose(0, 2, 3, 1))
    expected = ours.logits(torch.from_numpy(x)).detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(logits(theirs, there), expected, atol=1e-4)
    assert np.abs(logits(whole, there) - expected).max() > 1e-2
    for name, variable in theirs.variables():
        np.testing.assert_allclose(variable[...], ours.state_dict()[name].numpy(), rtol=1e-4, atol=1e-5)


def test_as_torch_and_fill_keep_the_dtypes():
    half = {
        name: value if value.dtype == COUNTER else value.astype(np.float16)
        for name, value in trained_tensors(TINY).items()
    }
    network = TorchNetwork(graph(TINY))
    fill(network, half)
    assert network.state_dict()["out.bias"].dtype == as_torch(half["out.bias"]).dtype == torch.float16


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_axes_are_counted_alike_in_both_layouts(training):
    """Rows that compute in any layout get their axes in it; what loses an axis goes back to torch's."""
    still = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    nodes = (
        Node("map", "convolution", ("input",), {"weight": "kernel"}, still),
        Node("joined", "concatenate", ("map", "input"), {}, {"axis": 1}),
        Node("shares", "softmax", ("joined",), {}, {"axis": -3}),
        Node("padded", "pad", ("shares",), {}, {"amounts": ((0, 0), (1, 0), (0, 2), (3, 1))}),
        Node("backward", "flip", ("padded",), {}, {"axes": (1, -1)}),
        Node("moved", "roll", ("backward",), {}, {"shifts": (1, 2), "axes": (-2, 1)}),
        Node("some", "take", ("moved",), {}, {"axis": 1, "indices": (5, 0, 7, 7)}),
        Node("mean", "mean", ("some",), {}, {"axes": (1,)}),
        Node("largest", "largest", ("some",), {}, {"axis": -1}),
        Node("rows", "stack", ("largest",), {}, {"axis": -1}),
        Node("columns", "reshape", ("mean",), {}, {"shape": ("batch", 1, "height + 2", "width + 4")}),
        Node("sum", "add", ("columns", "rows")),
        Node("factor", "parameter", (), {"value": "factor"}),
        Node("scaled", "multiply", ("factor", "sum")),
        Node("maps", "dropout", ("scaled",), {}, {"rate": 0.3, "kind": "maps"}),
        Node("dropped", "dropout", ("maps",), {}, {"rate": 0.3}),
    )
    tensors = {"kernel": Tensor((5, 3, 3, 3), "parameter"), "factor": Tensor((4, 1, 1), "parameter")}
    network = Graph(3, nodes, tensors)
    x = picture((2, 3, 5, 6), np.float64)
    values = {name: picture(tensor.shape, np.float64) for name, tensor in tensors.items()}
    draws = [np.random.default_rng(0).random for _ in range(2)]
    given = {name: torch.from_numpy(value) for name, value in values.items()}
    expected, _ = execution_of_torch.execute(
        network, given, torch.from_numpy(x), training=training, draw=lambda shape: torch.from_numpy(draws[0](shape))
    )
    given = {name: jnp.asarray(value) for name, value in values.items()}
    found = jax.jit(
        lambda given, x: execution_of_jax.execute(
            network, given, x, training=training, draw=lambda shape: jnp.asarray(draws[1](shape))
        )[0]
    )(given, jnp.asarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(np.asarray(found).transpose(0, 3, 1, 2), expected, rtol=0, atol=1e-13)


def test_a_kernel_that_two_convolutions_have_under_two_names_is_not_folded():
    plain = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    roles = {"weight": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"}
    nodes, tensors, last = [], {}, INPUT
    for layer, norm in (("a", "n"), ("b", "m")):
        same = "a.weight" if layer == "b" else None
        tensors[f"{layer}.weight"] = Tensor((2, 2, 1, 1), "parameter", same)
        for name in roles.values():
            tensors[f"{norm}.{name}"] = Tensor((2,), "statistic" if "running" in name else "parameter")
        nodes.append(Node(layer, "convolution", (last,), {"weight": f"{layer}.weight"}, plain))
        named = {role: f"{norm}.{name}" for role, name in roles.items()}
        nodes.append(Node(norm, "batch_norm", (layer,), named, {"epsilon": 1e-5, "momentum": 0.1}))
        last = norm
    graph = Graph(2, tuple(nodes), tensors)
    rng = np.random.default_rng(0)
    network = Network(graph)
    for _, variable in network.variables():
        variable.set_value(jnp.asarray(rng.uniform(0.5, 1.5, variable.shape), jnp.float32))
    network.eval()
    x = jnp.asarray(rng.standard_normal((1, 4, 4, 2)), jnp.float32)
    np.testing.assert_allclose(frozen(network)(x), network(x), rtol=1e-5, atol=1e-6)

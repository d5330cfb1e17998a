"""Modules are read from their code: the graph is what they compute, and what cannot be read is refused."""

import copy
import functools
from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch")

import foreign_networks
from torch import nn

import unet_torch
from unet_core.errors import UNetError
from unet_core.graph import Graph, Sizes
from unet_core.graph.probing import sizes_taken
from unet_torch.network import Network
from unet_torch.reading.read import picked, read

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "Small": "any size from 2 up",
    "Unpadded": "any size from 12 up",
    "BranchOnSize": "multiples of 2 from 2 up",
    "InPlace": "any size from 3 up",
    "Twice": "any size from 1 up",
    "DropPath": "any size from 1 up",
    "Norms": "any size from 2 up",
}
MORE_SIZES = {
    "NestedSkips": "multiples of 4 from 4 up",
    "BranchOnTensor": "multiples of 2 from 4 up",
    "AttentionGates": "any size from 2 up",
    "Recurrent": "any size from 1 up",
    "CroppedFromBothEnds": "any size from 12 up",
    "AveragePools": "any size from 4 up",
    "Antialiased": "any size from 2 up",
    "VGG": "any size from 2 up",
    "Residual": "any size from 1 up",
    "Dictionary": "any size from 2 up",
    "OtherInTraining": "any size from 2 up",
    "Dropouts": "any size from 1 up",
    "FrozenNorm": "any size from 2 up",
    "AttentionBlock": "any size from 4 up",
    "Convolutions": "any size from 2 up",
    "Tied": "any size from 1 up",
    "Volume": "any size from 2 up",
    "WithoutGradient": "any size from 2 up",
}


def network(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return foreign_networks.filled(getattr(foreign_networks, name)())


@functools.cache
def reading_of(name):
    """A module and what is read from it, which no test changes."""
    module = network(name)
    return module, read(module)


def run(reading, x):
    """What the graph answers, by the tensors of the module, in the precision of `x`."""
    model = Network(reading.graph).to(x.dtype).eval()
    state = {name: reading.tensors[tensor.same_as or name] for name, tensor in reading.graph.tensors.items()}
    model.load_state_dict(state)
    with torch.no_grad():
        return model(x)


def tried(name, sizes):
    module, reading = reading_of(name)
    assert str(reading.graph.sizes) == sizes
    assert not reading.graph.untrained
    assert {check.batch for check in reading.checks} == {1, 3}
    assert reading.checks[-1].gradients is not None
    assert Graph.from_json(reading.graph.to_json()) == reading.graph
    lengths = [reading.graph.minimum_size + step * reading.graph.sizes.multiple for step in (3, 6, 5)]
    x = torch.randn(2, reading.graph.in_channels, *lengths[: reading.graph.dimensions], dtype=torch.float64)
    with torch.no_grad():
        theirs = picked(copy.deepcopy(module).double().eval()(x))
    assert torch.allclose(run(reading, x), theirs, rtol=0, atol=1e-12 * float(theirs.abs().max()))


@pytest.mark.parametrize("name", SIZES)
def test_a_module_and_what_was_read_from_it_answer_the_same(name):
    tried(name, SIZES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_SIZES)
def test_more_modules_and_what_was_read_from_them_answer_the_same(name):
    tried(name, MORE_SIZES[name])


def test_nodes_are_named_after_modules_and_operations():
    names = [node.name for node in reading_of("Recurrent")[1].graph.nodes]
    assert names == [
        *("first", "conv.0", "conv.1", "conv.2", "add", "conv.0#2", "conv.1#2", "conv.2#2"),
        *("add#2", "conv.0#3", "conv.1#3", "conv.2#3", "add#3", "out"),
    ]


def test_tensors_under_two_names_are_one():
    reading = reading_of("Twice")[1]
    tensors = reading.graph.tensors
    assert tensors["all.0.weight"].same_as == "conv.weight"
    assert tensors["all.1.num_batches_tracked"].same_as == "norm.num_batches_tracked"
    assert list(tensors) == list(network("Twice").state_dict())
    assert "all.0.weight" not in reading.tensors
    assert "unused.weight" in reading.tensors
    used = {name for node in reading.graph.nodes for name in node.tensors.values()}
    assert used == {*(name for name in reading.tensors if not name.startswith(("unused", "order")))}


def test_the_module_stays_as_it_is():
    module = network("Norms").train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    reading = read(module)
    assert module.training
    assert module.cumulative.momentum is None
    assert "forward" not in vars(module)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert reading.tensors["out.weight"].data_ptr() == module.out.weight.data_ptr()


def node_of(name, operation, place=0):
    nodes = reading_of(name)[1].graph.nodes
    return [node for node in nodes if node.operation == operation][place]


def test_norms_say_how_they_are_trained():
    graph = reading_of("Norms")[1].graph
    norms = {node.name: node for node in graph.nodes if node.operation.endswith("_norm")}
    assert norms["plain"].attributes["momentum"] == 0.3
    assert dict(norms["plain"].tensors) == {
        "mean": "plain.running_mean",
        "variance": "plain.running_var",
        "count": "plain.num_batches_tracked",
    }
    assert norms["cumulative"].attributes["momentum"] is None
    assert set(norms["batch"].tensors) == {"weight", "bias"}
    assert norms["instance"].tensors["mean"] == "instance.running_mean"
    assert norms["layer"].attributes["epsilon"] == 1e-3


@pytest.mark.slow
def test_a_norm_that_stays_in_eval_mode_is_frozen():
    assert node_of("FrozenNorm", "batch_norm").attributes["frozen"]
    assert not node_of("FrozenNorm", "batch_norm", 1).attributes["frozen"]


@pytest.mark.slow
def test_dropout_is_kept_as_it_is():
    graph = reading_of("Dropouts")[1].graph
    drops = [node.attributes for node in graph.nodes if node.operation == "dropout"]
    assert [(drop["kind"], drop["rate"], drop["always"]) for drop in drops] == [
        ("maps", 0.3, False),
        ("elements", 0.2, False),
        ("elements", 0.1, False),
    ]
    assert node_of("DropoutAlways", "dropout").attributes["always"]


def test_random_branches_are_a_program_of_their_own():
    graph = reading_of("DropPath")[1].graph
    assert not [node for node in graph.nodes if node.operation == "chance"]
    assert graph.training is not None
    drawn = [node.attributes["probability"] for node in graph.training.nodes if node.operation == "chance"]
    assert drawn == [0.7, None]


class ByDtype(nn.Conv2d):
    def forward(self, x):
        answer = super().forward(x)
        return answer if x.dtype in self.precisions else 2 * answer


@pytest.mark.parametrize("precisions", [(torch.float64,), (torch.float64, torch.float32)])
def test_code_computes_in_float32_what_it_computes_in_float64(precisions):
    module = ByDtype(1, 1, 1)
    module.precisions = precisions
    with pytest.raises(UNetError, match="in float32 its code answers") if len(precisions) == 1 else nullcontext():
        read(module)


class Tempered(nn.Conv2d):
    temperature = 2.0

    def get_extra_state(self):
        return {"temperature": self.temperature}

    def forward(self, x):
        return super().forward(x) / self.temperature


def test_a_state_dict_under_other_names_is_refused():
    module = nn.Conv2d(1, 1, 1)
    module._register_state_dict_hook(lambda part, state, prefix, local: state.update(kernel=state.pop("weight")))
    with pytest.raises(UNetError, match="other names than its parameters: weight"):
        read(module)


def test_state_that_is_no_tensor_is_refused():
    with pytest.raises(UNetError, match="what is no tensor, and no checkpoint here keeps: _extra_state"):
        read(Tempered(1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "why"), [("Detached", "detaches"), ("NoGradient", "no gradient")])
def test_code_that_cannot_be_trained_says_why(name, why):
    graph = read(network(name)).graph
    assert why in graph.untrained


@pytest.mark.parametrize(
    ("out", "channels", "last"),
    [
        (None, 2, "max_pool"),
        pytest.param("out", 2, "sigmoid", marks=pytest.mark.slow),
        ("aux.deep.1", 1, "sigmoid"),
    ],
)
def test_one_of_several_answers_is_meant(out, channels, last):
    reading = read(network("Dictionary"), out=out)
    assert reading.outputs == ("aux.deep.0", "aux.deep.1", "out")
    assert (reading.graph.out_channels, reading.graph.nodes[-1].operation) == (channels, last)
    assert "3 tensors" in reading.notes[0]


def test_an_answer_that_is_not_there_is_refused():
    answer = network("Dictionary")(torch.randn(1, 3, 8, 8))
    assert picked(answer, 1) is answer["aux"]["deep"][1]
    assert picked(answer, "aux") is answer["aux"]["deep"][0]
    for out in (3, "logits"):
        with pytest.raises(UNetError, match="answers"):
            picked(answer, out)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WeightNorm", "conv: .*remove_parametrizations"),
        ("OldWeightNorm", "conv: .*remove_weight_norm"),
        ("WithoutRow", "aten.cumsum.default, aten.erfinv.default"),
        ("BranchOnPicture", "branches on a value that it computes from the picture"),
        pytest.param("FixedSize", "--size", marks=pytest.mark.slow),
        ("TwoPictures", "TwoPictures: its code fails .*missing 1 required positional argument: 'other'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(name, message, capfd):
    with pytest.raises(UNetError, match=message) as refused:
        read(network(name))
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_kernel_that_is_computed_is_refused():
    with pytest.raises(UNetError, match=r"0: the kernel is computed"):
        read(nn.Sequential(foreign_networks.Standardised(3, 4, 3)))


def test_code_that_does_something_else_at_every_size_is_read_at_those_that_are_named():
    module = network("FixedSize")
    x = torch.randn(1, 3, 20, 30)
    reading = read(module, x)
    assert reading.graph.sizes == Sizes(only=((20, 30),))
    assert torch.allclose(run(reading, x), module(x).detach(), rtol=1e-5)
    with pytest.raises(UNetError, match="no one graph is the code at 20x30 and 24x30"):
        read(module, sizes=[(20, 30), (24, 30)])


@pytest.mark.slow
def test_a_size_that_is_named_is_one_that_the_network_takes():
    assert read(network("BranchOnTensor"), (26, 34)).graph.sizes == Sizes(multiple=2, least=4)
    odd = read(network("BranchOnTensor"), (25, 33)).graph
    assert odd.sizes == Sizes(only=((25, 33),))
    assert "pad" in [node.operation for node in odd.nodes]
    with pytest.raises(UNetError, match="its code fails on every picture that was tried: 3 channels, 7x9"):
        read(network("Unpadded"), (7, 9))


@pytest.mark.parametrize(
    ("network_name", "operation", "attribute", "value", "message"),
    [
        ("Small", "batch_norm", "epsilon", 1e-3, "what was read is not what its code computes"),
        pytest.param(
            "Small",
            "batch_norm",
            "momentum",
            0.2,
            "the running statistics of down.1.running_mean",
            marks=pytest.mark.slow,
        ),
        ("Dropouts", "dropout", "kind", "elements", "in training mode the graph answers"),
        pytest.param(
            "Antialiased",
            "interpolate",
            "align_corners",
            True,
            "what was read is not what its code computes",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "Recurrent", "batch_norm", "frozen", True, "in training mode the graph answers", marks=pytest.mark.slow
        ),
    ],
)
def test_a_wrong_row_is_found(monkeypatch, network_name, operation, attribute, value, message):
    add = unet_torch.reading.program.Program.add

    def wrong(self, name, *inputs, **given):
        return add(self, name, *inputs, **({**given, attribute: value} if name == operation else given))

    monkeypatch.setattr(unet_torch.reading.program.Program, "add", wrong)
    with pytest.raises(UNetError, match=message):
        read(network(network_name))


@pytest.mark.parametrize(
    ("takes", "traced", "found"),
    [
        (lambda size: True, (95, 63), Sizes()),
        (lambda size: all(length % 8 == 0 for length in size), (64, 96), Sizes(8, 8)),
        (lambda size: min(size) >= 21, (95, 63), Sizes(1, 21)),
        (lambda size: all(length % 14 == 0 for length in size), (84, 126), Sizes(14, 14)),
        (lambda size: all(length % 4 == 0 and length >= 24 for length in size), (32, 64, 32), Sizes(4, 24)),
        (lambda size: size == (64, 96), (64, 96), None),
        (lambda size: size != (64, 96), (64, 96), None),
        (lambda size: all(length % 2 for length in size), (95, 63), None),
    ],
)
def test_sizes_are_found_by_trying(takes, traced, found):
    assert sizes_taken(takes, traced) == found


def test_statistics_beside_the_answer_are_renewed_as_the_code_renews_them():
    """The first of two maps needs no level below the second, whose BatchNorms the code runs all the same."""
    graph = reading_of("NestedSkips")[1].graph
    beside = {"conv20.1.running_mean", "conv02.1.running_var"}

    def used(graph):
        return {name for node in graph.nodes for name in node.tensors.values()}

    assert not used(graph) & beside
    assert used(graph.in_mode(training=True)) >= beside
    assert not {"conv20.0.weight", "final2.weight"} & graph.trained


def test_what_code_counts_beside_the_network_is_left_to_it():
    class Counting(foreign_networks.Small):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.calls += 1
            return super().forward(x)

    assert not read(Counting()).graph.untrained


def test_statistics_behind_the_answer_leave_the_network_untrained():
    class Behind(foreign_networks.Small):
        def __init__(self):
            super().__init__()
            self.again = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))

        def forward(self, x):
            answer = super().forward(x)
            return [answer, self.again(answer)]

    assert "what is computed from the answer renews running statistics" in read(Behind()).graph.untrained

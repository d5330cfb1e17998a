"""UNets of other projects: recognised, converted, the same in JAX, and back under their own names."""

import copy
import dataclasses
import json

import numpy as np
import pytest
from conftest import few

from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig, UNetError

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx
from foreign_unets import AttributeUNet, FlatUNet, ListedUNet, MateuszBuda, Milesial, Milesial2019, trained

import conversion
import unet_jax
import unet_torch
from conversion import Hints

FOREIGN = {
    "milesial bilinear": (lambda: Milesial(3, 2, True, width=4), "milesial", Hints(), (37, 53)),
    "milesial transposed": (lambda: Milesial(1, 1, width=4), "milesial", Hints(), (37, 53)),
    "milesial bilinear with biases": (lambda: Milesial(3, 1, True, width=4, bias=True), "milesial", Hints(), (37, 53)),
    "milesial transposed with biases": (lambda: Milesial(3, 1, width=6, bias=True), "milesial", Hints(), (37, 53)),
    "milesial 2019": (lambda: Milesial2019(3, 1, width=4), "milesial-2019", Hints(output="sigmoid"), (37, 53)),
    "milesial 2019 transposed": (
        lambda: Milesial2019(3, 1, False, width=4),
        "milesial-2019",
        Hints(output="sigmoid"),
        (37, 53),
    ),
    "mateuszbuda": (lambda: MateuszBuda(init_features=4), "mateuszbuda", Hints(), (32, 48)),
    "module lists": (ListedUNet, "generic", Hints(skip_first=True, output="logits", align_corners=False), (29, 43)),
    "flat names": (FlatUNet, "generic", Hints(skip_first=False, output="softmax", align_corners=False), (29, 43)),
    "attributes": (AttributeUNet, "generic", Hints(skip_first=False, output="sigmoid"), (20, 28)),
}


def same(state, other):
    return list(state) == list(other) and all(
        value.dtype == other[key].dtype and torch.equal(value, other[key]) for key, value in state.items()
    )


@pytest.fixture
def foreign(request):
    make, dialect, hints, size = FOREIGN[request.param]
    return trained(make()), dialect, hints, size


def assert_same_answers(model, in_jax, size):
    """Against the project's own forward pass, in float64, what it makes of its logits included."""
    x = np.random.default_rng(0).standard_normal((2, *size, in_jax.config.in_channels))
    graphdef, state = nnx.split(in_jax)
    found = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, jnp.asarray(x))
    with torch.no_grad():
        reference = model(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.asarray(found) - reference).max() <= 1e-12 * np.abs(reference).max()


@pytest.mark.parametrize(
    "foreign",
    few(list(FOREIGN), "mateuszbuda"),
    indirect=True,
)
def test_the_same_answers_in_jax(foreign, tmp_path, x64):
    model, dialect, hints, size = foreign
    torch.save(model.double().state_dict(), tmp_path / "a.pt")
    done = conversion.convert(tmp_path / "a.pt", tmp_path / "a", hints=hints, unchecked=True, verify=False)
    assert done.checkpoint.origin.dialect == dialect
    assert_same_answers(model, unet_jax.load(tmp_path / "a"), size)


FULL = {
    "milesial bilinear": (lambda: Milesial(3, 2, True), (133, 117)),
    "milesial transposed": (lambda: Milesial(3, 2), (133, 117)),
    "milesial bilinear with biases": (lambda: Milesial(3, 1, True, bias=True), (133, 117)),
    "mateuszbuda": (MateuszBuda, (128, 160)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_the_projects_networks_at_full_size(tmp_path, name):
    """Converted from the file, in float64 and in float32, and back."""
    make, size = FULL[name]
    torch.manual_seed(0)
    model = make().train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(2, 3, 64, 64) * 2 + 1)
    model.eval()
    state = model.state_dict()
    torch.save(state, tmp_path / "a.pth")
    done = conversion.convert(tmp_path / "a.pth", tmp_path / "a", verify=False)
    conversion.convert(tmp_path / "a", tmp_path / "back.pth", dialect=done.checkpoint.origin.dialect, verify=False)
    assert same(torch.load(tmp_path / "back.pth", weights_only=True), state)
    x = np.random.default_rng(0).standard_normal((1, *size, 3), np.float32)
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        own = model(nchw).permute(0, 2, 3, 1).double().numpy()
        exact = model.double()(nchw.double()).permute(0, 2, 3, 1).numpy()
    with jax.enable_x64(True):
        assert_same_answers(model, conversion.to_jax(model), size)
    graphdef, variables = nnx.split(unet_jax.load(tmp_path / "a"))
    ours = jax.jit(lambda variables, x: nnx.merge(graphdef, variables)(x))(variables, jnp.asarray(x))
    assert np.abs(ours - exact).max() <= 1.25 * np.abs(own - exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", few(["milesial bilinear with biases", "mateuszbuda", "flat names"], "flat names"))
def test_a_live_module_crosses_over_in_training_mode(name, x64):
    make, _, _, size = FOREIGN[name]
    model = trained(make()).double().train()
    in_jax = conversion.to_jax(model)
    assert in_jax.training
    assert_same_answers(model, in_jax, size)


@pytest.mark.parametrize("foreign", few(list(FOREIGN), "milesial 2019", "flat names"), indirect=True)
def test_back_under_its_own_names(foreign, tmp_path):
    model, dialect, hints, _ = foreign
    torch.save(model.state_dict(), tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "a", hints=hints, unchecked=True, verify=False)
    for name in ("back.pt", "back.safetensors"):
        conversion.convert(tmp_path / "a", tmp_path / name, dialect=dialect, verify=False)
    state = torch.load(tmp_path / "back.pt", weights_only=True)
    assert same(state, model.state_dict())
    copy.deepcopy(model).load_state_dict(state, strict=True)
    safetensors = pytest.importorskip("safetensors.torch")
    assert same(dict(sorted(safetensors.load_file(tmp_path / "back.safetensors").items())), dict(sorted(state.items())))


@pytest.mark.parametrize("foreign", few(list(FOREIGN), "mateuszbuda", "attributes"), indirect=True)
def test_the_command_brings_it_back(foreign, tmp_path):
    model, dialect, hints, _ = foreign
    torch.save(model.state_dict(), tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "a", hints=hints, unchecked=True, verify=False)
    command = ["convert", str(tmp_path / "a"), str(tmp_path / "back.pt"), "--no-verify", "--dialect", dialect]
    assert main(command) == 0
    assert same(torch.load(tmp_path / "back.pt", weights_only=True), model.state_dict())


@pytest.mark.parametrize("foreign", few(list(FOREIGN), "milesial bilinear", "module lists"), indirect=True)
def test_what_went_back_is_read_again_and_is_sealed(foreign, tmp_path):
    """The record travels with the foreign names: config, digests and origin are stored."""
    model, dialect, hints, _ = foreign
    torch.save(model.state_dict(), tmp_path / "a.pt")
    first = conversion.convert(
        tmp_path / "a.pt", tmp_path / "b.pt", hints=hints, unchecked=True, dialect=dialect, verify=False
    )
    found = conversion.inspect(tmp_path / "b.pt")
    assert found.digests
    assert found.config == first.checkpoint.config
    assert found.dialect == dialect


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("milesial bilinear", marks=pytest.mark.slow),
        pytest.param("mateuszbuda", marks=pytest.mark.slow),
        pytest.param("attributes", marks=pytest.mark.slow),
    ],
)
def test_the_proof_runs_the_projects_own_code(name, tmp_path):
    model, read = by_names(tmp_path, *FOREIGN[name][::2])
    size = FOREIGN[name][3]
    proof = conversion.verify(model, read, size=(2 * size[0], 2 * size[1]))
    assert proof.equal, proof.verdict


def by_names(folder, make, hints, name="a"):
    """A project's own module, and what its weights are read as by names, shapes and hints, in JAX or in a .pt file."""
    model = trained(make())
    torch.save(model.state_dict(), folder / "a.pt")
    conversion.convert(folder / "a.pt", folder / name, hints=hints, unchecked=True, verify=False)
    return model, folder / name


@pytest.mark.slow
def test_another_reading_does_not_pass_the_proof(tmp_path):
    """The control: under the other concatenation order the project's own code answers something else."""
    proof = conversion.verify(
        *by_names(tmp_path, AttributeUNet, Hints(skip_first=True, output="sigmoid")), size=(40, 56)
    )
    assert proof.departure.layer == "d1.conv1"
    assert "the concatenation order is swapped" in proof.departure.cause


QUESTIONS = {
    "milesial 2019": ("output",),
    "module lists": ("skip_first", "output"),
    "flat names": ("skip_first", "output", "align_corners"),
}


@pytest.mark.parametrize(
    ("name", "asked"), few({name: (name, asked) for name, asked in QUESTIONS.items()}, "module lists", "flat names")
)
def test_what_nothing_tells_is_asked_not_guessed(tmp_path, capsys, name, asked):
    torch.save(trained(FOREIGN[name][0]()).state_dict(), tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify"]) == 2
    message = capsys.readouterr().err
    assert f"nothing in it tells {', '.join(asked)}: " in message
    assert all(f"--{option.replace('_', '-')} " in message for option in asked)
    assert conversion.inspect(tmp_path / "a.pt").unknown == asked
    answers = [
        part for option in asked for part in (f"--{option.replace('_', '-')}", str(getattr(FOREIGN[name][2], option)))
    ]
    command = ["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify", "--unchecked"]
    assert main([*command, *answers]) == 0


def test_an_answer_is_stored(tmp_path):
    torch.save(trained(AttributeUNet()).state_dict(), tmp_path / "a.pt")
    hints = Hints(skip_first=True, output="softmax", norm_epsilon=1e-3)
    conversion.convert(tmp_path / "a.pt", tmp_path / "a", hints=hints, unchecked=True, verify=False)
    config = conversion.inspect(tmp_path / "a").config
    assert (config.skip_first, config.output, config.norm_epsilon) == (True, "softmax", 1e-3)


@pytest.mark.parametrize("option", [["--skip-first", "True"], ["--dialect", "milesial"], ["--key", "ema"]])
def test_an_option_that_contradicts_the_stored_config_is_refused(tmp_path, capsys, option):
    unet_torch.save(unet_torch.UNet(features=(2, 3), seed=0), tmp_path / "a.pt")
    assert main(["inspect", str(tmp_path / "a.pt"), *option]) == 2
    assert "contradicts what you say" in capsys.readouterr().err


@pytest.mark.parametrize("values", [pytest.param([0, 1], marks=pytest.mark.slow), [[0, 0, 0], [255, 255, 255]]])
def test_mask_values_come_back(tmp_path, values):
    """The project's own scripts take them out of the state_dict before they load it."""
    state = {**trained(Milesial(3, 2, True, width=4)).state_dict(), "mask_values": values}
    torch.save(state, tmp_path / "a.pth")
    conversion.convert(tmp_path / "a.pth", tmp_path / "a", verify=False)
    conversion.convert(tmp_path / "a", tmp_path / "b.safetensors", verify=False)
    conversion.convert(tmp_path / "b.safetensors", tmp_path / "back.pth", dialect="milesial", verify=False)
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(state)
    assert back["mask_values"] == values


def test_a_file_without_counters_goes_back_without_them(tmp_path):
    """As torch before 0.4.1 wrote them."""
    state = trained(Milesial2019(3, 1, width=4)).state_dict()
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    done = conversion.convert(tmp_path / "a.pth", tmp_path / "a", hints=Hints(output="sigmoid"), verify=False)
    assert "num_batches_tracked 0 (the file has none)" in done.checkpoint.reading.assumed
    conversion.convert(tmp_path / "a", tmp_path / "back.pth", dialect="milesial-2019", verify=False)
    assert same(torch.load(tmp_path / "back.pth", weights_only=True), state)


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("mateuszbuda", "runs another network: upsampling is bilinear here, transposed there; "),
        ("milesial", "runs another network: skip_first is False here, True there; fit is resize here, pad there; "),
        ("generic", "did not come under names of its own, but under those of own"),
        ("nobody", "unknown; known are own, milesial"),
    ],
)
def test_a_network_does_not_go_out_under_names_whose_code_runs_another(tmp_path, dialect, message):
    unet_torch.save(unet_torch.UNet(features=(2, 3), seed=0), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        conversion.convert(tmp_path / "a.pt", tmp_path / "b.pt", dialect=dialect, verify=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_an_orbax_directory_has_names_of_its_own(tmp_path, capsys):
    torch.save(trained(MateuszBuda(init_features=2)).state_dict(), tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify", "--dialect", "milesial"]) == 2
    assert "do not have the names of the dialect milesial" in capsys.readouterr().err
    assert (
        main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify", "--dialect", "mateuszbuda"]) == 0
    )
    with pytest.raises(CheckpointError, match="an Orbax directory has the NNX names"):
        conversion.convert(tmp_path / "a.pt", tmp_path / "b", dialect="mateuszbuda", verify=False)


def test_a_twin_opens_the_files_of_other_projects(tmp_path):
    model = trained(MateuszBuda(init_features=2))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "a.safetensors", dialect="mateuszbuda", verify=False)
    assert unet_torch.load(tmp_path / "a.pt").config == unet_jax.load(tmp_path / "a.safetensors").config
    assert torch.equal(unet_torch.load(tmp_path / "a.pt").up1.up.weight, model.upconv1.weight)


@pytest.mark.parametrize("key", ["inc.double_conv.0.weight", "up4.conv.double_conv.4.running_var", "outc.conv.bias"])
def test_a_missing_tensor_has_the_files_own_name(tmp_path, key):
    state = trained(Milesial(3, 1, width=2)).state_dict()
    del state[key]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=f"missing: {key}$"):
        unet_torch.load(tmp_path / "a.pt")


def test_what_looks_wrong_has_the_files_own_name(tmp_path):
    state = trained(Milesial(3, 1, width=2)).state_dict()
    state["up1.conv.double_conv.1.bias"][0] = -100
    torch.save(state, tmp_path / "a.pt")
    assert conversion.inspect(tmp_path / "a.pt").problems == (
        "dead channels, whose ReLU never fires: up1.conv.double_conv.1 1 of 16",
    )
    state["outc.conv.bias"][0] = torch.nan
    torch.save(state, tmp_path / "a.pt")
    assert conversion.inspect(tmp_path / "a.pt").problems == ("outc.conv.bias: 1 of 1 values are NaN or infinite",)
    with pytest.raises(CheckpointError, match=r"outc\.conv\.bias: 1 of 1 values are NaN"):
        unet_torch.load(tmp_path / "a.pt")


def test_an_extra_tensor_may_have_a_canonical_name(tmp_path):
    torch.save({**trained(Milesial(3, 1, width=2)).state_dict(), "out.bias": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"not of this network: out\.bias$"):
        unet_torch.load(tmp_path / "a.pt")


@pytest.mark.slow
def test_a_size_that_the_projects_code_does_not_take_is_said(tmp_path):
    model, read = by_names(tmp_path, lambda: MateuszBuda(init_features=2), Hints())
    with pytest.raises(UNetError, match="size 33x47: the network takes multiples of 16 from 16 up"):
        conversion.verify(model, read, size=(33, 47))


@pytest.mark.parametrize("name", few(["module lists", "milesial bilinear"], "milesial bilinear"))
def test_a_network_trained_on_in_jax_still_goes_back(tmp_path, name):
    """The origin travels with the models: through load, save, and across the frameworks."""
    make, dialect, hints, _ = FOREIGN[name]
    state = {**trained(make()).state_dict(), **({"mask_values": [0, 1]} if dialect == "milesial" else {})}
    torch.save(state, tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "a", hints=hints, unchecked=True, verify=False)
    model = unet_jax.load(tmp_path / "a")
    model.out.bias[...] += 1
    unet_jax.save(conversion.to_jax(conversion.to_torch(nnx.clone(model))), tmp_path / "b")
    conversion.convert(tmp_path / "b", tmp_path / "back.pt", dialect=dialect, verify=False)
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert list(back) == list(state)
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    changed = [key for key, value in tensors.items() if not torch.equal(value, back[key])]
    assert changed == [key for key in state if key in ("final_conv.bias", "outc.conv.bias")]


def test_the_names_of_a_file_and_where_it_came_from_are_told_apart(tmp_path):
    torch.save(trained(MateuszBuda(init_features=2)).state_dict(), tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "b.pt", verify=False)
    found = [conversion.inspect(tmp_path / name) for name in ("a.pt", "b.pt")]
    assert [(one.dialect, one.origin) for one in found] == [("mateuszbuda", "mateuszbuda"), ("own", "mateuszbuda")]


def test_what_is_unknown_is_null_for_machines(tmp_path):
    torch.save(trained(AttributeUNet()).state_dict(), tmp_path / "a.pt")
    fields = json.loads(conversion.inspect(tmp_path / "a.pt").to_json())
    assert fields["config"]["skip_first"] is fields["config"]["output"] is None
    assert fields["config"]["upsampling"] == "transposed"


def test_what_a_person_says_against_the_projects_code_is_said(tmp_path, capsys):
    torch.save(trained(Milesial(3, 1, width=2)).state_dict(), tmp_path / "a.pt")
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a"), "--no-verify", "--output", "sigmoid"]) == 0
    assert "overruled: output sigmoid, where milesial/Pytorch-UNet has logits: as you say" in capsys.readouterr().out


NOT_BUILT = {
    "another depth": (UNetConfig(3, 1, (2, 4, 8), "transposed", True, True, "pad", output="logits"), "milesial"),
    "a bilinear one with a wide bottom": (
        UNetConfig(3, 1, (2, 4, 8, 16, 32), "bilinear", True, True, "pad", output="logits"),
        "milesial",
    ),
    "without biases": (
        UNetConfig(3, 1, (2, 4, 8, 16, 16), "bilinear", True, True, "pad", False, "logits", (2, 2, 4, 8)),
        "milesial-2019",
    ),
}


@pytest.mark.parametrize(("config", "dialect"), NOT_BUILT.values(), ids=NOT_BUILT)
def test_a_network_that_the_projects_class_does_not_build_does_not_go_out(tmp_path, config, dialect):
    unet_torch.save(unet_torch.UNet.from_config(config, seed=0), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="its class builds no network of these widths"):
        conversion.convert(tmp_path / "a.pt", tmp_path / "b.pt", dialect=dialect, verify=False)


@pytest.mark.parametrize("bilinear", [False, True])
def test_a_network_of_ones_own_goes_out_where_the_class_builds_it(tmp_path, bilinear):
    widths = {"features": (2, 4, 8, 16, 16), "decoder_features": (2, 2, 4, 8), "middle_features": (2, 4, 8, 16)}
    transposed = {"features": (2, 4, 8, 16, 32), "upsampling": "transposed"}
    model = unet_torch.UNet(
        3, 2, **(widths if bilinear else transposed), skip_first=True, fit="pad", output="logits", seed=0
    )
    unet_torch.save(model, tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "b.pt", dialect="milesial", verify=False)
    Milesial(3, 2, bilinear, width=2).load_state_dict(torch.load(tmp_path / "b.pt", weights_only=True), strict=True)


def prefixed(prefix, model):
    return {f"{prefix}{key}": value for key, value in model.state_dict().items()}


def test_of_two_networks_without_a_table_the_usual_one_is_taken(tmp_path):
    one, other = trained(AttributeUNet()), trained(AttributeUNet(), seed=1)
    torch.save({"state_dict": {**prefixed("ema.", other), **prefixed("net.", one)}}, tmp_path / "a.pt")
    found = conversion.inspect(tmp_path / "a.pt")
    assert (found.key, found.others) == ("state_dict.net", ("state_dict.ema",))


def test_of_two_networks_under_unusual_prefixes_one_is_named(tmp_path):
    one, other = trained(AttributeUNet()), trained(AttributeUNet(), seed=1)
    torch.save({"state_dict": {**prefixed("teacher.", other), **prefixed("student.", one)}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        conversion.inspect(tmp_path / "a.pt")
    assert conversion.inspect(tmp_path / "a.pt", hints=Hints(key="teacher")).key == "state_dict.teacher"


def test_a_network_that_may_be_a_part_of_a_larger_one_is_not_taken_alone(tmp_path):
    state = {**prefixed("unet.", trained(AttributeUNet())), "refine.weight": torch.ones(2, 2, 3, 3)}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"may be a part of a larger one, with refine\.weight .* --key unet"):
        conversion.inspect(tmp_path / "a.pt")
    assert conversion.inspect(tmp_path / "a.pt", hints=Hints(key="unet")).key == "unet"


def test_blocks_of_equal_widths_are_asked_for(tmp_path, capsys):
    model = unet_torch.UNet(features=(4, 4, 4), seed=0)
    layers = {}
    state = {}
    for key, value in model.state_dict().items():
        layer, _, name = key.rpartition(".")
        state[f"layer{layers.setdefault(layer, len(layers))}.{name}"] = value
    torch.save(state, tmp_path / "a.pt")
    answers = ["--skip-first", "False", "--output", "sigmoid", "--align-corners", "True"]
    command = [
        "convert",
        str(tmp_path / "a.pt"),
        str(tmp_path / "b.safetensors"),
        "--no-verify",
        *answers,
        "--unchecked",
    ]
    assert main(command) == 2
    assert "nothing in it tells block_order" in capsys.readouterr().err
    assert main([*command, "--source-dialect", "generic"]) == 0
    assert torch.equal(unet_torch.load(tmp_path / "b.safetensors").up1.conv[0].weight, model.up1.conv[0].weight)


@pytest.mark.slow
def test_the_proof_sees_what_a_projects_code_makes_of_its_logits(tmp_path):
    model, read = by_names(tmp_path, lambda: Milesial2019(3, 1, width=2), Hints(output="logits"), "b.pt")
    proof = conversion.verify(model, read, size=(64, 64))
    assert "the network answers sigmoid in A, logits in B" in proof.verdict


@pytest.mark.parametrize(
    ("wrong", "cause", "name"),
    few(
        {
            "order": ({"skip_first": True}, "the concatenation order is swapped", "b.pt"),
            "order in JAX": ({"skip_first": True}, "the concatenation order is swapped", "b"),
            "corners": ({"align_corners": True}, "the upsampling uses align_corners, not half-pixel corners", "b"),
            "epsilon": ({"norm_epsilon": 1e-3}, "epsilon is 0.001 instead of 1e-05", "b"),
        },
    ),
)
def test_the_proof_names_what_a_projects_code_does_otherwise_than_was_said(tmp_path, wrong, cause, name):
    hints = dataclasses.replace(FOREIGN["flat names"][2], **wrong)
    proof = conversion.verify(*by_names(tmp_path, lambda: FlatUNet(width=2), hints, name), size=(32, 48))
    assert cause in proof.departure.cause


@pytest.mark.slow
def test_by_default_a_network_is_run_on_a_size_that_it_takes(tmp_path):
    proof = conversion.verify(*by_names(tmp_path, lambda: AttributeUNet(width=2), FOREIGN["attributes"][2]))
    assert proof.equal, proof.verdict
    assert {check.sample.split(" +")[0] for check in proof.checks} == {"random 3x16x20", "grace_hopper 32x24"}


@pytest.mark.slow
def test_a_sigmoid_in_place_is_read_as_one(tmp_path):
    class InPlace(AttributeUNet):
        def forward(self, x):
            s1 = self.e1(x)
            s2 = self.e2(torch.nn.functional.max_pool2d(s1, 2))
            x = self.b(torch.nn.functional.max_pool2d(s2, 2))
            return self.outputs(self.d2(self.d1(x, s2), s1)).sigmoid_()

    model, read = by_names(tmp_path, InPlace, FOREIGN["attributes"][2])
    assert conversion.verify(model, read, size=(16, 16)).equal


def test_hints_go_for_both_sides_that_store_no_config(tmp_path):
    make, _, hints, _ = FOREIGN["attributes"]
    model = trained(make())
    torch.save(model.state_dict(), tmp_path / "a.pt")
    conversion.convert(tmp_path / "a.pt", tmp_path / "b.pt", hints=hints, unchecked=True, verify=False)
    proof = conversion.verify(tmp_path / "b.pt", tmp_path / "a.pt", hints=hints, unchecked=True, size=(16, 16))
    assert proof.equal


def test_a_state_dict_is_no_module():
    with pytest.raises(UNetError, match="a torch module is needed, got OrderedDict"):
        conversion.to_jax(MateuszBuda(init_features=2).state_dict())

"""Both programs lower for a TPU and for CUDA; what `benchmarks.tpu_aot` reads in compiled ones, and says without."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import few

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

from benchmarks import tpu_aot
from benchmarks.tpu_program import Collective, buffers, collectives, moves, parse, source_lines
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.training.train_config import TrainConfig
from unet_jax.training.mesh import mesh_of
from unet_jax.training.step import abstract_state, updater

RECIPE = TrainConfig(features=(4, 6, 8), batch=2, crop=16, precision="bfloat16")


def lowered(function, *arguments, platform="tpu"):
    """The text of a program for a platform, of which nothing is needed for it."""
    return export.export(jax.jit(function), platforms=(platform,))(*arguments).mlir_module()


def indexing(text):
    """The operations of a program that read or write at computed places; max-pool's gradient is none of them."""
    return set(re.findall(r"stablehlo\.(?:dynamic_)?(gather|scatter)\b", text))


def network(variant):
    return tpu_aot.network(variant, Checkpoint(UNetConfig(features=RECIPE.features), {}), RECIPE)


@pytest.mark.parametrize("variant", ["ours", "plain"])
@pytest.mark.parametrize("size", few([((16, 16),), ((13, 18),)], ((13, 18),)))
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_inference_lowers_without_indexing(variant, size, platform):
    forward, variables = tpu_aot.forward_of(network(variant))
    text = lowered(forward, variables, jax.ShapeDtypeStruct((2, *size, 3), jnp.float32), platform=platform)
    assert "stablehlo.convolution" in text
    assert not indexing(text)


@pytest.mark.parametrize("variant", few(["ours", "plain"], "ours"))
@pytest.mark.parametrize("platform", few(["tpu", "cuda"], "tpu"))
def test_training_lowers_without_indexing(variant, platform):
    model = network(variant)
    shape, number = (1, RECIPE.batch, RECIPE.crop, RECIPE.crop), jax.ShapeDtypeStruct((), jnp.float32)
    image, labels = jax.ShapeDtypeStruct((*shape, 3), jnp.float32), jax.ShapeDtypeStruct(shape, jnp.uint8)
    state = abstract_state(model, RECIPE)
    controls = (number, number, jax.ShapeDtypeStruct((), jnp.uint32))
    text = lowered(updater(RECIPE, model), state, image, labels, controls, platform=platform)
    assert "stablehlo.convolution" in text
    assert not indexing(text)


def test_indexing_would_be_seen():
    """The control: an upsampling that takes rows by their numbers, and its gradient."""

    def nearest(x):
        return x[:, jnp.array([0, 0, 1, 1])].sum()

    x = jax.ShapeDtypeStruct((2, 2, 3), jnp.float32)
    assert indexing(lowered(nearest, x)) == {"gather"}
    assert "scatter" in indexing(lowered(jax.grad(nearest), x))


COMPILED = """HloModule jit_update, is_scheduled=true

FileNames
1 "/home/me/loop.py"
2 "/home/me/unet_jax/training/step.py"
3 "/home/me/unet_jax/model.py"
4 "/home/me/unet_jax/layers.py"

FunctionNames
1 "<module>"

FileLocations
1 {file_name_id=1 function_name_id=1 line=33 end_line=33 column=2 end_column=2}
2 {file_name_id=2 function_name_id=1 line=193 end_line=193 column=2 end_column=2}
3 {file_name_id=3 function_name_id=1 line=152 end_line=152 column=2 end_column=2}
4 {file_name_id=4 function_name_id=1 line=45 end_line=45 column=2 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=4 parent_frame_id=4}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %add = f32[]{:T(128)} add(%a, %b)
}

%fused (p: bf16[8,16,16,64]) -> bf16[8,16,16,64] {
  %p = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} parameter(0)
  ROOT %twice = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} add(%p, %p)
}

%body (s: (s32[], f32[16])) -> (s32[], f32[16]) {
  %s = (s32[]{:T(128)}, f32[16]{0:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %v = f32[16]{0:T(128)} get-tuple-element(%s), index=1
  %part = f32[2]{0:T(128)} reduce-scatter(%v), channel_id=5, dimensions={0}, to_apply=%sum
  %all = f32[16]{0:T(128)} all-gather(%part), channel_id=6, dimensions={0}
  ROOT %t = (s32[]{:T(128)}, f32[16]{0:T(128)}) tuple(%i, %all)
}

%condition (c: (s32[], f32[16])) -> pred[] {
  %c = (s32[]{:T(128)}, f32[16]{0:T(128)}) parameter(0)
  ROOT %go = pred[]{:T(512)} constant(true)
}

ENTRY %main.1_spmd (x: bf16[8,16,16,64], k: f32[3,3,64,64]) -> bf16[8,16,16,64] {
  %x = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} parameter(0), metadata={op_name="image"}
  %k = f32[3,3,64,64]{3,2,1,0:T(8,128)} parameter(1)
  %copy-start = (f32[3,3,64,64]{3,2,1,0:T(8,128)S(1)}, f32[3,3,64,64]{3,2,1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%k)
  %slice-start = ((f32[3,3,64,64]{3,2,1,0:T(8,128)}), f32[1,3,64,64]{3,2,1,0:T(8,128)S(1)}, \
s32[]{:S(2)}) slice-start(%k), slice={[0:1], [0:3], [0:64], [0:64]}
  %copy-done = f32[3,3,64,64]{3,2,1,0:T(8,128)S(1)} copy-done(%copy-start)
  %slice-done = f32[1,3,64,64]{3,2,1,0:T(8,128)S(1)} slice-done(%slice-start)
  %fusion.1 = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} fusion(%x, /*index=1*/%copy-done), kind=kOutput, calls=%fused, \
metadata={op_name="jit(update)/jvp(down1)/conv_general_dilated" stack_frame_id=4}, \
backend_config={"window_config":{"estimated_cycles":"3000"},"used_scoped_memory_configs":[]}
  %s1 = f32[64]{0:T(128)S(1)} constant({...})
  %both = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)S(1)}) all-reduce(%s1, %s1), channel_id=1, to_apply=%sum
  %begun = f32[3,3,64,64]{3,2,1,0:T(8,128)} all-reduce-start(%k), channel_id=2, to_apply=%sum
  %ended = f32[3,3,64,64]{3,2,1,0:T(8,128)} all-reduce-done(%begun)
  %sent = (f32[64]{0:T(128)S(1)}, f32[64]{0:T(128)S(1)}, u32[]{:S(2)}) collective-permute-start(%s1), channel_id=3
  %got = f32[64]{0:T(128)S(1)} collective-permute-done(%sent)
  %state = (s32[]{:T(128)}, f32[16]{0:T(128)}) tuple()
  %loop = (s32[]{:T(128)}, f32[16]{0:T(128)}) while(%state), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = bf16[8,16,16,64]{3,0,2,1:T(8,128)(2,1)} copy(%fusion.1)
}
"""


def test_collectives_are_counted():
    """A start and its end once, what a loop holds as often as it runs; in bytes of the operands, without padding."""
    assert collectives(parse(COMPILED)) == {
        "all-reduce": Collective(2, 2 * 256 + 9 * 64 * 64 * 4),
        "all-gather": Collective(3, 3 * 8),
        "reduce-scatter": Collective(3, 3 * 64),
        "collective-permute": Collective(1, 256),
    }


BESIDE = """
%start (p: f32[4]) -> f32[8] {
  %p = f32[4]{0:T(128)} parameter(0)
  ROOT %first = f32[8]{0:T(128)} all-gather(%p), channel_id=7, dimensions={0}
}

%end (q: f32[4]) -> f32[8] {
  %q = f32[4]{0:T(128)} parameter(0)
  ROOT %last = f32[8]{0:T(128)} all-gather(%q), channel_id=CHANNEL, dimensions={0}
}

ENTRY %main (x: f32[4]) -> f32[8] {
  %x = f32[4]{0:T(128)} parameter(0)
  %begun = f32[8]{0:T(128)} fusion(%x), kind=kOutput, calls=%start
  ROOT %done = f32[8]{0:T(128)} fusion(%x), kind=kOutput, calls=%end
}
"""


@pytest.mark.parametrize(("channel", "operations"), [(7, 1), (8, 2)])
def test_a_collective_beside_several_fusions_counts_once(channel, operations):
    """The control is another channel."""
    found = collectives(parse(BESIDE.replace("CHANNEL", str(channel))))
    assert found == {"all-gather": Collective(operations, 16 * operations)}


@pytest.mark.parametrize("other", ["all-reduced", "my-all-reduce", "fusion"])
def test_only_collectives_are_counted(other):
    """The control: the same text with another operation, of which only the name is like theirs."""
    assert collectives(parse(COMPILED.replace(" all-reduce(", f" {other}("))) == {
        **collectives(parse(COMPILED)),
        "all-reduce": Collective(1, 9 * 64 * 64 * 4),
    }


def test_what_a_fusion_moves_is_counted_once_and_with_padding():
    """64 channels are held as 128; what lies in the chip's fast memory is not in memory."""
    found = {move.name: move for move in moves(parse(COMPILED), source_lines(COMPILED))}
    fusion, elements = found["fusion.1"], 8 * 16 * 16 * 64
    assert (fusion.size, fusion.held) == (2 * 2 * elements, 2 * 2 * 2 * elements)
    assert (fusion.cycles, fusion.what) == (3000, "jvp(down1)/conv_general_dilated")
    assert fusion.where == "model:152 layers:45"
    assert found["copy-start"].size == 9 * 64 * 64 * 4
    assert found["slice-start"].size == 3 * 64 * 64 * 4
    assert found["out"].held == fusion.held
    assert not {"twice", "add", "copy-done", "x", "k", "loop", "state"} & found.keys()


CHOICE = """
%near (n: f32[1024]) -> f32[1024] {
  %n = f32[1024]{0:T(1024)} parameter(0)
  ROOT %kept = f32[1024]{0:T(1024)} copy(%n)
}

%far (f: f32[1024]) -> f32[1024] {
  %f = f32[1024]{0:T(1024)} parameter(0)
  ROOT %summed = f32[1024]{0:T(1024)} all-reduce(%f), channel_id=1, to_apply=%sum
}

ENTRY %main (c: s32[], x: f32[1024]) -> f32[1024] {
  %c = s32[]{:T(128)} parameter(0)
  %x = f32[1024]{0:T(1024)} parameter(1)
  ROOT %chosen = f32[1024]{0:T(1024)} conditional(%c, %x, %x), BRANCHES
}
"""


@pytest.mark.parametrize("true", ["near", "far"])
@pytest.mark.parametrize("numbered", [True, False])
def test_of_a_choice_what_runs_where_the_condition_holds_is_counted(true, numbered):
    false = {"near": "far", "far": "near"}[true]
    named = f"true_computation=%{true}, false_computation=%{false}"
    program = parse(CHOICE.replace("BRANCHES", f"branch_computations={{%{false}, %{true}}}" if numbered else named))
    assert [move.name for move in moves(program, {})] == [{"near": "kept", "far": "summed"}[true]]
    assert list(collectives(program)) == ["all-reduce"] * (true == "far")


@pytest.mark.parametrize(
    ("shape", "size", "held", "on_chip"),
    [
        ("f32[]{:T(128)}", 4, 512, False),
        ("bf16[8,256,256,1]{3,0,2,1:T(8,128)(2,1)}", 2**20, 2**27, False),
        ("pred[72]{0:T(512)(128)(4,1)S(1)}", 72, 512, True),
        ("u8[2,3]{1,0}", 6, 6, False),
        ("s4[8]{0}", 4, 4, False),
        ("f32[2,<=8]", 64, 64, False),
    ],
)
def test_a_buffers_bytes(shape, size, held, on_chip):
    assert buffers(shape) == [(size, held, on_chip)]


def said(capsys, *arguments):
    """The exit code, and the only line on stderr."""
    code = tpu_aot.main(arguments)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.count("\n") == 1
    return code, streams.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "nonsense"], "--topology nonsense: give the chip and its numbers along the axes"),
        (["--topology", "v9:2x2"], "--topology v9:2x2: the chips known here are v4, v5e, v5p, v6e"),
        (["--topology", "v5e:32x32"], "--topology v5e:32x32: v5e comes in 1 to 256 chips"),
        (["--topology", "v5e:0x4"], "--topology v5e:0x4: v5e comes in 1 to 256 chips"),
        (["--topology"], "--topology: give one or more, for example v5e:2x4"),
        (["--mesh", "data=3"], "--mesh data=3: is of 3 devices, and v5e:2x4 has 8; give sizes that make 8"),
        (["--mesh", "fsdp=2", "space=16"], "--mesh space=16: is of 16 devices, and v5e:2x4 has 8"),
        (["--mesh", "model=8"], "--mesh model=8: give each of data, fsdp, space once at most"),
        (["--mesh", "space=8", "--size", "64x64"], "--size 64x64 on v5e:2x4 space=8: crop 64: the 8 devices of space"),
        (["--batch", "0"], "--batch 0: give a whole number from 1 up"),
        (["--top", "-1"], "--top -1: give a whole number from 0 up"),
        (["--size", "256"], "--size 256: give height and width as HxW"),
        (["--size", "8x16"], "--size 8x16: an input of 8x16 is too small: 4 max-pools need at least 16x16"),
        (["--size", "32x48"], "--size 32x48: training takes squares; give NxN, or --program inference"),
        (["--features", "8"], "features: 2 to 32 levels are needed, got 1"),
        (["--precision", "float16"], "Expected one of ('float32', 'bfloat16')"),
        (["--fast"], "Unrecognized options: --fast"),
        (["--out", "no/folder.json"], "does not exist; make it first"),
    ],
)
def test_bad_arguments_are_said_in_one_line(capsys, environment, arguments, message):
    code, line = said(capsys, *arguments)
    assert code == 2
    assert message in line


@pytest.fixture
def environment(monkeypatch):
    """As it was, after the test."""
    for name, value in tpu_aot.QUIET.items():
        monkeypatch.setenv(name, value)


def test_a_missing_libtpu_is_said_in_one_line(capsys, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    code, line = said(capsys)
    assert code == 2
    assert line.endswith("needs libtpu, which is not installed: pip install -e '.[jax,tpu]' -c constraints.txt\n")


@pytest.fixture
def on_cpu(monkeypatch):
    """The command with JAX's own compiler for the CPU in place of libtpu's."""
    monkeypatch.setattr(tpu_aot, "load", lambda _: None)
    monkeypatch.setattr(tpu_aot.Topology, "mesh", lambda _, shape: mesh_of(shape, jax.devices()[:1]))
    monkeypatch.setattr(tpu_aot, "version", lambda _: "1.0")


SMALL = ("--features", "2", "3", "--size", "8x8", "--batch", "2", "--topology", "v5e:1x1")


def test_a_network_is_read_from_its_code(tmp_path, on_cpu):
    """And more channels make more operations."""
    pytest.importorskip("torch")
    found = []
    for out in (2, 6):
        kwargs = ("in_channels=5", f"out_channels={out}", "kernel_size=3", "padding=1")
        file = tmp_path / f"{out}.json"
        assert tpu_aot.main((*SMALL, "--module", "torch.nn:Conv2d", "--kwargs", *kwargs, "--out", str(file))) == 0
        report = json.loads(file.read_text())
        assert report["settings"]["module"] == "torch.nn:Conv2d"
        found.append([program["operations"] for program in report["programs"]])
    assert all(more > 2 * less for less, more in zip(*found, strict=True))


@pytest.mark.slow
def test_a_run_prints_and_writes_its_figures(capsys, tmp_path, on_cpu):
    options = ("--top", "2", "--out", str(tmp_path / "a.json"), "--text", str(tmp_path / "text"))
    assert tpu_aot.main((*SMALL, "--markdown", *options)) == 0
    printed = capsys.readouterr().out
    assert printed.count("| inference on v5e:1x1 | ") == printed.count("| training on v5e:1x1 | ") == 2
    report = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    for figures, program in zip(report["programs"], ("inference", "training"), strict=True):
        assert figures["program"] == program
        assert figures["mesh"] == {"data": 1, "fsdp": 1, "space": 1}
        assert figures["fits"]
        assert len(figures["top"]) == 2
        slower = max(figures["operations"] / 197e12, figures["bytes_of_memory"] / 819e9)
        assert figures["bound_seconds"] == slower > 0
        assert figures["images_per_second_at_bound"] == 2 / slower
        text = (tmp_path / "text" / f"{program}-v5e-1x1.txt").read_text()
        assert f"%{figures['top'][0]['name']} = " in text
    inference, training = report["programs"]
    assert training["operations"] > 2 * inference["operations"]
    memory = training["memory"]
    assert memory["aliased"] > 0, "the state is donated"
    parts = memory["arguments"] + memory["temporaries"] + memory["code"] + memory["outputs"] - memory["aliased"]
    assert training["bytes_needed"] == parts
    assert inference["memory"]["aliased"] == 0


@pytest.mark.parametrize(
    ("sizes", "groups", "name"),
    [
        (None, 8, "v5e:2x4"),
        ("data=8", 8, "v5e:2x4"),
        ("fsdp=2", 8, "v5e:2x4 data=4,fsdp=2"),
        ("space=4", 2, "v5e:2x4 data=2,space=4"),
        ("space=8", 1, "v5e:2x4 space=8"),
    ],
)
def test_a_batch_has_a_part_for_each_group_of_chips(sizes, groups, name):
    layout = tpu_aot.Layout.parsed(tpu_aot.Topology.parsed("v5e:2x4"), sizes)
    assert (layout.groups, layout.name) == (groups, name)
    assert tpu_aot.TpuAot(batch=3)._recipe(layout).batch == 3 * groups
    assert tpu_aot.Figures(layout, "training", 3, 1.0).images == 3 * groups / 8


ON_EIGHT = """
import sys
import jax
from benchmarks import tpu_aot
from unet_jax.training.mesh import mesh_of
jax.lax.platform_dependent = lambda *operands, default, **_: default(*operands)
tpu_aot.load, tpu_aot.version = (lambda _: None), (lambda _: "1.0")
tpu_aot.Topology.mesh = lambda self, shape: mesh_of(shape, jax.devices()[: self.chips])
sys.exit(tpu_aot.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_the_state_is_split_as_in_training(tmp_path):
    """On eight devices that a CPU simulates: fsdp splits what a chip is given, space the picture, data neither."""
    meshes = ("data=8", "fsdp=8", "space=8")
    options = ("--features", "16", "32", "--size", "16x16", "--batch", "1", "--mesh", *meshes, "--markdown")
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT, *options, "--out", tmp_path / "a.json", "--text", tmp_path / "text"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "| training on v5e:2x4 fsdp=8 | 8 | " in done.stdout
    assert "With space, so many chips share these images" in done.stdout
    programs = json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)["programs"]
    found = {(figures["program"], max(figures["mesh"], key=figures["mesh"].get)): figures for figures in programs}
    given = {key: figures["memory"]["arguments"] for key, figures in found.items()}
    picture = 16 * 16 * 3 * 4
    assert given["training", "fsdp"] < given["training", "data"] / 4
    assert given["inference", "fsdp"] == given["inference", "data"]
    assert given["inference", "data"] - given["inference", "space"] == picture - picture / 8
    crossing = {axis: found["training", axis]["collectives"] for axis in ("data", "fsdp", "space")}
    assert crossing["data"].keys() == {"all-reduce"}
    assert "all-gather" in crossing["fsdp"]
    assert crossing["space"].keys() == {"all-reduce", "collective-permute"}, "no map is whole on any chip"
    assert crossing["space"]["all-reduce"]["size"] == crossing["data"]["all-reduce"]["size"], "gradients and statistics"
    assert len(list((tmp_path / "text").iterdir())) == 6


def test_a_program_that_does_not_fit_gives_code_1(capsys, tmp_path, monkeypatch, on_cpu):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory on HBM (47.20G).")

    monkeypatch.setattr(tpu_aot, "training", refuse)
    out = tmp_path / "a.json"
    assert tpu_aot.main((*SMALL, "--program", "training", "--top", "3", "--out", str(out))) == 1
    assert "training on v5e:1x1: RESOURCE_EXHAUSTED: Ran out of memory on HBM (47.20G)." in capsys.readouterr().out
    (figures,) = json.loads(out.read_text(), parse_constant=pytest.fail)["programs"]
    assert not figures["fits"]
    assert figures["operations"] is figures["bytes_needed"] is None


def test_another_error_of_the_compiler_is_said_in_one_line(capsys, monkeypatch, on_cpu):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: the compiler is confused\nwith details")

    monkeypatch.setattr(tpu_aot, "inference", fail)
    code, line = said(capsys, *SMALL, "--program", "inference")
    assert (code, line) == (2, "benchmark: inference on v5e:1x1: INTERNAL: the compiler is confused\n")


def test_the_bound_is_the_longer_time():
    layout = tpu_aot.Layout.parsed(tpu_aot.Topology.parsed("v5e:2x4"), None)
    (copy,) = (move for move in moves(parse(COMPILED), {}) if move.name == "out")

    def figures(operations, held):
        return tpu_aot.Figures(layout, "training", 8, 1.0, operations, moves=(copy._replace(held=held),))

    assert (figures(197e12, 1).bound_seconds, figures(197e12, 1).bound_by) == (1, "arithmetic")
    assert (figures(1, 2 * 819_000_000_000).bound_seconds, figures(1, 819_000_000_000).bound_by) == (2, "memory")
    assert math.isnan(figures(math.nan, 1).needed)

"""Weights of other frameworks in a module of PyTorch's, by a table of names or by shapes: it answers as they do."""

import csv

import numpy as np
import pytest
from conftest import few

from conversion.code import Known
from conversion.containers import opened
from unet_cli.main import main
from unet_core import CheckpointError
from unet_core.checkpoints.naming import read_names
from unet_core.paths import as_path

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from flax import linen, serialization

CODE = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, bias=False):
        first = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        super().__init__(first, nn.BatchNorm2d(4, eps=1e-5), nn.ReLU(), nn.Conv2d(4, 2, 1))
"""


class Net(linen.Module):
    bias: bool = False

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(4, (3, 3), use_bias=self.bias)(x)
        x = linen.BatchNorm(use_running_average=True)(x)
        return linen.Conv(2, (1, 1))(linen.relu(x))


def variables(*, bias=False):
    shapes = jax.eval_shape(Net(bias).init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: draw.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)


def as_msgpack(folder, tree):
    (folder / "net.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    return folder / "net.msgpack"


def as_npz(folder, tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    np.savez(folder / "net.npz", **{"/".join(part.key for part in path): leaf for path, leaf in leaves})
    return folder / "net.npz"


def as_orbax(folder, tree):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "net").resolve(), tree)
    return folder / "net"


def as_orbax_steps(folder, tree):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager((folder / "steps").resolve()) as manager:
        manager.save(3, args=ocp.args.StandardSave(tree))
    return folder / "steps" / "3"


@pytest.fixture
def code(tmp_path):
    (tmp_path / "net.py").write_text(CODE)
    return f"{tmp_path / 'net.py'}:Net"


def answers_alike(live, tree, *, bias=False):
    x = np.random.default_rng(1).standard_normal((2, 8, 8, 3)).astype(np.float32)
    wanted = np.asarray(Net(bias).apply(tree, x))
    with torch.no_grad():
        found = live.module.eval()(torch.from_numpy(x).double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    return np.allclose(found, wanted, rtol=1e-4, atol=1e-5)


SAVES = {save.__name__: save for save in (as_msgpack, as_npz, as_orbax, as_orbax_steps)}


@pytest.mark.parametrize("save", few(SAVES, "as_npz"))
def test_names_are_matched_by_shapes_where_only_one_way_fits(tmp_path, code, save):
    tree = variables()
    found = opened(save(tmp_path, tree), Known(module=code))
    assert answers_alike(found.live, tree)
    assert not answers_alike(found.live, jax.tree.map(lambda leaf: leaf + 0.1, tree))
    assert any("matched by their shapes" in what for what in found.checkpoint.reading.beside)


def test_what_shapes_do_not_tell_is_asked_for(tmp_path, code):
    path = as_msgpack(tmp_path, variables(bias=True))
    with pytest.raises(CheckpointError, match=r"do not tell which tensors are 0\.bias, 1\.bias; .* --draft map\.csv"):
        opened(path, Known(module=code, kwargs={"bias": True}))


def test_a_draft_is_looked_through_and_taken(tmp_path, code, capsys):
    tree = variables(bias=True)
    path, table = as_msgpack(tmp_path, tree), tmp_path / "map.csv"
    options = ["--module", code, "--kwargs", "bias=True"]
    assert main(["inspect", str(path), *options, "--draft", str(table)]) == 0
    assert "9 tensors of the module, 6 of them" in capsys.readouterr().out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["module"] for row in rows if row["sure"] == "no"] == ["0.bias", "1.bias"]
    right = {"0.bias": "params.Conv_0.bias", "1.bias": "params.BatchNorm_0.bias"}
    known = Known(module=code, kwargs={"bias": True}, names=table)
    assert not answers_alike(opened(path, known).live, tree, bias=True)  # the guess by order is the other way round
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "file": right.get(row["module"], row["file"])} for row in rows)
    assert answers_alike(opened(path, known).live, tree, bias=True)
    assert main(["inspect", str(path), *options, "--draft", str(table)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_draft_may_go_to_a_bucket(tmp_path, code):
    path, there = as_msgpack(tmp_path, variables(bias=True)), as_path("memory://drafts/map.csv")
    options = ["--module", code, "--kwargs", "bias=True"]
    assert main(["inspect", str(path), *options, "--draft", str(there)]) == 0
    assert main(["inspect", str(path), *options, "--draft", str(tmp_path / "map.csv")]) == 0
    assert there.read_bytes() == (tmp_path / "map.csv").read_bytes()
    there.unlink()


TABLES = {
    "none": (None, "no such file"),
    "an empty one": ("", "needs the columns module and file"),
    "of other columns": ("a,b\n1,2\n", "needs the columns module and file"),
    "without a name": ("module,file\n0.weight,\n", "names no tensor"),
    "a name twice": ("module,file\na,x\na,y\n", "line 3: a or y is named twice"),
    "a tensor twice": ("module,file\na,x\nb,x\n", "line 3: b or x is named twice"),
    "axes that are none": ("module,file,axes\na,x,0 0\n", "line 2: axes 0 0: give each axis"),
    "no text": (b"\xff\xfe\x00", "no table of names|needs the columns"),
}


@pytest.mark.parametrize(("text", "match"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_none(tmp_path, text, match):
    if text is not None:
        (tmp_path / "map.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CheckpointError, match=match):
        read_names(tmp_path / "map.csv")


@pytest.mark.parametrize(
    ("rows", "match"),
    [("0.weight,nowhere,", "has no tensors of the names nowhere"), ("0.weight,params.Conv_0.kernel,1 0", "other axes")],
)
def test_a_table_of_another_file(tmp_path, code, rows, match):
    (tmp_path / "map.csv").write_text(f"module,file,axes\n{rows}\n")
    with pytest.raises(CheckpointError, match=match):
        opened(as_msgpack(tmp_path, variables()), Known(module=code, names=tmp_path / "map.csv"))


def test_the_options_need_a_module(tmp_path, capsys):
    path = as_msgpack(tmp_path, variables())
    assert main(["inspect", str(path), "--draft", str(tmp_path / "map.csv")]) == 2
    assert main(["inspect", str(path), "--names", str(tmp_path / "map.csv")]) == 2
    assert capsys.readouterr().err.count("--module") == 2
    assert not (tmp_path / "map.csv").exists()

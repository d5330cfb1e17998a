"""Pickles are read and never run: the same tensors as torch gives, and nothing happens but that."""

import argparse
import collections
import copyreg
import dataclasses
import io
import itertools
import json
import os
import pickle
import pickletools
import random
import subprocess
import sys
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors

from unet_core import CheckpointError
from unet_core.checkpoints.pickled import known
from unet_core.checkpoints.pickled.files import held
from unet_core.checkpoints.pickled.machine import _PLAIN, _PUSHED, unpickled
from unet_core.checkpoints.pickled.making import Maker
from unet_core.checkpoints.pickled.modules import is_module, state_dict_of, tensor_of
from unet_core.checkpoints.pickled.standins import DEEPEST, Dict, Inert
from unet_core.checkpoints.pickled.tensors import DTYPES

VALUES = {
    "nothing": None,
    "a dict": {"a": [1, 2.5, "x", None, True], "b": (1, (2, 3)), 4: {"c": {5, 6}}, (1, "a"): b"x\xff"},
    "an ordered dict": collections.OrderedDict(a=1, b=[2]),
    "dicts of other kinds": [collections.defaultdict(list, a=[1]), collections.Counter("aab")],
    "shared parts": [[1, 2]] * 3,
    "a long list": list(range(5000)),
    "numbers": [-(2**70), 2**31, -1, 1e300, float("inf"), 1 + 2j, bytearray(b"abc")],
    "text": ["", "naïve", "a\ud800b", "x" * 300],
}


def plain(data, **options):
    return unpickled(data, "x", **options).value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_plain_values_are_what_pickle_makes_of_them(value, protocol):
    data = pickle.dumps(value, protocol)
    found = unpickled(data + b"more", "x")
    assert found.end == len(data)
    assert found.value == value
    assert found.value != [value]
    assert found.inert == ()


def test_every_opcode_has_its_meaning():
    flow = {"MARK", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "DUP", "POP", "STOP"}
    flow |= {"PROTO", "FRAME", "POP_MARK"}
    made = {name.removeprefix("on_").upper() for name in dir(Maker) if name.startswith("on_")}
    assert {opcode.name for opcode in pickletools.opcodes} == flow | made | _PLAIN.keys() | _PUSHED


NUMPY = [
    np.float32(0.1),
    np.float64(0.1),
    np.int64(-7),
    np.bool_(True),
    np.complex64(1 + 2j),
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6, dtype=">i4").reshape(3, 2),
    np.zeros((0, 3), np.float16),
    np.array(3.0),
    np.array([True, False]),
]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("value", NUMPY, ids=repr)
def test_numpys_numbers_and_arrays(value, protocol):
    found = plain(pickle.dumps(value, protocol))
    if isinstance(value, np.generic):
        assert found == value.item()
        assert type(found) is type(value.item())
    elif protocol or value.dtype == bool:
        read = tensor_of(found).read()
        assert (read.dtype, read.shape) == (value.dtype.newbyteorder("="), value.shape)
        assert np.array_equal(read, value)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([None]), np.longdouble(1), np.dtype("M8[s]")], ids=repr)
def test_what_is_no_number_stays_inert(value):
    assert isinstance(plain(pickle.dumps(value)), Inert)


@dataclasses.dataclass
class Settings:
    rate: float = 0.1
    path: Path = Path("a/b")


def test_objects_are_stood_for_by_their_names_and_states():
    found = unpickled(pickle.dumps({"a": argparse.Namespace(lr=1), "b": Settings(), "c": Path("x/y")}, 2), "x")
    assert found.value["a"].attributes == {"lr": 1}
    assert found.value["b"].attributes["rate"] == 0.1
    assert found.value["c"].args[-1] == "y"
    assert found.inert == (
        "argparse.Namespace",
        f"{Path('x').__reduce__()[0].__module__}.PosixPath",
        f"{__name__}.Settings",
    )


# --- torch's tensors

torch = pytest.importorskip("torch")
from torch import nn

BASE = torch.arange(24.0)


def tensors():
    """One tensor of every kind that torch writes and NumPy has."""
    found = {name: torch.arange(8).to(getattr(torch, name)) for name in DTYPES if "float8" not in name}
    found |= {name: torch.rand(7).to(getattr(torch, name)) for name in DTYPES if "float8" in name}
    found |= {"0-d": torch.tensor(3.0), "empty": torch.zeros(0, 3), "a view": BASE[5:9], "all of it": BASE}
    found |= {"transposed": BASE.view(4, 6).t(), "every other": BASE[::2], "expanded": BASE[:3].expand(5, 3)}
    found |= {
        "channels last": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "a parameter": nn.Parameter(BASE),
    }
    found |= {"negative": torch._neg_view(torch.rand(4)), "conjugate": torch.rand(3, dtype=torch.complex64).conj()}
    found |= {"NaN": torch.tensor([float("nan"), -0.0, float("inf")]), "trained": torch.rand(2, requires_grad=True)}
    return found


def bits(tensor):
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy().tobytes()


def differing(found, wanted):
    """The names of tensors that are not the same in dtype, shape and every bit."""
    read = {name: value.read() for name, value in found.items()}
    return [
        name
        for name, tensor in wanted.items()
        if f"torch.{read[name].dtype.name}" != str(tensor.dtype)
        or (read[name].shape, read[name].tobytes()) != (tuple(tensor.shape), bits(tensor))
    ]


UNTYPED = ("uint64", "uint32", "uint16")  # which torch itself cannot load from its old format


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_those_that_torch_loads(tmp_path, legacy):
    made = {name: value for name, value in tensors().items() if not (legacy and ("float8" in name or name in UNTYPED))}
    torch.save(made, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    wanted = torch.load(tmp_path / "a.pt", weights_only=True)
    found = held(tmp_path / "a.pt")
    assert list(found.value) == list(wanted)
    assert found.inert == ()
    assert differing(found.value, wanted) == []
    other = {"0-d": torch.tensor(3.1), "transposed": BASE.view(6, 4), "int16": torch.arange(8), "NaN": torch.zeros(3)}
    assert differing(found.value, wanted | other) == [name for name in wanted if name in other]
    assert found.value["a view"].storage is found.value["all of it"].storage
    assert found.value["a view"].storage is not found.value["0-d"].storage


def test_tensors_in_the_old_format_that_torch_cannot_load(tmp_path):
    made = {name: value for name, value in tensors().items() if "float8" in name or name in UNTYPED}
    torch.save(made, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert differing(held(tmp_path / "a.pt").value, made) == []


ODD = {
    "sparse": lambda: torch.eye(3).to_sparse(),
    "of compressed rows": lambda: torch.eye(3).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "on the meta device": lambda: torch.zeros(3, device="meta"),
    "of half complex numbers": lambda: torch.zeros(3, dtype=torch.complex32),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ODD)
def test_tensors_that_are_not_dense_keep_their_shape(tmp_path, name):
    tensor = ODD[name]()
    torch.save(tensor, tmp_path / "a.pt")
    found = held(tmp_path / "a.pt").value
    assert found.odd
    assert found.shape == tuple(tensor.shape)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.first = nn.Conv2d(1, 2, 3)
        self.again = self.first
        self.norms = nn.ModuleList([nn.BatchNorm2d(2), nn.Identity()])
        self.weight = nn.Parameter(torch.rand(3))
        self.register_parameter("none", None)
        self.parents = [self]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_module_has_the_state_dict_that_torch_gives(tmp_path, legacy):
    net = Net()
    torch.save(net, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    found = held(tmp_path / "a.pt").value
    assert is_module(found)
    state = state_dict_of(found)
    assert list(state) == list(net.state_dict())
    assert all(state[name].read().tobytes() == bits(value) for name, value in net.state_dict().items())
    assert not any("passing" in name for name in state)


# --- nothing is run


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class EvilState:
    def __setstate__(self, state):
        raise AssertionError("was run")

    def __getstate__(self):
        return {"a": 1}


SYSTEM = b"cos\nsystem\n"
TOUCH = b"X\x0b\x00\x00\x00touch pwned"
PROTO = b"\x80\x02"
ATTACKS = {
    "REDUCE": pickle.dumps(Evil(), 2),
    "STACK_GLOBAL": pickle.dumps(Evil(), 4),
    "protocol 0": pickle.dumps(Evil(), 0),
    "INST": PROTO + b"(" + TOUCH + b"ios\nsystem\n.",
    "OBJ": PROTO + b"(" + SYSTEM + TOUCH + b"o.",
    "NEWOBJ": PROTO + SYSTEM + TOUCH + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04" + SYSTEM + TOUCH + b"\x85}\x92.",
    "BUILD": PROTO + SYSTEM + TOUCH + b"\x85R}X\x01\x00\x00\x00aK\x01sb.",
    "__setstate__": pickle.dumps(EvilState(), 2),
    "a call in a call": PROTO
    + b"c__builtin__\ngetattr\n"
    + SYSTEM
    + b"X\x04\x00\x00\x00nameq\x00\x86R"
    + TOUCH
    + b"\x85R.",
    "apply": PROTO + b"c__builtin__\napply\n" + SYSTEM + TOUCH + b"\x85\x86R.",
    "eval": PROTO + b"c__builtin__\neval\n" + TOUCH + b"\x85R.",
    "exec": PROTO + b"cbuiltins\nexec\n" + TOUCH + b"\x85R.",
    "a module inside a module": PROTO + b"cos.path\nos.system\n" + TOUCH + b"\x85R.",
    "a nested pickle": PROTO + b"c_pickle\nloads\nC\x05abcd.\x85R.",
    "torch.load inside": PROTO + b"ctorch.storage\n_load_from_bytes\nC\x02ab\x85R.",
    "numpy's runstring": PROTO + b"cnumpy.testing._private.utils\nrunstring\n" + TOUCH + b"}\x86R.",
    "pip": PROTO + b"cpip\nmain\n]" + TOUCH + b"a\x85R.",
    "a debugger": PROTO + b"cpdb\nrun\n" + TOUCH + b"\x85R.",
    "a file": PROTO + b"cio\nopen\n" + TOUCH + b"X\x01\x00\x00\x00w\x86R.",
    "a persistent id": PROTO + SYSTEM + b"Q.",
    "a textual persistent id": b"Pos.system\n.",
    "a dict's factory": PROTO + b"ccollections\ndefaultdict\n" + SYSTEM + b"\x85R.",
    "a type as __setitem__": PROTO + SYSTEM + TOUCH + b"\x85R" + TOUCH + SYSTEM + b"s.",
    "an __append__": PROTO + SYSTEM + TOUCH + b"\x85R" + TOUCH + b"a.",
    "a key": PROTO + b"}" + SYSTEM + TOUCH + b"\x85RK\x01s.",
    "a set": PROTO + b"c__builtin__\nset\n](" + SYSTEM + TOUCH + b"\x85Re\x85R.",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_is_a_stand_in(tmp_path, monkeypatch, attack):
    monkeypatch.chdir(tmp_path)
    for data in (attack, attack[:-1] + b"0" + attack[2:] if attack.startswith(PROTO) else attack):
        try:
            found = unpickled(data, "x")
        except CheckpointError as error:
            assert str(error).isprintable()  # noqa: PT017  (either outcome is right)
        else:
            assert isinstance(found.value, Inert | dict | set)
            assert not isinstance(found.value, Inert) or not callable(found.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opcode", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"])
def test_an_extension_code_is_not_looked_up(opcode):
    copyreg.add_extension("os", "system", 0xF0)
    try:
        found = unpickled(PROTO + opcode + TOUCH + b"\x85R.", "x")
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert found.value.args == ("touch pwned",)
    assert found.inert == ("copyreg extension.240",)


def test_a_stand_in_does_nothing_when_it_is_copied_or_pickled():
    found = plain(ATTACKS["REDUCE"])
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is Inert
    assert again.args == ("touch pwned",)


# --- nothing grows without bound


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times):
    value = [0]
    for _ in range(times):
        value = [value, value]
    return value


# Lists in lists; a tuple of itself twice, 60 times over; lists that grow after they were taken.
DEEP = PROTO + b"]" * 20_000 + b"a" * 19_999 + b"."
DOUBLE = PROTO + b")" + b"2\x86" * 60
GROWING = b"\x80\x02]q\x00]q\x01h\x00ah\x00h\x01a."
NUMBER = b"\x8b" + (2000).to_bytes(4, "little") + b"\x01" * 2000
COLLIDING = b"".join(b"\x8a\x10" + (k * (2**61 - 1)).to_bytes(16, "little") + b"N" for k in range(1, 30_000))
COPIES = PROTO + b"c__builtin__\nset\nq\x00](" + b"K\x01" * 100_000 + b"eq\x010" + b"h\x00h\x01\x85R0" * 2000 + b"N."
TEXTS = (
    PROTO
    + b"X"
    + (10**6).to_bytes(4, "little")
    + b"a" * 10**6
    + b"q\x010c_codecs\nencode\nq\x000"
    + (b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R0" * 2000)
    + b"N."
)

BOMBS = {
    "deep lists": (pickle.dumps({"a": nested(DEEPEST + 5)}, 2), "nested deeper, or holds more values"),
    "very deep lists": (DEEP, "nested deeper, or holds more values"),
    "lists that double": (pickle.dumps(doubled(24), 2), "nested deeper, or holds more values"),
    "tuples that double, as a key": (PROTO + b"}" + DOUBLE[2:] + b"Ns.", "a key of a kind, or of a length"),
    "tuples that double, in a set": (b"\x80\x04\x8f(" + DOUBLE[2:] + b"\x90.", "a key of a kind, or of a length"),
    "a list that holds itself": (PROTO + b"]q\x00h\x00a.", "holds itself"),
    "lists that hold each other": (GROWING, "holds itself"),
    "a long number": (PROTO + NUMBER + b".", "a number of more than 1000 bytes"),
    "a number of many digits": (b"L" + b"9" * 5000 + b"L\n.", "Exceeds the limit"),
    "keys of one hash": (PROTO + b"}(" + COLLIDING + b"u.", "more than 10000 keys that are no strings"),
    "copies of a list": (COPIES, "asks for more memory"),
    "copies of a text": (TEXTS, "asks for more memory"),
    "a long name": (PROTO + b"c" + b"a" * 5000 + b"\nb\n.", "a name of 5001 characters"),
    "bytes that are not there": (PROTO + b"B\xff\xff\xff\x7fab.", "its pickle"),
    "a frame that is not there": (b"\x80\x04\x95" + b"\xff" * 8 + b".", "its pickle"),
    "a memo that is not there": (PROTO + b"h\x05.", "its pickle"),
    "a mark taken as a value": (PROTO + b"(\x85.", "takes more than there is"),
    "a mark that is kept": (PROTO + b"(q\x00.", "keeps a mark"),
    "nothing on the stack": (PROTO + b"R.", "takes more than there is"),
    "a call of a text": (PROTO + TOUCH + b")R.", "it calls a str"),
    "a text that is restored": (PROTO + TOUCH + b"}b.", "it restores a str"),
    "a buffer outside": (b"\x80\x05\x97.", "buffers outside"),
    "nothing": (b"", "its pickle"),
    "no end": (PROTO + b"N", "its pickle"),
}


@pytest.mark.parametrize(
    ("data", "match"), few(BOMBS, *(name for name in BOMBS if name not in ("copies of a list", "very deep lists")))
)
def test_what_would_become_endless_is_refused(data, match):
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(CheckpointError, match=match) as caught:
            unpickled(data, "x")
        assert tracemalloc.get_traced_memory()[1] < 600_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert time.monotonic() - began < 30  # tracemalloc takes most of it


def test_more_opcodes_than_any_checkpoint_has_are_refused():
    data = pickle.dumps(list(range(100)), 2)
    assert plain(data, most=1000) == list(range(100))
    with pytest.raises(CheckpointError, match=r"x: its pickle has more opcodes than any checkpoint's \(50\)"):
        plain(data, most=50)


CALLS = {
    "a range": (b"c__builtin__\nrange\nJ\xff\xff\xff\x7f\x85R", "builtins.range"),
    "bytes": (b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R", "builtins.bytearray"),
    "an array": (b"cnumpy\nzeros\nJ\xff\xff\xff\x7f\x85R", "numpy.zeros"),
    "a codec": (b"c_codecs\nencode\n" + TOUCH + b"X\x09\x00\x00\x00hex_codec\x86R", "_codecs.encode"),
}


@pytest.mark.parametrize(("body", "name"), CALLS.values(), ids=CALLS)
def test_a_call_that_would_take_memory_is_not_made(body, name):
    found = plain(PROTO + body + b".")
    assert isinstance(found, Inert)
    assert found.name == name


def test_storages_beyond_the_file_are_refused(tmp_path):
    torch.save({"x": torch.zeros(123)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members["a/data.pkl"] = members["a/data.pkl"].replace(b"K{", b"M\xff\xff")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(
        CheckpointError, match=r"storage data/0 should have 262140 bytes and has 492 bytes|beyond its storage"
    ):
        held(tmp_path / "a.pt")


# --- fuzzing, under an audit of everything that Python does

WATCHED = """
import sys, json, encodings.cp437, encodings.raw_unicode_escape
from pathlib import Path
from unet_core.errors import CheckpointError
from unet_core.checkpoints import torch_file
from unet_core.checkpoints.pickled.machine import unpickled
data = json.loads(sys.stdin.read())
path, seen = Path(data["path"]), []
for warm in data["warm"]:
    try: torch_file.contents(Path(warm)).fetch("", [])
    except CheckpointError: pass
watched = "open import exec compile os subprocess pickle socket ctypes marshal shutil code".split()
def hook(event, args):
    if event.split(".")[0] in watched and not (event == "open" and str(args[0]) == str(path)):
        seen.append([event, repr(args)[:200]])
sys.addaudithook(hook)
wrong, read = [], 0
for case in data["cases"]:
    path.write_bytes(bytes.fromhex(case)); seen.clear()
    try:
        found = torch_file.contents(path)
        for group, shapes in found.groups.items(): found.fetch(group, list(shapes))
        read += 1
    except CheckpointError as error:
        if not str(error).isprintable(): wrong.append(["a line", repr(error)[:300]])
        try: unpickled(path.read_bytes(), "x")
        except CheckpointError: pass
    except BaseException as error: wrong.append(["an error", repr(error)[:300], case[:0]])
    wrong += seen
print(json.dumps([wrong[:20], read]))
"""


def good_files(folder):
    """Small files of each kind, with everything that pickles have in them."""
    state = {
        "a": torch.ones(2, 2),
        "n": argparse.Namespace(lr=1),
        "m": nn.Linear(1, 1),
        "e": Evil(),
        "f": np.float32(1),
    }
    state |= {"o": {"state": {0: {"step": torch.tensor(1.0)}}}, "b": np.arange(3), "s": {1}, "d": Settings()}
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 4):
        (folder / f"{protocol}.pkl").write_bytes(pickle.dumps({**state, "a": np.ones(3), "m": 1, "o": 2}, protocol))
    return sorted(folder.iterdir())


def mutations(files, count, seed):
    """Bytes overwritten, put in, taken out, and moved, in the pickle of a zip under right checksums."""
    chance = random.Random(seed)
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        data = contents[number % len(contents)]
        whole = data.startswith(b"PK")
        if whole:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {info.filename: archive.read(info) for info in archive.infolist()}
            name = next(name for name in members if name.endswith("data.pkl"))
            data = members[name]
        edited = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at, length = chance.randrange(len(edited)), chance.randint(1, 8)
            if chance.random() < 0.7:
                edited[at] = chance.choice([edited[at] ^ 1, chance.randrange(256)])
                continue
            part = chance.choice([chance.randbytes(length), *pickle_bytes(chance)])
            edited[at : at + chance.choice([0, len(part), len(part), length])] = part
        if whole:
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w") as archive:
                for member, content in (members | {name: bytes(edited)}).items():
                    archive.writestr(member, content)
            edited = out.getvalue()
        yield bytes(edited)


def pickle_bytes(chance):
    """An opcode, and an attack without its beginning and end."""
    yield chance.choice(pickletools.opcodes).code.encode("latin-1")
    yield chance.choice(list(ATTACKS.values()))[2:-1]


def watched(tmp_path, count, seed):
    """What a process did that read so many mutations, beside reading; and how many it could read."""
    (tmp_path / "good").mkdir()
    files = good_files(tmp_path / "good")
    cases = [data.hex() for data in mutations(files, count, seed)]
    job = {"path": str(tmp_path / "a.pt"), "warm": list(map(str, files)), "cases": cases}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], input=json.dumps(job), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tmp_path / "pwned").exists()
    return json.loads(done.stdout)


def test_mutated_pickles_do_nothing(tmp_path):
    wrong, read = watched(tmp_path, 150, 0)
    assert wrong == []
    assert 0 < read < 150


def test_the_audit_sees_what_a_pickle_does(tmp_path):
    """The negative control: Python's own reader, given an attack, is caught."""
    code = WATCHED.replace("torch_file.contents(path)\n", "__import__('pickle').loads(path.read_bytes())\n", 1).replace(
        "for warm in", "for warm in [] and"
    )
    job = {"path": str(tmp_path / "a.pt"), "warm": [], "cases": [ATTACKS["REDUCE"].hex()]}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(job), capture_output=True, text=True, cwd=tmp_path
    )
    wrong, _ = json.loads(done.stdout)
    assert {"pickle.find_class", "os.system"} <= {one[0] for one in wrong}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 21))
def test_many_mutated_pickles_do_nothing(tmp_path, seed):
    wrong, _ = watched(tmp_path, 1000, seed)
    assert wrong == []


def test_a_pickle_is_read_without_torch(tmp_path):
    state = {key: torch.from_numpy(value) for key, value in trained_tensors(TINY).items()}
    torch.save(state, tmp_path / "a.pt")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['jax'] = None\n"
        "from pathlib import Path\nfrom unet_core.checkpoints import torch_file\n"
        "found = torch_file.read(Path('a.pt'))\nprint(found.tensors['out.bias'].tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == trained_tensors(TINY)["out.bias"].tobytes().hex(), done.stderr


def test_known_names_are_of_data_alone():
    assert not {
        name
        for name in known.KNOWN
        if not name.startswith(("torch.", "numpy.", "collections.", "builtins.", "_codecs."))
    }
    assert isinstance(plain(pickle.dumps(collections.OrderedDict(a=1))), Dict)
    assert list(itertools.islice(known.REFERRED, 1))

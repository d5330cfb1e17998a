"""What breaks between here and a bucket, and processes that are killed while they write there: nothing is lost."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors

from tests import buckets, faulty
from unet_core import objects
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.safetensors_file import read_tensors, write
from unet_core.errors import CheckpointError, StorageError, UNetError
from unet_core.files import atomic
from unet_core.paths import as_path
from unet_core.staging import at_hand, put
from unet_core.training.history import read_history

pytest.importorskip("gcsfs")
pytest.importorskip("s3fs")
ROOT = Path(__file__).parents[1]

TRAIN = [
    *("--steps", "40", "--batch", "2", "--crop", "16", "--features", "4", "8", "--save-every", "2"),
    *("--validate-every", "20", "--log-every", "1"),
]


@pytest.fixture
def names():
    """For every test a bucket's folder of its own."""
    return uuid.uuid4().hex


def environment(kind, address):
    return {"gs": buckets.gcs_environment, "s3": buckets.s3_environment}[kind](address)


def forget_connections():
    """Let the next request go where the variables now say."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    objects._system_of.cache_clear()


@pytest.fixture
def through(request, monkeypatch):
    """Puts a proxy with a fault before a store, for this process."""
    left = []

    def put_before(kind, fault):
        server = request.getfixturevalue({"gs": "gcs_server", "s3": "s3_server"}[kind])
        request.getfixturevalue(f"{kind}_bucket")
        context = faulty.proxy(server, fault)
        for name, value in environment(kind, context.__enter__()).items():
            monkeypatch.setenv(name, value)
        left.append(context)
        forget_connections()
        return f"{kind}://bucket"

    yield put_before
    for context in left:
        context.__exit__(None, None, None)
    forget_connections()


def tried(bucket, name, folder):
    """Write a file and a directory to a bucket and read them back: what came back."""
    file, tree = folder / "file", folder / "tree"
    tree.mkdir()
    (tree / "line").write_bytes(b"a\r\nb\r")
    file.write_bytes(random.Random(0).randbytes(300_000))
    for number in range(4):
        (tree / f"{number}").write_bytes(bytes([number]) * 1000)
    put(file, as_path(f"{bucket}/{name}/file"))
    put(tree, as_path(f"{bucket}/{name}/tree"))
    with at_hand(as_path(f"{bucket}/{name}/file")) as copy:
        assert copy.read_bytes() == file.read_bytes()
    with at_hand(as_path(f"{bucket}/{name}/tree")) as copy:
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
            path.name: path.read_bytes() for path in tree.iterdir()
        }


@pytest.mark.parametrize("kind", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", few(faulty.KINDS, "429", "cut", "half"))
def test_a_fault_in_the_first_requests_is_overcome(through, kind, fault, names, tmp_path):
    bucket = through(kind, lambda number: fault if number in (1, 4) else None)
    tried(bucket, names, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gs", "s3"])
@pytest.mark.parametrize("seed", range(15))
def test_faults_anywhere_lose_nothing(through, kind, seed, names, tmp_path):
    rng = random.Random(seed)
    faults = {number: rng.choice(faulty.KINDS) for number in range(60) if rng.random() < 0.25}
    tried(through(kind, faults.get), names, tmp_path)


@pytest.mark.parametrize("status", ["401", pytest.param("403", marks=pytest.mark.slow)])
def test_a_store_that_does_not_know_who_asks_is_told_in_one_line(through, names, status):
    bucket = through("gs", lambda _: status)
    with pytest.raises(StorageError, match=r"access denied .*; log in by `gcloud auth application-default login`"):
        as_path(f"{bucket}/{names}").exists()


@pytest.mark.slow
def test_a_store_that_stays_away_is_one_line_in_the_end(through, names, monkeypatch):
    monkeypatch.setattr(objects, "_PATIENCE", 3)
    bucket = through("s3", lambda _: "503")
    begun = time.monotonic()
    with pytest.raises(UNetError, match=r"the store does not answer as it should"):
        as_path(f"{bucket}/{names}").exists()
    assert time.monotonic() - begun < 60


def started(arguments, variables, log):
    path = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "unet_cli", *map(str, arguments)]
    with log.open("w") as file:
        return subprocess.Popen(command, env={**os.environ, **path, **variables}, stdout=file, stderr=file, cwd=ROOT)


def steps_of(run):
    return [entry for entry in read_history(run / "history.jsonl") if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "most", "steps"), [("torch", 15, 300), ("jax", 15, 150)])
def test_kills_lose_no_more_than_the_last_steps_and_change_no_history(
    gs_bucket, gcs_server, backend, most, steps, names, cells, tmp_path
):
    """Many kills: the history of what is gone on with is as it was, bit for bit."""
    pytest.importorskip(backend)
    run = as_path(f"{gs_bucket}/{names}/run")
    variables, rng = buckets.gcs_environment(gcs_server), random.Random(backend)
    arguments = [
        "train",
        "--backend",
        backend,
        "--data",
        cells,
        "--out",
        run,
        "--resume",
        *TRAIN,
        "--steps",
        str(steps),
    ]
    known, kills, log = {}, 0, tmp_path / "log"
    for _ in range(60):
        process = started(arguments, variables, log)
        begun = len(steps_of(run)) if run.exists() else 0
        while process.poll() is None and (not run.exists() or len(steps_of(run)) == begun):
            time.sleep(0.2)
        time.sleep(rng.random() / 2)
        if kills < most and process.poll() is None:
            process.kill()
            kills += 1
        assert process.wait() in (0, -signal.SIGKILL), log.read_text()
        for entry in steps_of(run):
            assert known.setdefault(entry["step"], entry) == entry
        if process.returncode == 0:
            break
    assert kills >= most // 2
    assert sorted(known) == list(range(1, steps + 1))
    whole = tmp_path / "whole"
    assert started([*arguments[:5], *("--out", whole), *TRAIN, "--steps", str(steps)], variables, log).wait() == 0
    assert steps_of(whole) == steps_of(run)


@pytest.mark.slow
def test_no_half_checkpoint_is_opened_when_its_writer_is_killed(gs_bucket, gcs_server, names, tmp_path):
    """30 kills while directories are put: what is there afterwards is the whole of one of them, or refused."""
    script = """
import sys, time
from pathlib import Path
from unet_core.paths import as_path
from unet_core.files import atomic
for number in range(1000):
    with atomic(as_path(sys.argv[1]), force=True, replaces=lambda _: True) as partial:
        partial.mkdir()
        (partial / "_CHECKPOINT_METADATA").write_text(str(number))
        for part in range(6):
            (partial / str(part)).write_text(str(number) * 1000)
    print(number, flush=True)
"""
    target, rng = as_path(f"{gs_bucket}/{names}/model"), random.Random(0)
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **buckets.gcs_environment(gcs_server)}
    refused = 0
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(target)], env=variables, stdout=subprocess.PIPE, cwd=ROOT
        )
        process.stdout.readline()
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.communicate()
        with contextlib.suppress(CheckpointError), at_hand(target) as local:
            number = (local / "_CHECKPOINT_METADATA").read_text()
            assert [(local / str(part)).read_text() for part in range(6)] == [number * 1000] * 6
            continue
        refused += 1
    assert 0 < refused < 30


@pytest.mark.slow
def test_a_checkpoint_of_a_tiny_network_goes_through_a_poor_connection(through, names, tmp_path):
    rng = random.Random(1)
    bucket = through("gs", lambda _: rng.choice(faulty.KINDS) if rng.random() < 0.15 else None)
    with atomic(as_path(f"{bucket}/{names}/a.safetensors")) as partial:
        write(partial, Checkpoint(TINY, trained_tensors(TINY)))
    with at_hand(as_path(f"{bucket}/{names}/a.safetensors")) as local:
        for key, value in trained_tensors(TINY).items():
            np.testing.assert_array_equal(read_tensors(local)[key], value)

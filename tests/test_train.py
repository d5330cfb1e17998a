"""Training in both twins: the same losses, exact resumption, clean ends."""

import dataclasses
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import few, mostly_torch
from safetensors.numpy import load_file

from unet_core import CheckpointError, ConfigError, UNetConfig
from unet_core.checkpoints.checkpoint import new_network
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import RunError
from unet_core.training.history import read_history
from unet_core.training.opening import Job, open_run
from unet_core.training.run import read_run_config
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Loss, Optimizer
from unet_core.training.train_config import TrainConfig

pytest.importorskip("grain")
pytest.importorskip("tensorboardX")

BACKENDS = ("torch", "jax")
SMALL = TrainConfig(
    features=(3, 4), steps=8, batch=2, crop=16, validation=2, validate_every=4, save_every=2, log_every=3, keep=3
)


def train(backend, path, data, recipe=SMALL, *, resume=False, until=None, **options):
    module = importlib.import_module(f"unet_{backend}.training.train")
    with open_run(path, Job(backend, recipe, str(data), resume=resume, until=until)) as run:
        return module.train(run, **options)


def warnings(caplog, words):
    """What was logged as a warning with these words in it."""
    return [record for record in caplog.records if record.levelname == "WARNING" and words in record.getMessage()]


def history(path):
    return (path / "history.jsonl").read_bytes()


def losses(path):
    return np.array([entry["loss"] for entry in read_history(path / "history.jsonl") if "loss" in entry])


def states(path):
    return sorted((path / "states").iterdir(), key=lambda state: int(state.stem))


RECIPES = {
    "adam": SMALL,
    "everything": dataclasses.replace(
        SMALL,
        accumulate=2,
        ema=0.8,
        upsampling="transposed",
        loss=Loss("cross-entropy+dice", (1.0, 3.0)),
        optimizer=Optimizer("sgd", 1e-2, 1e-3, momentum=0.9, nesterov=True, clip=0.5),
        schedule=Schedule("plateau", warmup=2, patience=0),
    ),
}


@pytest.fixture(scope="session")
def whole(cells, tmp_path_factory):
    """Uninterrupted trainings, each made once."""
    made = {}

    def get(backend, name="adam"):
        if (backend, name) not in made:
            path = tmp_path_factory.mktemp("whole") / f"{backend}-{name}"
            train(backend, path, cells, RECIPES[name])
            made[backend, name] = path
        return made[backend, name]

    return get


def double(recipe, **changes):
    return dataclasses.replace(recipe, precision="float64", **changes)


@pytest.mark.parametrize("name", ["adam", pytest.param("everything", marks=pytest.mark.slow)])
def test_twins_have_the_same_losses(name, cells, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    recipe = double(RECIPES[name], steps=20, validate_every=20, save_every=20)
    for backend in BACKENDS:
        train(backend, tmp_path / backend, cells, recipe)
    ours, theirs = (losses(tmp_path / backend) for backend in BACKENDS)
    assert np.abs(ours - theirs).max() < 1e-9 * np.abs(theirs).max()
    one, two = (read_history(tmp_path / backend / "history.jsonl")[-1]["validation"] for backend in BACKENDS)
    assert one["confusion"] == two["confusion"]


def test_another_order_of_the_pictures_is_noticed(cells, tmp_path, monkeypatch):
    """The negative control: the comparison above sees a batch that is not the same."""
    pytest.importorskip("torch")
    recipe = double(SMALL, steps=4, validate_every=4, save_every=4)
    train("torch", tmp_path / "a", cells, recipe)
    monkeypatch.setattr("unet_core.data.batches._ORDERS", 7)
    importlib.import_module("unet_core.data.batches")._order.cache_clear()
    train("torch", tmp_path / "b", cells, recipe)
    importlib.import_module("unet_core.data.batches")._order.cache_clear()
    assert np.abs(losses(tmp_path / "a") - losses(tmp_path / "b")).max() > 1e-4


@mostly_torch
def test_a_training_learns(backend, whole):
    found = losses(whole(backend))
    assert np.isfinite(found).all()
    assert found[-1] < found[0]


RESUMED = [(backend, name, end) for backend in BACKENDS for name in RECIPES for end in (3, 4)]


@pytest.mark.parametrize(
    ("backend", "name", "end"), few(RESUMED, ("torch", "everything", 3), ("jax", "adam", 3)), indirect=["backend"]
)
def test_resumption_is_exact(backend, name, end, cells, whole, tmp_path, monkeypatch, caplog):
    """A signal after any step: state, history and best network go on as if there had been none."""
    interrupt(monkeypatch, after=end)
    outcome = train(backend, tmp_path / "run", cells, RECIPES[name])
    assert (outcome.step, outcome.stopped_by) == (end, signal.SIGTERM)
    monkeypatch.undo()
    caplog.set_level("INFO", "unet_core")
    train(backend, tmp_path / "run", cells, RECIPES[name], resume=True)
    assert f"going on after step {end} of 8" in caplog.messages
    assert history(tmp_path / "run") == history(whole(backend, name))
    ours, theirs = (load_file(path / "best.safetensors") for path in (tmp_path / "run", whole(backend, name)))
    assert {key: value.tobytes() for key, value in ours.items()} == {
        key: value.tobytes() for key, value in theirs.items()
    }


@mostly_torch
def test_a_training_leaves_where_it_is_told_to(backend, cells, whole, tmp_path):
    """With its state saved; the schedule stays that of all the steps."""
    outcome = train(backend, tmp_path / "run", cells, until=3)
    assert (outcome.step, outcome.steps, outcome.stopped_by) == (3, 8, None)
    assert states(tmp_path / "run")[-1].stem.lstrip("0") == "3"
    for until in (5, 99):  # beyond a validation, beyond the last step
        train(backend, tmp_path / "run", cells, resume=True, until=until)
    assert history(tmp_path / "run") == history(whole(backend))


def test_a_training_cannot_leave_before_its_first_step(backend, cells, tmp_path):
    with pytest.raises(ConfigError, match="until 0: give a whole number from 1 up"):
        train(backend, tmp_path / "run", cells, until=0)
    assert not (tmp_path / "run").exists()


def interrupt(monkeypatch, *, after, number=signal.SIGTERM):
    """Send this process a signal once the rate of a step is asked for."""
    recorder = importlib.import_module("unet_core.training.recorder").Recorder
    rate = recorder.rate

    def rate_and_signal(self, step):
        if step == after - 1:
            os.kill(os.getpid(), number)
        return rate(self, step)

    monkeypatch.setattr(recorder, "rate", rate_and_signal)


@mostly_torch
def test_a_signal_between_fetching_and_saving_loses_no_line(backend, cells, whole, tmp_path, monkeypatch):
    """It asks for a save when the losses of the step have not been fetched: that comes with the next step."""
    recorder = importlib.import_module("unet_core.training.recorder").Recorder
    validates = recorder.validates
    calls = []

    def validates_and_signal(self, step):
        calls.append(step)
        if calls == [1, 1]:  # once within `due`, once after it
            os.kill(os.getpid(), signal.SIGTERM)
        return validates(self, step)

    monkeypatch.setattr(recorder, "validates", validates_and_signal)
    outcome = train(backend, tmp_path / "run", cells)
    assert outcome.step == 2
    monkeypatch.undo()
    train(backend, tmp_path / "run", cells, resume=True)
    assert history(tmp_path / "run") == history(whole(backend))


@mostly_torch
def test_lines_of_a_step_that_was_never_saved_are_made_again(backend, cells, whole, tmp_path):
    shutil.copytree(whole(backend), tmp_path / "run")
    for state in states(tmp_path / "run")[1:]:
        shutil.rmtree(state) if state.is_dir() else state.unlink()
    train(backend, tmp_path / "run", cells, resume=True)
    assert history(tmp_path / "run") == history(whole(backend))


@mostly_torch
def test_without_a_state_the_run_starts_anew(backend, cells, whole, tmp_path):
    shutil.copytree(whole(backend), tmp_path / "run", ignore=shutil.ignore_patterns("states"))
    train(backend, tmp_path / "run", cells, resume=True)
    assert history(tmp_path / "run") == history(whole(backend))


@mostly_torch
def test_what_a_killed_process_was_writing_is_removed(backend, cells, whole, tmp_path):
    shutil.copytree(whole(backend), tmp_path / "run")
    for folder in (tmp_path / "run", tmp_path / "run/states"):
        (folder / ".history.jsonl.abc.partial").mkdir()
    train(backend, tmp_path / "run", cells, resume=True)
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_run_that_was_killed_before_its_config_was_written_starts(cells, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "run/.config.json.abc.partial").mkdir(parents=True)
    (tmp_path / "run/.lock").touch()
    outcome = train("torch", tmp_path / "run", cells, resume=True)
    assert outcome.step == 8


@mostly_torch
def test_the_latest_states_are_kept(backend, whole):
    assert [int(state.stem) for state in states(whole(backend))] == [4, 6, 8]


def damage(state, how):
    """Spoil the largest file of a state."""
    files = [path for path in (state, *state.rglob("*")) if path.is_file()]
    file = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    middle = len(data) // 2
    if how == "flipped":
        data[middle : middle + 200] = bytes(value ^ 1 for value in data[middle : middle + 200])
        file.write_bytes(data)
    else:
        file.write_bytes(data[:middle] if how == "cut" else b"")


@mostly_torch
@pytest.mark.parametrize("how", few(["flipped", "cut", "empty"], "cut"))
def test_a_damaged_state_is_passed_over(backend, how, cells, whole, tmp_path, caplog):
    shutil.copytree(whole(backend), tmp_path / "run")
    damage(states(tmp_path / "run")[-1], how)
    caplog.set_level("INFO", "unet_core")
    train(backend, tmp_path / "run", cells, resume=True)
    assert warnings(caplog, "is damaged and passed over")
    assert "going on after step 6 of 8" in caplog.messages
    assert history(tmp_path / "run") == history(whole(backend))
    assert [int(state.stem) for state in states(tmp_path / "run")] == [4, 6, 8]


def test_a_bit_of_the_optimisers_slots_that_flipped_is_seen(tmp_path, caplog):
    """Within the packed values, where nothing but our digests of the item `training` tells."""
    pytest.importorskip("jax")
    import tensorstore

    from unet_jax.training.state_folder import States

    network = new_network(SMALL.network(1, 2), 0)
    training = {"slots.mu": np.random.default_rng(0).standard_normal((64, 64))}
    with States(tmp_path / "states", keep=3) as found:
        for step in (2, 4):
            found.save(step, network, training)
    folder = tmp_path / "states/4/training"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{folder}/"}).result()
    values = max((bytes(store.read(key).result().value) for key in store.list().result()), key=len)
    file = next(path for path in folder.rglob("d/*") if path.is_file() and values in path.read_bytes())
    data = bytearray(file.read_bytes())
    data[data.index(values) + len(values) // 2] ^= 1
    file.write_bytes(data)
    taken = []
    with States(tmp_path / "states", keep=3) as found:
        assert found.newest(lambda model, slots: taken.append(slots["slots.mu"])) == 2
    assert warnings(caplog, "the sha256 of slots.mu is not the stored one")
    assert (taken[0] == training["slots.mu"]).all()


@mostly_torch
def test_without_any_sound_state_nothing_is_lost(backend, cells, whole, tmp_path):
    shutil.copytree(whole(backend), tmp_path / "run")
    for state in states(tmp_path / "run"):
        damage(state, "cut")
    before = history(tmp_path / "run")
    with pytest.raises(RunError, match="no state of 3 is sound"):
        train(backend, tmp_path / "run", cells, resume=True)
    assert history(tmp_path / "run") == before
    assert len(states(tmp_path / "run")) == 3


@mostly_torch
def test_a_full_disk_is_said_and_earlier_states_stay_sound(backend, cells, whole, tmp_path, caplog):
    """A limit on file sizes stands in for the full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    shutil.copytree(whole(backend), tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        with pytest.raises((RunError, CheckpointError), match=r"not saved|not written"):
            train(backend, tmp_path / "run", cells, dataclasses.replace(SMALL, steps=12), resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    caplog.set_level("INFO", "unet_core")
    train(backend, tmp_path / "run", cells, dataclasses.replace(SMALL, steps=12), resume=True)
    assert "going on after step 8 of 12" in caplog.messages


@mostly_torch
def test_tensorboard_on_a_full_disk_does_not_end_the_training(backend, cells, whole, tmp_path, monkeypatch, caplog):
    event_file_writer = pytest.importorskip("tensorboardX.event_file_writer")

    write = event_file_writer.EventsWriter.write_event

    def full(self, event):
        if event.step:
            raise OSError(28, "No space left on device")
        write(self, event)

    monkeypatch.setattr(event_file_writer.EventsWriter, "write_event", full)
    train(backend, tmp_path / "run", cells)
    assert warnings(caplog, "no more TensorBoard files: no space left on device")
    assert history(tmp_path / "run") == history(whole(backend))


@mostly_torch
def test_a_lost_best_network_is_said_and_made_anew(backend, cells, whole, tmp_path, caplog):
    shutil.copytree(whole(backend), tmp_path / "run")
    for state in states(tmp_path / "run")[1:]:
        shutil.rmtree(state) if state.is_dir() else state.unlink()
    (tmp_path / "run/best.safetensors").write_bytes(b"damaged")
    train(backend, tmp_path / "run", cells, resume=True)
    assert warnings(caplog, "the best network is lost")
    assert load_file(tmp_path / "run/best.safetensors")
    assert history(tmp_path / "run") == history(whole(backend))


def test_a_training_that_was_refused_can_be_started_anew(cells, tmp_path, monkeypatch):
    jax, _ = pytest.importorskip("jax"), pytest.importorskip("torch")
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(ConfigError, match="not divided by the 3 devices"):
        train("jax", tmp_path / "run", cells)
    monkeypatch.undo()
    outcome = train("torch", tmp_path / "run", cells, dataclasses.replace(SMALL, seed=3))
    assert outcome.step == 8


def test_another_training_that_began_meanwhile_is_seen(cells, tmp_path, monkeypatch):
    """Between the look at the folder and the lock."""
    pytest.importorskip("torch")
    module = importlib.import_module("unet_core.training.opening")
    split = module.split

    def split_and_wait(*given):
        monkeypatch.undo()
        train("torch", tmp_path / "run", cells, dataclasses.replace(SMALL, seed=1))
        return split(*given)

    monkeypatch.setattr(module, "split", split_and_wait)
    with pytest.raises(RunError, match=r"holds a run already|another process has trained here"):
        train("torch", tmp_path / "run", cells)
    assert read_run_config(tmp_path / "run").recipe.seed == 1


def test_orbaxs_unfinished_directories_are_removed(tmp_path):
    pytest.importorskip("jax")
    from unet_jax.training.state_folder import States

    with States(tmp_path / "states", keep=3) as found:
        found.save(2, new_network(SMALL.network(1, 2), 0), {"slots.mu": np.zeros(3)})
    (tmp_path / "states/3.orbax-checkpoint-tmp").mkdir()
    with States(tmp_path / "states", keep=3) as found:
        found.save(4, new_network(SMALL.network(1, 2), 0), {"slots.mu": np.zeros(3)})
    assert [state.name for state in states(tmp_path)] == ["2", "4"]


def test_pictures_of_the_same_names_and_sizes_are_other_data(cells, whole, tmp_path):
    pytest.importorskip("torch")
    shutil.copytree(whole("torch"), tmp_path / "run")
    write_folder(Synthetic(count=6, size=32, seed=1), tmp_path / "other")
    with pytest.raises(RunError, match="the data is not what the run was started with: another digest"):
        train("torch", tmp_path / "run", tmp_path / "other", resume=True)


def test_fewer_steps_than_were_made_are_refused(cells, whole, tmp_path):
    pytest.importorskip("torch")
    shutil.copytree(whole("torch"), tmp_path / "run")
    with pytest.raises(RunError, match="has made 8 steps already"):
        train("torch", tmp_path / "run", cells, dataclasses.replace(SMALL, steps=4), resume=True)


@mostly_torch
def test_a_run_keeps_what_it_started_from(backend, cells, whole, tmp_path, monkeypatch):
    from conversion.training import train as train_anywhere

    monkeypatch.chdir(tmp_path)
    shutil.copy(whole(backend) / "best.safetensors", "start.safetensors")
    recipe = dataclasses.replace(SMALL, start="start.safetensors", steps=2)
    given = {"backend": backend, "data": cells}
    train_anywhere("run", **given, recipe=recipe)
    shutil.rmtree("run/states")
    before = history(tmp_path / "run")
    Path("run/history.jsonl").unlink()  # as if it had been killed before its first step
    train_anywhere("run", **given, recipe=recipe, resume=True)
    assert history(tmp_path / "run") == before
    Path("start.safetensors").unlink()
    shutil.rmtree("run/states")
    train_anywhere("run", **given, recipe=recipe, resume=True)
    assert history(tmp_path / "run") == before


@mostly_torch
def test_a_loss_that_is_no_number_ends_the_run(backend, cells, tmp_path):
    recipe = dataclasses.replace(SMALL, steps=40, save_every=40, optimizer=Optimizer("sgd", 1e30))
    with pytest.raises(RunError, match=r"the (validation )?loss (of|after) step \d+ is (nan|inf)"):
        train(backend, tmp_path / "run", cells, recipe)


@mostly_torch
def test_several_classes(backend, cells, tmp_path):
    from PIL import Image

    shutil.copytree(cells, tmp_path / "data")
    for number, path in enumerate(sorted((tmp_path / "data/masks").iterdir())):
        mask = np.asarray(Image.open(path)) // 255
        mask[:8] += number % 2 + 1
        Image.fromarray(mask).save(path)
    train(
        backend, tmp_path / "run", str(tmp_path / "data"), dataclasses.replace(SMALL, loss=Loss("cross-entropy+dice"))
    )
    assert read_run_config(tmp_path / "run").values == (0, 1, 2, 3)
    found = read_history(tmp_path / "run/history.jsonl")[-1]["validation"]
    assert len(found["iou"]) == 4


@pytest.mark.parametrize("precision", few(["bfloat16", "float64"]))
def test_other_precisions(backend, precision, cells, tmp_path):
    train(backend, tmp_path / "run", cells, dataclasses.replace(SMALL, steps=4, precision=precision))
    kind = np.float64 if precision == "float64" else np.float32
    tensors = load_file(tmp_path / "run/best.safetensors")
    assert {value.dtype for key, value in tensors.items() if not key.endswith("tracked")} == {np.dtype(kind)}


@mostly_torch
def test_a_checkpoint_to_start_from(backend, cells, whole, tmp_path):
    from conversion.training import train as train_anywhere

    start = str(whole(backend) / "best.safetensors")
    recipe = dataclasses.replace(SMALL, start=start, steps=2, validate_every=2)
    train_anywhere(tmp_path / "run", backend=backend, data=str(cells), recipe=recipe)
    assert losses(tmp_path / "run")[0] < losses(whole(backend))[0]


@pytest.mark.parametrize(("classes", "outputs"), [(2, 2), (3, 3)])
def test_a_start_of_sigmoids_becomes_a_softmax(classes, outputs, cells, tmp_path):
    """It is trained as one: its classes must be told apart as one, too."""
    pytest.importorskip("torch")
    from PIL import Image

    config = UNetConfig(1, outputs, (3, 4), output="sigmoid")
    shutil.copytree(cells, tmp_path / "data")
    for path in (tmp_path / "data/masks").iterdir():
        mask = np.asarray(Image.open(path)) // 255
        mask[:8] = classes - 1
        Image.fromarray(mask).save(path)
    job = Job("torch", SMALL, str(tmp_path / "data"), new_network(config, 0))
    with open_run(tmp_path / "run", job) as run:
        assert run.start.config.output == "softmax"


@mostly_torch
def test_tensorboard_has_the_curves_and_pictures(backend, whole):
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter  # noqa: F401  (the package is there)

    (file,) = (whole(backend) / "tensorboard").iterdir()
    tags = set()
    raw = file.read_bytes()
    while raw:
        length = int.from_bytes(raw[:8], "little")
        event = Event.FromString(raw[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        raw = raw[16 + length :]
    assert {"training/loss", "training/rate", "training/norm", "validation/mean_IoU", "validation/loss"} <= tags
    assert any(tag.startswith("validation/00") for tag in tags)


def test_jax_compiles_the_step_once(cells, tmp_path, caplog):
    jax = pytest.importorskip("jax")
    with jax.log_compiles(True), caplog.at_level("WARNING"):
        train("jax", tmp_path / "run", cells)
    compiled = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]
    names = [line.split()[1] for line in compiled]
    assert [name for name in names if "update" in name] == [name for name in names if "update" in name][:1]
    assert len([name for name in names if "logits_of_tiles" in name]) == 1  # the tiles of the validation


@pytest.mark.slow
def test_the_step_lowers_for_a_tpu():
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from unet_jax.training import step
    from unet_jax.training.mesh import device_mesh

    recipe = dataclasses.replace(SMALL, precision="bfloat16", ema=0.9)
    network = new_network(recipe.network(1, 2), 0)
    state = step.new_state(network, recipe, device_mesh(recipe.batch))
    update = step.updater(recipe, step.abstract_model(network, recipe))
    shape, number = (1, recipe.batch, recipe.crop, recipe.crop), jnp.zeros(())
    batch = jnp.zeros((*shape, 1)), jnp.zeros(shape, jnp.uint8)
    exported = jax.export.export(jax.jit(update), platforms=("tpu",))(
        state, *batch, (number, number, jnp.zeros((), jnp.uint32))
    )
    assert exported.platforms == ("tpu",)


@pytest.mark.slow
def test_jax_does_not_wait_for_each_step(cells, tmp_path, monkeypatch):
    """Losses come from the device once per `log_every` steps, not once per step."""
    jax = pytest.importorskip("jax")
    fetched = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(len(tree)) or get(tree))
    train("jax", tmp_path / "run", cells, dataclasses.replace(SMALL, save_every=8, validate_every=8, log_every=4))
    assert fetched == [4, 4]


def test_a_batch_that_the_devices_do_not_divide_is_refused(monkeypatch):
    jax = pytest.importorskip("jax")
    from unet_jax.training.mesh import device_mesh

    monkeypatch.setattr(jax, "device_count", lambda: 4)
    with pytest.raises(ConfigError, match="batch 6: is not divided by the 4 devices; give a multiple of 4"):
        device_mesh(6)


def in_process(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_eight_devices_train_as_one_does(cells, tmp_path):
    """The statistics are those of the whole batch, wherever its parts are: in float64 nothing but rounding differs."""
    pytest.importorskip("jax")
    recipe = double(SMALL, batch=8, steps=6, validate_every=6, save_every=6, ema=0.9)
    code = f"""
import json, pathlib
from unet_core.training.train_config import TrainConfig
from unet_core.training.opening import Job, open_run
from unet_jax.training.train import train
recipe = TrainConfig.from_dict(json.loads({json.dumps(recipe.to_dict())!r}))
with open_run(pathlib.Path({str(tmp_path / "eight")!r}), Job("jax", recipe, {str(cells)!r})) as run:
    train(run)
"""
    done = in_process(code, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    assert done.returncode == 0, done.stderr
    train("jax", tmp_path / "one", cells, recipe)
    one, eight = (losses(tmp_path / name) for name in ("one", "eight"))
    assert np.abs(one - eight).max() < 1e-12
    ours, theirs = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "eight"))
    apart = max(float(np.abs(ours[key] - theirs[key]).max()) for key in ours)
    assert apart < 1e-9


@pytest.mark.slow
def test_statistics_of_a_part_of_the_batch_would_be_noticed(cells, tmp_path):
    """The negative control: an eighth of the batch has other statistics."""
    pytest.importorskip("jax")
    for name, batch in (("whole", 8), ("part", 1)):
        train("jax", tmp_path / name, cells, double(SMALL, batch=batch, steps=1, crop=32))
    ours, theirs = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "part"))
    assert max(float(np.abs(ours[key] - theirs[key]).max()) for key in ours if "running" in key) > 1e-3


COMMAND = ("--backend", "{backend}", "--steps", "60", "--features", "3", "4", "--crop", "16", "--batch", "2")


def start_command(backend, data, run):
    arguments = [word.format(backend=backend) for word in COMMAND]
    code = "import sys; from unet_cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            "train",
            *arguments,
            "--save-every",
            "5",
            "--out",
            str(run),
            "--data",
            str(data),
            "--resume",
        ],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until_step(run, step, process):
    """Wait until a state of that step is there."""
    for _ in range(6000):
        if any(int(state.stem) >= step for state in (run / "states").glob("*") if state.stem.isdecimal()):
            return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise AssertionError("no state")


@pytest.mark.slow
def test_kill_9_loses_nothing(backend, cells, tmp_path):
    run = tmp_path / "run"
    process = start_command(backend, cells, run)
    until_step(run, 10, process)
    process.kill()
    process.communicate()
    process = start_command(backend, cells, run)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "going on after step" in said
    process = start_command(backend, cells, tmp_path / "whole")
    process.communicate()
    assert history(run) == history(tmp_path / "whole")


def test_a_signal_that_was_ignored_stays_so(heeded):
    from unet_core.training.signals import stop_requests

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGINT)
    assert request.signal is None


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(
    ("backend", "number", "code"),
    few(
        {
            f"{backend}, {name}": (backend, getattr(signal, name), code)
            for backend in BACKENDS
            for name, code in (("SIGTERM", 0), ("SIGINT", 130))
        },
        "torch, SIGINT",
        "torch, SIGTERM",
    ),
    indirect=["backend"],
)
def test_signals_save_and_leave(backend, number, code, cells, tmp_path, monkeypatch, capsys):
    from unet_cli.main import main

    interrupt(monkeypatch, after=3, number=number)
    arguments = [word.format(backend=backend) for word in COMMAND]
    assert main(["train", *arguments, "--data", str(cells), "--out", str(tmp_path / "run")]) == code
    assert (
        f"stopped by {number.name} after step 3 of 60; the state is saved: go on with --resume"
        in capsys.readouterr().out
    )
    assert [int(state.stem) for state in states(tmp_path / "run")] == [3]

"""`unet train`, `predict`, `eval` and `plot`: what they write and print, and how they refuse."""

import importlib
import json
import shutil

import numpy as np
import pytest
from conftest import TINY, mostly_torch, trained_tensors

import conversion
from unet_cli.main import main
from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint, Origin, read_record, seal
from unet_core.data.labels import Classes
from unet_core.training.history import read_history

pytest.importorskip("grain")
Image = pytest.importorskip("PIL.Image")

GREY = UNetConfig(1, 1, (3, 4))
RECIPE = ("--steps", "4", "--features", "3", "4", "--crop", "16", "--batch", "2", "--validate-every", "2")


@pytest.fixture(scope="session")
def run(cells, tmp_path_factory):
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--backend", "torch", "--data", str(cells), "--out", str(path), *RECIPE]) == 0
    return path


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "net.safetensors"
    safetensors_file.write(path, Checkpoint(GREY, trained_tensors(GREY)))
    return path


def refused(arguments, capsys):
    """The one line of an exit with code 2."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_new_run_needs_a_backend_and_data(tmp_path, capsys):
    assert "--backend jax|torch: is needed" in refused(["train", "--out", tmp_path / "run"], capsys)
    assert "--data DIR: is needed" in refused(["train", "--backend", "jax", "--out", tmp_path / "run"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "{run}"], "holds a run already; go on with it by --resume"),
        (["--out", "{data}"], "exists and is no run; name a new folder"),
        (["--out", "{run}", "--resume", "--seed", "3"], "started with another --seed"),
        (["--out", "{run}", "--resume", "--no-flips", "--crop", "32"], "started with another --crop, --flips"),
        (["--out", "{run}", "--resume", "--backend", "jax"], "was trained with --backend torch"),
        (["--out", "{new}", "--batch", "0"], "batch 0: give a whole number from 1 up"),
        (["--out", "{new}", "--profile", "0"], "profile 0: give a whole number from 1 up"),
        (["--out", "{run}", "--resume", "--profile", "-2"], "profile -2: give a whole number from 1 up"),
        (["--out", "{new}", "--crop", "1"], "crop 1: is too small"),
        (["--out", "{new}", "--class-weights", "1", "2", "3"], "the masks have 2 classes; give 2"),
        (["--out", "{new}", "--class-weights", "1", "2", "--loss", "dice"], "weigh the cross-entropy"),
        (["--out", "{new}", "--validation", "6"], "leaves none to train or none to validate on"),
        (["--out", "{new}", "--data", "nowhere"], "nowhere"),
        (["--out", "{new}", "--start", "nowhere.pt"], "nowhere.pt"),
        (["--out", "{new}", "--norm-parts", "3"], "norm_parts 3: does not divide the batch of 4"),
        (["--out", "{run}", "--resume", "--norm-parts", "2"], "started with another --norm-parts"),
        (["--out", "{new}", "--remat"], "--remat for --backend jax"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, message, run, cells, tmp_path, capsys):
    places = {"run": run, "data": cells, "new": tmp_path / "new"}
    given = [option.format(**places) for option in options]
    usual = [] if "--resume" in given else ["--backend", "torch"]
    usual += [] if "--data" in given or "--resume" in given else ["--data", cells]
    before = (run / "history.jsonl").read_bytes()
    assert message in refused(["train", *usual, *given], capsys)
    assert not (tmp_path / "new").exists()
    assert (run / "history.jsonl").read_bytes() == before


def test_bad_data_is_refused_before_anything_is_written(backend, cells, tmp_path, capsys):
    shutil.copytree(cells, tmp_path / "data")
    (tmp_path / "data/masks/002.png").unlink()
    (tmp_path / "data/images/004.png").write_bytes(b"")
    message = refused(["train", "--backend", backend, "--data", tmp_path / "data", "--out", tmp_path / "run"], capsys)
    assert "002.png" in message
    assert "004.png" in message
    assert not (tmp_path / "run").exists()


@mostly_torch
def test_other_files_are_named_and_left_out(backend, cells, tmp_path, capsys):
    shutil.copytree(cells, tmp_path / "data")
    (tmp_path / "data/images/notes.txt").write_text("hello")
    given = ["--backend", backend, "--data", tmp_path / "data", "--out", tmp_path / "run", *RECIPE]
    assert main(["train", *map(str, given)]) == 0
    assert "left out, for they are no pictures: images/notes.txt" in capsys.readouterr().out


def test_data_that_changed_is_another_training(run, cells, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(cells, tmp_path / "data")
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "003.png").unlink()
    message = refused(["train", "--resume", "--data", tmp_path / "data", "--out", tmp_path / "run"], capsys)
    assert "the data is not what the run was started with" in message


def test_a_resume_reads_no_picture_unless_recheck_is_said(cells, tmp_path, monkeypatch, caplog):
    pytest.importorskip("torch")
    shutil.copytree(cells, tmp_path / "data")
    monkeypatch.setattr("unet_core.data.listing.SETTLED", 0)
    seen = []
    for name in ("unet_core.data.folder.look_at", "unet_core.data.index.sha256_of"):
        module, _, function = name.rpartition(".")
        real = getattr(importlib.import_module(module), function)
        monkeypatch.setattr(name, lambda *given, real=real: seen.append(given) or real(*given))
    run = str(tmp_path / "run")
    data = ["--data", str(tmp_path / "data")]
    assert main(["train", "--backend", "torch", *data, "--out", run, *RECIPE, "--until", "2"]) == 0
    counts = [len(seen)]
    for more in ([], ["--recheck"]):
        assert main(["train", "--resume", "--out", run, "--until", "3", *more]) == 0
        counts.append(len(seen))
    for more in ([], ["--recheck"]):
        assert main(["eval", run, *data, *more]) == 0
        counts.append(len(seen))
    assert np.diff([0, *counts]).tolist() == [6 + 12, 0, 6 + 12, 0, 6]


def test_a_second_process_is_kept_out(run, tmp_path, capsys):
    import fcntl

    shutil.copytree(run, tmp_path / "run")
    with (tmp_path / "run/.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process trains here" in refused(["train", "--resume", "--out", tmp_path / "run"], capsys)


def test_more_steps_go_on_from_where_the_run_was(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--steps", "6"]) == 0
    steps = [entry["step"] for entry in read_history(tmp_path / "run/history.jsonl") if "loss" in entry]
    assert steps == [1, 2, 3, 4, 5, 6]


def picture(path, height=21, width=34, channels=None):
    shape = (height, width) if channels is None else (height, width, channels)
    Image.fromarray(np.random.default_rng(height).integers(0, 256, shape, np.uint8)).save(path)
    return path


@mostly_torch
def test_predictions_are_those_of_the_network(backend, checkpoint, tmp_path):
    """Mask, probabilities and overlay, against the network called on the whole picture."""
    path = picture(tmp_path / "a.png")
    options = ["--probabilities", "--overlays", "--backend", backend, "--out", str(tmp_path / "out")]
    assert main(["predict", str(checkpoint), str(path), *options]) == 0
    found = np.load(tmp_path / "out/a.npy")
    x = np.asarray(Image.open(path), np.float32)[None, :, :, None] / np.float32(255)
    if backend == "jax":
        from flax import nnx

        import unet_jax

        expected = np.asarray(nnx.jit(lambda model, x: model(x))(unet_jax.load(checkpoint), x))[0]
    else:
        import torch

        import unet_torch

        with torch.inference_mode():
            expected = unet_torch.load(checkpoint)(torch.from_numpy(x).permute(0, 3, 1, 2))[0].permute(1, 2, 0).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6
    mask = np.asarray(Image.open(tmp_path / "out/a.png"))
    assert ((mask == 255) == (found[..., 0] > 0.5)).all()
    assert set(np.unique(mask)) <= {0, 255}
    assert np.asarray(Image.open(tmp_path / "out/a_overlay.png")).shape == (21, 34, 3)


def test_both_backends_predict_the_same(checkpoint, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    path = picture(tmp_path / "a.png", 40, 23, 3)
    for backend in ("torch", "jax"):
        given = [checkpoint, path, "--probabilities", "--flips", "--backend", backend, "--out", tmp_path / backend]
        assert main(["predict", *map(str, given)]) == 0
    one, two = (np.load(tmp_path / backend / "a.npy") for backend in ("torch", "jax"))
    assert np.abs(one - two).max() < 1e-6


@mostly_torch
def test_bad_pictures_are_passed_over_and_the_exit_code_says_so(backend, checkpoint, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture(folder / "good.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:300])
    picture(folder / "small.png", 1, 1)
    (folder / "notes.txt").write_text("no picture")
    assert main(["predict", str(checkpoint), str(folder), "--backend", backend, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "1 of 3 pictures predicted" in said.out
    assert "broken.png" in said.err
    assert "small.png" in said.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: ["{net}", folder / "a.png", folder / "sub/a.png", "--out", folder / "out"], "rename one"),
        (lambda folder: ["{net}", folder / "a.png", "--out", folder / "there"], "there already"),
        (lambda folder: ["{net}", folder / "a.png", "--out", folder, "--force"], "is a picture that is to be read"),
        (lambda folder: ["{net}", "--out", folder / "out"], "no picture is named"),
        (lambda folder: ["{net}", folder / "empty", "--out", folder / "out"], "no picture is named"),
        (lambda folder: [folder / "no.pt", folder / "a.png", "--out", folder / "out"], "no.pt"),
        (lambda folder: ["{net}", folder / "a.png", "--out", folder / "out", "--tile", "7"], "multiple"),
        (
            lambda folder: ["{net}", folder / "a.png", "--out", folder / "out", "--tile", "8", "--overlap", "8"],
            "overlap",
        ),
    ],
)
def test_what_cannot_be_predicted_is_refused(make, message, checkpoint, tmp_path, capsys):
    for name in ("sub", "there", "empty"):
        (tmp_path / name).mkdir()
    for name in ("a.png", "sub/a.png", "there/a.png"):
        picture(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    arguments = [str(argument).format(net=checkpoint) for argument in make(tmp_path)]
    assert message in refused(["predict", *arguments], capsys)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_a_runs_masks_have_the_values_of_its_data(cells, tmp_path):
    pytest.importorskip("torch")
    shutil.copytree(cells, tmp_path / "data")
    for path in (tmp_path / "data/masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) // 255).save(path)
    given = ["--backend", "torch", "--data", tmp_path / "data", "--out", tmp_path / "run", *RECIPE, "--steps", "30"]
    assert main(["train", *map(str, given)]) == 0
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "data/images"), "--out", str(tmp_path / "out")]) == 0
    found = {int(value) for path in (tmp_path / "out").iterdir() for value in np.unique(np.asarray(Image.open(path)))}
    assert found <= {0, 1}


@mostly_torch
def test_eval_repeats_the_validation_of_the_run(backend, run, cells, capsys):
    best = max(
        (entry["validation"] for entry in read_history(run / "history.jsonl") if "validation" in entry),
        key=lambda validation: validation["mean_iou"],
    )
    given = ["--data", str(cells), "--only", "validation", "--backend", backend, "--json"]
    capsys.readouterr()
    assert main(["eval", str(run), *given]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusion"] == best["confusion"]
    assert found["loss"] == pytest.approx(best["loss"], rel=1e-5)


def test_eval_prints_a_table(run, cells, capsys):
    capsys.readouterr()
    assert main(["eval", str(run), "--data", str(cells)]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("IoU", "Dice", "precision", "recall", "6 pictures: mean IoU"))


@pytest.fixture
def uncertain(cells, tmp_path):
    """A folder of masks with 0, 1, and 255 in their first ten rows, where nobody knows."""
    folder = tmp_path / "uncertain"
    shutil.copytree(cells, folder)
    for path in (folder / "masks").iterdir():
        mask = np.asarray(Image.open(path)) // 255
        mask[:10] = 255
        Image.fromarray(mask).save(path)
    return folder


@mostly_torch
def test_what_is_ignored_is_in_no_training_and_no_metric(backend, uncertain, tmp_path, capsys):
    asked = ["train", "--backend", backend, "--data", uncertain, "--out", tmp_path / "run", *RECIPE]
    message = refused(asked, capsys)
    assert "--ignore 255" in message
    assert "--classes 256" in message
    assert not (tmp_path / "run").exists()
    assert main([*map(str, asked), "--ignore", "255"]) == 0
    assert "masks hold 0/1, and 255, which is ignored" in capsys.readouterr().out
    assert main(["eval", str(tmp_path / "run"), "--data", str(uncertain), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sum(found["pixels"]) == 6 * 22 * 32
    assert "started with another --ignore" in refused(
        ["train", "--resume", "--out", tmp_path / "run", "--ignore", "254"], capsys
    )
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--steps", "5"]) == 0


@mostly_torch
def test_other_networks_are_evaluated_without_what_is_ignored(backend, checkpoint, uncertain, capsys):
    given = ["eval", checkpoint, "--data", uncertain, "--backend", backend, "--json"]
    assert "--ignore 255" in refused(given, capsys)
    assert main([*map(str, given), "--ignore", "255"]) == 0
    assert sum(json.loads(capsys.readouterr().out)["pixels"]) == 6 * 22 * 32


def test_the_number_of_classes_decides_the_network(uncertain, tmp_path, capsys):
    given = ["train", "--backend", "torch", "--data", uncertain, "--out", tmp_path / "run", *RECIPE]
    assert main([*map(str, given), "--ignore", "255", "--classes", "3"]) == 0
    assert main(["eval", str(tmp_path / "run"), "--data", str(uncertain), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["iou"]) == 3


@mostly_torch
def test_masks_of_colours_are_predicted_in_these_colours(backend, cells, tmp_path, capsys):
    folder, table, run, out = (tmp_path / name for name in ("data", "colors.csv", "run", "out"))
    shutil.copytree(cells, folder)
    colours = np.array([[0, 0, 90], [200, 100, 0]], np.uint8)
    for path in (folder / "masks").iterdir():
        Image.fromarray(colours[np.asarray(Image.open(path)) // 255]).save(path)
    table.write_text("cell,200,100,0\nground,#00005a\n")
    given = ["--backend", backend, "--data", folder, "--out", run, "--colors", table, *RECIPE]
    assert main(["train", *map(str, given)]) == 0
    assert "masks hold #c86400/#00005a" in capsys.readouterr().out
    table.unlink()
    assert main(["train", "--resume", "--out", str(run), "--steps", "5"]) == 0
    assert main(["predict", str(run), str(folder / "images"), "--out", str(out), "--probabilities"]) == 0
    for path in out.glob("*.png"):
        expected = colours[::-1][(np.load(path.with_suffix(".npy"))[..., 0] > 0.5).astype(int)]
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
    capsys.readouterr()
    assert main(["eval", str(run), "--data", str(folder)]) == 0
    told = capsys.readouterr().out
    assert told.index("cell") < told.index("ground")
    shutil.copy(run / "best.safetensors", tmp_path)
    conversion.convert(run / "best.safetensors", tmp_path / "best.pt", verify=False)
    for alone in ("best.safetensors", "best.pt"):  # the colours are the network's, wherever it goes
        again = tmp_path / alone[5:]
        assert main(["predict", str(tmp_path / alone), str(folder / "images"), "--out", str(again)]) == 0
        for path in out.glob("*.png"):
            assert (again / path.name).read_bytes() == path.read_bytes()


@mostly_torch
def test_all_may_be_trained_on(backend, cells, tmp_path, capsys):
    """One picture as well; the network that is kept is the latest."""
    data, run = tmp_path / "data", tmp_path / "run"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        shutil.copy(cells / kind / "000.png", data / kind)
    given = ["train", "--backend", backend, "--data", data, "--out", run, *RECIPE]
    assert "--validation 0 to train on all" in refused(given, capsys)
    assert "--validation 0 leaves none" in refused([*given, "--validation", "0", "--schedule", "plateau"], capsys)
    assert main([*map(str, given), "--validation", "0"]) == 0
    told = capsys.readouterr().out
    assert "1 picture to train on, none to validate on" in told
    assert "4 steps; not validated: " in told
    before = (run / "best.safetensors").read_bytes()
    assert main(["train", "--resume", "--out", str(run), "--steps", "6"]) == 0
    assert (run / "best.safetensors").read_bytes() != before
    assert not any("validation" in entry for entry in read_history(run / "history.jsonl"))
    assert main(["predict", str(run), str(data / "images"), "--out", str(tmp_path / "out")]) == 0
    pytest.importorskip("matplotlib")
    assert main(["plot", str(run)]) == 0
    assert "the run validated on nothing" in refused(["eval", run, "--data", data, "--only", "validation"], capsys)


def test_another_folder_may_be_validated_on(cells, tmp_path, capsys, monkeypatch):
    shutil.copytree(cells, tmp_path / "other")
    for kind in ("images", "masks"):
        for name in ("000", "001", "002", "003"):
            (tmp_path / "other" / kind / f"{name}.png").unlink()
    run = tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    given = ["train", "--backend", "torch", "--data", str(cells), "--out", "run", "--validation-data", "other"]
    assert main([*given, *RECIPE]) == 0
    assert "6 pictures to train on, 2 to validate on" in capsys.readouterr().out
    best = max(
        (entry["validation"] for entry in read_history(run / "history.jsonl") if "validation" in entry),
        key=lambda validation: validation["mean_iou"],
    )
    assert main(["eval", str(run), "--data", "other", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["confusion"] == best["confusion"]
    assert "was validated on; give that as --data" in refused(
        ["eval", run, "--data", cells, "--only", "validation"], capsys
    )
    monkeypatch.chdir("/")
    assert main(["train", "--resume", "--out", str(run), "--steps", "5"]) == 0
    (tmp_path / "other/masks/004.png").write_bytes((tmp_path / "other/masks/005.png").read_bytes())
    assert "another digest" in refused(["train", "--resume", "--out", run, "--steps", "6"], capsys)


def test_a_fold_is_validated_on(cells, tmp_path, capsys):
    given = ["train", "--backend", "torch", "--data", str(cells), "--out", str(tmp_path / "run"), *RECIPE]
    assert "folds 3: say which one is for validation, as --folds 3 --fold 1" in refused(
        [*given, "--folds", "3"], capsys
    )
    assert main([*given, "--folds", "3", "--fold", "1"]) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["validation"] == ["000", "001"]
    message = refused(["train", "--resume", "--out", tmp_path / "run", "--folds", "3", "--fold", "2"], capsys)
    assert "started with another --fold" in message


@pytest.mark.parametrize(("kind", "option"), [("masks", ["--ignore", "255"]), ("pictures", ["--window", "0", "9"])])
def test_the_built_in_pictures_take_no_options_on_files(tmp_path, capsys, kind, option):
    given = ["train", "--backend", "torch", "--data", "synthetic", "--out", tmp_path / "run", *option]
    assert f"the options on {kind} are for a data folder" in refused(given, capsys)


def test_eval_refuses_masks_of_other_classes(run, cells, tmp_path, capsys):
    network = tmp_path / "three.safetensors"
    config = UNetConfig(1, 3, (3, 4), output="softmax")
    safetensors_file.write(network, Checkpoint(config, trained_tensors(config)))
    message = refused(["eval", network, "--data", cells], capsys)
    assert "the masks have 2 classes (0, 255), the network tells 3 apart" in message
    assert "--only validation: is for the folder of a run" in refused(
        ["eval", run / "best.safetensors", "--data", cells, "--only", "validation"], capsys
    )


@pytest.mark.parametrize("values", [(0, 7), (0, 255)])
def test_eval_reads_masks_by_the_numbers_that_a_network_stores(cells, tmp_path, capsys, values):
    network = tmp_path / "net.safetensors"
    config = UNetConfig(1, 1, (3, 4))
    safetensors_file.write(network, Checkpoint(config, trained_tensors(config), Origin(classes=Classes(values))))
    command = ["eval", str(network), "--data", str(cells)]
    if values == (0, 255):
        assert main(command) == 0
    else:
        assert "where masks of 0/7 are wanted" in refused(command, capsys)


@pytest.mark.parametrize(
    ("told", "line"),
    [({"values": [0, -7]}, "must be up to 256 numbers"), ({"names": ["a"] * 9}, "9 names of 2 classes")],
)
def test_classes_that_are_none_are_refused_with_the_file_that_tells_them(tmp_path, told, line):
    text = json.loads(seal(Checkpoint(TINY, trained_tensors(TINY), Origin(classes=Classes((0, 7))))))
    assert read_record(json.dumps(text), "net.pt").origin.classes == Classes((0, 7))
    text["origin"]["classes"] |= told
    with pytest.raises(CheckpointError, match=rf"net\.pt: the stored record .* is damaged: .*{line}"):
        read_record(json.dumps(text), "net.pt")


@mostly_torch
def test_a_float64_run_predicts(backend, cells, tmp_path):
    given = ["--backend", backend, "--data", cells, "--out", tmp_path / "run", *RECIPE, "--precision", "float64"]
    assert main(["train", *map(str, given)]) == 0
    assert main(["predict", str(tmp_path / "run"), str(cells / "images/000.png"), "--out", str(tmp_path / "out")]) == 0


@mostly_torch
def test_hidden_files_are_no_pictures(backend, checkpoint, tmp_path):
    (tmp_path / "pictures").mkdir()
    picture(tmp_path / "pictures/a.png")
    (tmp_path / "pictures/._a.png").write_bytes(b"of another kind")
    given = [str(checkpoint), str(tmp_path / "pictures"), "--backend", backend, "--out", str(tmp_path / "out")]
    assert main(["predict", *given]) == 0


@pytest.mark.filterwarnings("ignore:Error (reading|writing) persistent compilation cache")  # the limit cuts that, too
def test_probabilities_on_a_full_disk_are_refused_in_a_line(checkpoint, tmp_path, capsys):
    import resource

    path = picture(tmp_path / "a.png", 100, 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        message = refused(["predict", checkpoint, path, "--out", tmp_path / "out", "--probabilities"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "not written" in message
    assert not list((tmp_path / "out").iterdir())


def test_plot_refuses_other_kinds_of_pictures(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert "ends in .png, .svg or .pdf" in refused(["plot", run, "--out", tmp_path / "a.foo"], capsys)


def test_plot_draws_one_and_several_runs(run, tmp_path):
    pytest.importorskip("matplotlib")
    assert main(["plot", str(run), str(run), "--out", str(tmp_path / "curves.png")]) == 0
    with Image.open(tmp_path / "curves.png") as drawn:
        assert min(drawn.size) > 300
        assert len(drawn.convert("RGB").getcolors(1 << 24)) > 10


def test_plot_refuses_what_is_no_run(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert "is no run" in refused(["plot", tmp_path], capsys)


def test_plot_refuses_a_run_before_its_first_step(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/history.jsonl").write_text("")
    assert "has no step in its history yet" in refused(["plot", tmp_path / "run"], capsys)
    assert not (tmp_path / "run/history.png").exists()


@mostly_torch
def test_a_foreign_network_of_another_kind_predicts(backend, tmp_path):
    """RGB, several classes: the mask has class numbers."""
    network = tmp_path / "net.safetensors"
    config = UNetConfig(3, 2, TINY.features, output="softmax")
    safetensors_file.write(network, Checkpoint(config, trained_tensors(config)))
    path = picture(tmp_path / "a.png", 30, 30)
    assert main(["predict", str(network), str(path), "--backend", backend, "--out", str(tmp_path / "out")]) == 0
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out/a.png")))) <= {0, 255}

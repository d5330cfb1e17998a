"""Which kind of source a path is, found without running or importing anything that it names."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conversion.backends.frameworks import importing
from conversion.sources.configs import read_run_config
from conversion.sources.named import NamedCode
from unet_core.checkpoints import readers, torch_file
from unet_core.checkpoints.checkpoint import RECORD_KEY
from unet_core.checkpoints.containers import existing_container
from unet_core.errors import CheckpointError

_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def named_code(path: Path, *, trust: bool = False, nnunet_fold: int | str | None = None) -> NamedCode | None:
    """The network of a source that names its own code, or None where this path names none, as a plain checkpoint does.

    Args:
        path: a folder of segmentation_models_pytorch (`save_pretrained`), a model folder of nnU-Net v2, a MONAI
            bundle, or the file of weights in one of them; a `torch.export` archive; with `trust`, a module that was
            pickled whole, or a TorchScript file.
        trust: run code that the source brings along. Without it none is run: classes come from the packages named
            here only, and arguments are plain values.
        nnunet_fold: of a model folder of nnU-Net, which fold; None: the first.

    Raises:
        CheckpointError: the source is damaged, or needs `trust`; one line says what it is.
        MissingFrameworkError: a package that has the code is not installed.
    """
    found = _folder(path) if path.is_dir() else _inside_folder(path) if path.is_file() else None
    kind, options = found if found is not None else (_archive(path, trust=trust) if path.is_file() else None, {})
    if kind is None:
        return None
    if nnunet_fold is not None and kind != "nnunet":
        raise CheckpointError(f"{path}: has no folds; leave --nnunet-fold out")
    if kind in ("bundle", "exported"):
        options |= {"trust": trust}
    if kind == "nnunet":
        options |= {"fold": nnunet_fold}
    with importing():
        from conversion.sources import bundle, exported, nnunet, pickled, scripted, segmentation_models
    readers: dict[str, Callable[..., NamedCode]] = {
        module.__name__.rpartition(".")[2]: module.read
        for module in (bundle, exported, nnunet, pickled, scripted, segmentation_models)
    }
    return readers[kind](options.pop("folder", path), **options)


def _folder(folder: Path) -> tuple[str, dict[str, Any]] | None:
    weights = next((folder / name for name in _HUB_WEIGHTS if (folder / name).is_file()), None)
    if weights is not None and (folder / "config.json").is_file():
        settings = _settings(folder)
        if "_model_class" in settings or not (RECORD_KEY in settings or _tells(weights)):
            return "segmentation_models", {"folder": folder}
    if (folder / "plans.json").is_file() and (folder / "dataset.json").is_file():
        return "nnunet", {"folder": folder}
    if _is_bundle(folder):
        return "bundle", {"folder": folder}
    return None


def _inside_folder(file: Path) -> tuple[str, dict[str, Any]] | None:
    """Of a file of weights, the source that it is a part of."""
    near, above = file.parent, file.parent.parent
    if file.name in _HUB_WEIGHTS and (near / "config.json").is_file() and "_model_class" in _settings(near):
        return "segmentation_models", {"folder": near}
    if file.suffix == ".pth" and near.name.startswith("fold_") and (above / "plans.json").is_file():
        return "nnunet", {"folder": above, "checkpoint": file}
    if file.suffix == ".pt" and near.name == "models" and _is_bundle(above):
        return "bundle", {"folder": above, "checkpoint": file}
    return None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return read_run_config(folder / "config.json")
    except CheckpointError:  # then the file is read for what it holds itself
        return {}


def _tells(file: Path) -> bool:
    """Whether a file of weights has a record of ours: then a `config.json` beside it is nothing that it needs."""
    try:
        return readers.contents(file, existing_container(file)).record is not None
    except CheckpointError:  # then it is refused where it is read
        return False


def _is_bundle(folder: Path) -> bool:
    return (folder / "models").is_dir() and any(path.is_file() for path in (folder / "configs").glob("*.*"))


def _archive(path: Path, *, trust: bool) -> str | None:
    """What a file is that brings its own code along."""
    if zipfile.is_zipfile(path):
        names = _members(path)
        if any(name.count("/") == 1 and name.endswith("/archive_format") for name in names):
            return "exported"
        if any(re.fullmatch(r"[^/]+/(constants\.pkl|code/.*)", name) for name in names):
            return "scripted" if trust else None
    if path.suffix.lower() == ".pt2":
        raise CheckpointError(f"{path}: is no torch.export archive as this torch writes them; export it anew")
    return "pickled" if trust and _holds_module(path) else None


def _holds_module(path: Path) -> bool:
    """Whether a module was pickled whole, alone or in a dict."""
    try:
        return bool(torch_file.contents(path).code)
    except CheckpointError:  # then the file is read for what it holds, and refused there
        return False


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return []

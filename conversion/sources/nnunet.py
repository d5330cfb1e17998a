"""A model folder of nnU-Net v2: its plans name the class and the arguments, its folds hold the weights."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from conversion.sources.building import built, weights_in
from conversion.sources.configs import read_run_config, value
from conversion.sources.named import NamedCode
from conversion.sources.packages import ARCHITECTURES
from unet_core.errors import CheckpointError, shown, some
from unet_torch.contents import opened

PLANS, DATASET = "plans.json", "dataset.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")

_TRAINER = "nnUNetTrainer"
_OLD_CLASSES = {"PlainConvUNet": "n_conv_per_stage", "ResidualEncoderUNet": "n_blocks_per_stage"}
"""The classes of plans that were written before nnU-Net named them whole, and what they call their first argument."""


def read(folder: Path, *, fold: int | str | None = None, checkpoint: Path | None = None) -> NamedCode:
    """The network of one fold, as nnU-Net's own predictor builds it: without deep supervision.

    Args:
        folder: with `plans.json`, `dataset.json` and `fold_0`, `fold_1`, ...
        fold: which one, a number or "all"; None: the first.
        checkpoint: a file in one of the folds; None: its `checkpoint_final.pth`, or else the best.

    Raises:
        CheckpointError: the folder is not as nnU-Net writes it, or its class is not of dynamic_network_architectures.
        MissingFrameworkError: dynamic_network_architectures is not installed.
    """
    plans, dataset = read_run_config(folder / PLANS), read_run_config(folder / DATASET)
    if checkpoint is None:
        checkpoint, notes = _checkpoint(folder, fold)
    else:
        notes = [f"{checkpoint.parent.name}, {checkpoint.name}"]
    state = opened(checkpoint)
    name = _configuration_name(state, folder)
    source = f"{folder / PLANS}: configuration {shown(name)}"
    configuration = _configuration(plans, name, str(folder / PLANS))
    path, arguments = _architecture(configuration, source)
    channels = _channels(configuration, dataset, str(folder / DATASET))
    ends = {"input_channels": channels, "num_classes": _classes(dataset, str(folder / DATASET))}
    network = _class(path, source)
    patch = _sizes(configuration, "patch_size", source)
    size = _small(arguments.get("strides"), len(patch), source)
    tensors = weights_in(state, str(checkpoint), "network_weights")
    module = built(network, arguments | ends | {"deep_supervision": False}, tensors, str(checkpoint))
    trainer = state.get("trainer_name")
    if isinstance(trainer, str) and trainer != _TRAINER:
        notes.append(f"trained by {shown(trainer)}; if that builds another network than its plans name, give --module")
    notes.append("returns logits; nnU-Net's predictor puts softmax on them, or sigmoid where there are regions")
    return NamedCode(
        module,
        name=f"{network.__module__}.{network.__name__}",
        version=ARCHITECTURES.version,
        in_channels=channels,
        size=size,
        files=(folder / PLANS, folder / DATASET, checkpoint),
        usual=patch,
        notes=(f"configuration {shown(name)}", *notes),
    )


def _checkpoint(folder: Path, fold: int | str | None) -> tuple[Path, list[str]]:
    """The file of a fold's weights, and which it is."""
    folds = sorted(
        (path.name.removeprefix("fold_") for path in folder.glob("fold_*") if path.is_dir()),
        key=lambda name: (len(name), name),
    )
    if not folds:
        raise CheckpointError(f"{folder}: has no fold_0 or other fold beside its plans")
    chosen = folds[0] if fold is None else str(fold).removeprefix("fold_")
    if chosen not in folds:
        raise CheckpointError(f"{folder}: has no fold {shown(chosen)}; there are: {some(folds)}")
    note = f"fold {shown(chosen)} of {len(folds)}" if len(folds) > 1 else f"fold {shown(chosen)}, the only one"
    for file in CHECKPOINTS:
        path = folder / f"fold_{chosen}" / file
        if path.is_file():
            other = "; --nnunet-fold chooses" if fold is None and len(folds) > 1 else ""
            return path, [f"{note}, {file}{other}"]
    raise CheckpointError(f"{folder / f'fold_{chosen}'}: has no {' or '.join(CHECKPOINTS)}")


def _configuration_name(state: Mapping[Any, Any], folder: Path) -> str:
    """As the checkpoint says, or else the folder's name, nnUNetTrainer__nnUNetPlans__3d_fullres."""
    given = state.get("init_args")
    name = given.get("configuration") if isinstance(given, Mapping) else None
    if isinstance(name, str):
        return name
    parts = folder.resolve().name.split("__")
    if len(parts) != 3:
        raise CheckpointError(f"{folder}: neither its checkpoint nor its name tells which configuration it is")
    return parts[2]


def _configuration(plans: Mapping[str, Any], name: str, source: str) -> dict[str, Any]:
    """A configuration with all that it inherits from others."""
    configurations = value(plans, "configurations", dict, source)
    chain: list[dict[str, Any]] = []
    wanted: str | None = name
    while wanted is not None:
        if not isinstance(wanted, str) or len(chain) == len(configurations):
            raise CheckpointError(f"{source}: its configuration {shown(name)} inherits from {shown(wanted)} for ever")
        if wanted not in configurations:
            raise CheckpointError(f"{source}: has no configuration {shown(wanted)}; it has {some(configurations)}")
        chain.append(value(configurations, wanted, dict, source))
        wanted = chain[-1].get("inherits_from")
    return {key: item for part in reversed(chain) for key, item in part.items()}


def _architecture(configuration: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    """The class and its arguments, of plans of either format."""
    if "architecture" not in configuration:
        return _old_architecture(configuration, source)
    described = value(configuration, "architecture", dict, source)
    arguments = dict(value(described, "arch_kwargs", dict, source))
    for name in value({"_kw_requires_import": []} | described, "_kw_requires_import", list, source):
        if not isinstance(name, str) or name not in arguments:
            raise CheckpointError(f"{source}: {shown(name)} is to be imported, but is no argument")
        if arguments[name] is not None:
            arguments[name] = _class(arguments[name], source)
    return value(described, "network_class_name", str, source), arguments


def _old_architecture(configuration: Mapping[str, Any], source: str) -> tuple[str, dict[str, Any]]:
    name = value(configuration, "UNet_class_name", str, source)
    if name not in _OLD_CLASSES:
        raise CheckpointError(f"{source}: UNet_class_name {shown(name)}: known are {some(_OLD_CLASSES)}")
    per_stage = value(configuration, "n_conv_per_stage_encoder", list, source)
    features = value(configuration, "UNet_base_num_features", int, source)
    most = value(configuration, "unet_max_num_features", int, source)
    dimensions = len(_sizes(configuration, "patch_size", source))
    arguments = {
        "n_stages": len(per_stage),
        "features_per_stage": [min(features * 2**stage, most) for stage in range(min(len(per_stage), 100))],
        "conv_op": getattr(nn, f"Conv{dimensions}d"),
        "kernel_sizes": value(configuration, "conv_kernel_sizes", list, source),
        "strides": value(configuration, "pool_op_kernel_sizes", list, source),
        _OLD_CLASSES[name]: per_stage,
        "n_conv_per_stage_decoder": value(configuration, "n_conv_per_stage_decoder", list, source),
        "conv_bias": True,
        "norm_op": getattr(nn, f"InstanceNorm{dimensions}d"),
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    return f"{ARCHITECTURES.module}.architectures.unet.{name}", arguments


def _class(path: object, source: str) -> type[nn.Module]:
    """A class of torch.nn or of dynamic_network_architectures, and of nothing else."""
    if not isinstance(path, str) or not re.fullmatch(r"\w+(\.\w+)*", path):
        raise CheckpointError(f"{source}: {shown(repr(path))} is no name of a class")
    place, _, name = path.rpartition(".")
    if f"{place}.".startswith("torch.nn."):
        found = getattr(nn, name, None)
    elif place.startswith(f"{ARCHITECTURES.module}.architectures.") and name in _OLD_CLASSES:
        found = getattr(ARCHITECTURES.imported(source, "architectures.unet"), name)  # has moved between versions
    elif place.startswith(f"{ARCHITECTURES.module}."):
        found = getattr(ARCHITECTURES.imported(source, place.removeprefix(f"{ARCHITECTURES.module}.")), name, None)
    else:
        raise CheckpointError(f"{source}: {path} is not of {ARCHITECTURES.module}; name its code with --module")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise CheckpointError(f"{source}: there is no {path} in {ARCHITECTURES.version} or torch.nn")
    return found


def _channels(configuration: Mapping[str, Any], dataset: Mapping[str, Any], source: str) -> int:
    """Channels of the input; in the second network of a cascade the first one's output is among them."""
    names = dataset.get("channel_names", dataset.get("modality"))
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{source}: lacks channel_names")
    if configuration.get("previous_stage") is None:
        return len(names)
    return len(names) + len(_labels(dataset, source) - {0})


def _classes(dataset: Mapping[str, Any], source: str) -> int:
    """What the network tells apart: labels, background among them; or regions, which are sets of labels."""
    labels = value(dataset, "labels", dict, source)
    if not any(isinstance(label, list) and len(label) > 1 for label in labels.values()):
        return len(_labels(dataset, source))
    _labels(dataset, source)
    return sum(name != "ignore" and label not in (0, [0]) for name, label in labels.items())


def _labels(dataset: Mapping[str, Any], source: str) -> set[int]:
    found: set[int] = set()
    for name, label in value(dataset, "labels", dict, source).items():
        parts = label if isinstance(label, list) else [label]
        if not all(type(part) is int for part in parts):
            raise CheckpointError(f"{source}: the label {shown(name)} is {shown(repr(label))}, not a number or a list")
        found.update(parts if name != "ignore" else ())
    if not found:
        raise CheckpointError(f"{source}: has no labels")
    return found


def _sizes(configuration: Mapping[str, Any], name: str, source: str) -> tuple[int, ...]:
    sizes = value(configuration, name, list, source)
    if len(sizes) not in (2, 3) or not all(type(size) is int and 0 < size < 10_000 for size in sizes):
        raise CheckpointError(f"{source}: {name} is {shown(repr(sizes))}, not a size in 2-D or 3-D")
    return tuple(sizes)


def _small(strides: object, dimensions: int, source: str) -> tuple[int, ...]:
    """Twice what the network's strides come to, along each axis, so that something is left at the bottom."""
    totals = [1] * dimensions
    for stride in strides if isinstance(strides, list) else [32]:
        steps = stride if isinstance(stride, list) else [stride] * dimensions
        if len(steps) != dimensions or not all(type(step) is int and step > 0 for step in steps):
            raise CheckpointError(f"{source}: the stride {shown(repr(stride))} is none in {dimensions}-D")
        totals = [total * step for total, step in zip(totals, steps, strict=True)]
    return tuple(min(max(2 * total, 8), 512) for total in totals)

"""A MONAI bundle: its configuration names the class and the arguments of `network_def`."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from conversion.sources.building import built, input_of, weights_in
from conversion.sources.configs import read_run_config, value
from conversion.sources.named import NamedCode
from conversion.sources.packages import MONAI, quiet
from unet_core.errors import CheckpointError, first_line, shown
from unet_torch.contents import opened

CONFIGS = tuple(f"{name}.{suffix}" for name in ("inference", "train") for suffix in ("json", "yaml", "yml"))
WEIGHTS = "model.pt"

_NETWORK = "network_def"
_NETS = "networks.nets"
_MOST_VALUES = 10_000
_REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")
_SETTINGS = ("_target_", "_desc_", "_requires_", "_disabled_", "_mode_")
"""What is no argument in the description of a component."""


def read(folder: Path, *, trust: bool = False, checkpoint: Path | None = None) -> NamedCode:
    """The network of a bundle. References in its description (`@name`) are followed; nothing is downloaded.

    Args:
        folder: with `configs/` and `models/`.
        trust: run the Python expressions (`$...`) of the description, and take classes from wherever it says.
        checkpoint: the file of weights; None: `models/model.pt`.

    Raises:
        CheckpointError: the bundle is not as MONAI writes it, or needs `trust`.
        MissingFrameworkError: MONAI is not installed.
    """
    path = _config_path(folder)
    config = read_run_config(path)
    source = f"{path}: {_NETWORK}"
    described = value(config, _NETWORK, dict, str(path))
    name = value(described, "_target_", str, source)
    factory, arguments = _trusted(config, source) if trust else _plain(config, described, source)
    arguments |= _nothing_downloaded(factory)
    checkpoint = checkpoint or folder / "models" / WEIGHTS
    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint}: is missing; it has the weights of the bundle")
    tensors = weights_in(opened(checkpoint), str(checkpoint))
    module = built(factory, arguments, tensors, str(checkpoint), plain=not trust)
    about = folder / "configs" / "metadata.json"
    metadata = read_run_config(about) if about.is_file() else {}
    channels, dimensions = input_of(module, source)
    given = arguments.get("in_channels")
    return NamedCode(
        module,
        name=f"{MONAI.module}.{_NETS}.{name}" if "." not in name else name,
        version=MONAI.version,
        in_channels=given if isinstance(given, int) else channels,
        size=_small(arguments, dimensions, name),
        files=(path, checkpoint),
        usual=_usual(metadata, dimensions),
        notes=(f"as {path.name} describes it", *MONAI.differing(metadata.get("monai_version"))),
    )


def _config_path(folder: Path) -> Path:
    for name in CONFIGS:
        path = folder / "configs" / name
        if path.is_file():
            return path
    raise CheckpointError(f"{folder / 'configs'}: has no {' or '.join(CONFIGS)}")


def _plain(config: dict[str, Any], described: dict[str, Any], source: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class, of MONAI's networks only, and its arguments as plain values."""
    target = described["_target_"]
    nets = MONAI.imported(source, _NETS)
    place, _, name = target.rpartition(".")
    found = getattr(nets, name, None) if f"{place}.".startswith(("monai.networks.nets.", ".")) else None
    if not (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and "path_or_repo_id" not in inspect.signature(found).parameters  # whose class reads a model from elsewhere
    ):
        raise CheckpointError(
            f"{source}: {shown(target)} is no network of {MONAI.version}; name its code with --module, or where you "
            "trust the bundle add --trust, which runs what it says"
        )
    resolved = _References(config, source)
    arguments = {key: resolved(item) for key, item in described.items() if key not in _SETTINGS}
    return found, arguments


class _References:
    """Follows `@name` and `@name::part` to plain values in the same configuration."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config, self.source, self.left = config, source, _MOST_VALUES

    def __call__(self, item: object, trail: tuple[str, ...] = ()) -> Any:
        self.left -= 1
        if self.left < 0:
            raise CheckpointError(f"{self.source}: its references lead to more values than any network has")
        if isinstance(item, dict):
            if "_target_" in item:
                raise self._needs_trust(f"an object of {item['_target_']}")
            return {key: self(part, trail) for key, part in item.items()}
        if isinstance(item, list):
            return [self(part, trail) for part in item]
        if not isinstance(item, str):
            return item
        if item.startswith(("$", "%")):
            raise self._needs_trust(item)
        reference = _REFERENCE.fullmatch(item)
        if reference is None:
            return item
        if reference[1] in trail:
            raise CheckpointError(f"{self.source}: {shown(item)} refers to itself")
        return self(self._found(reference[1]), (*trail, reference[1]))

    def _found(self, name: str) -> object:
        found: object = self.config
        for part in re.split("::|#", name):
            if isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            elif isinstance(found, dict) and part in found:
                found = found[part]
            else:
                raise CheckpointError(f"{self.source}: refers to @{shown(name)}, which is not there")
        return found

    def _needs_trust(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: needs {shown(what)}, which is code: write its value into the file, or where you trust the "
            "bundle add --trust, which runs it"
        )


def _trusted(config: dict[str, Any], source: str) -> tuple[Callable[..., nn.Module], dict[str, Any]]:
    """What MONAI itself makes of the description."""
    bundle, utils = MONAI.imported(source, "bundle"), MONAI.imported(source, "utils")
    try:
        with quiet():
            item = bundle.ConfigParser(config).get_parsed_content(_NETWORK, instantiate=False)
            arguments = {key: part for key, part in item.resolve_args().items() if key not in _SETTINGS}
            target = item.resolve_module_name()
    except Exception as error:  # whatever the expressions of a bundle meet
        raise CheckpointError(f"{source}: MONAI cannot resolve it: {first_line(error)}") from error
    if isinstance(target, str):
        found = getattr(MONAI.imported(source, _NETS), target.rpartition(".")[2], None)
        known = isinstance(found, type) and target in (found.__name__, f"{found.__module__}.{found.__name__}")
        target = found if known else functools.partial(utils.instantiate, target, "default")
    return target, arguments


def _nothing_downloaded(factory: Callable[..., Any]) -> dict[str, Any]:
    """Arguments that keep a class from fetching weights, which the bundle has."""
    parameters = {} if isinstance(factory, functools.partial) else inspect.signature(factory).parameters
    off = {name: item.default for name, item in parameters.items() if "pretrained" in name or name == "weights"}
    return {name: False if isinstance(default, bool) else None for name, default in off.items()}


def _small(arguments: Mapping[str, Any], dimensions: int, name: str) -> tuple[int, ...]:
    given = arguments.get("img_size")
    sizes = [given] * dimensions if isinstance(given, int) else given
    if isinstance(sizes, list) and len(sizes) == dimensions and all(type(size) is int for size in sizes):
        return tuple(sizes)
    return (64 if dimensions == 2 or "Swin" in name else 32,) * dimensions


def _usual(metadata: Mapping[str, Any], dimensions: int) -> tuple[int, ...] | None:
    """The size of the first picture that the bundle says its network takes."""
    found: Any = metadata
    for part in ("network_data_format", "inputs"):
        found = found.get(part) if isinstance(found, dict) else None
    first = next(iter(found.values()), None) if isinstance(found, dict) else None
    sizes = first.get("spatial_shape") if isinstance(first, dict) else None
    if not isinstance(sizes, list) or len(sizes) != dimensions or not all(type(size) is int for size in sizes):
        return None
    return tuple(sizes)

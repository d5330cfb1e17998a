"""An arm of a study: a framework and whatever else is one way to train."""

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.config import UNetConfig
from unet_core.errors import ConfigError, shown, some
from unet_core.training.run import Backend
from unet_core.training.train_config import Precision, TrainConfig

Control = Literal["rounding", "flax_momentum", "half_pixel", "biased_variance", "tf32"]
"""rounding: the first arm, its first weights moved by one unit in the last place at most; how far apart that takes the
runs is the band of rounding. The others are faults of ports, which are to be found."""
Device = Literal["cpu", "gpu", "tpu"]

FAULTS: Mapping[str, str] = {
    "flax_momentum": "BatchNorm has Flax's momentum, 0.99, for torch's 0.1 (which is Flax's 0.9)",
    "half_pixel": "the bilinear upsampling takes half-pixel centres, not aligned corners",
    "biased_variance": "BatchNorm tracks the biased variance",
    "tf32": "the factors of all products are rounded to TF32's 10 bits, in JAX",
}
"""The controls that plant a fault."""
JAX_ONLY: tuple[Control, ...] = ("biased_variance", "tf32")

_WORDS: Mapping[str, Mapping[str, Any]] = {
    **{precision: {"precision": precision} for precision in get_args(Precision)},
    **{device: {"device": device} for device in get_args(Device)},
    "plain": {"rewrites": False},
}
"""What words after a framework's name stand for."""
_NOT_COMPARED = ("save_every", "log_every", "keep")
"""Options of a recipe that change nothing of what a run finds."""
_OF_STUDY = ("seed", "folds", "fold", "start")


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Raises:
        ConfigError: it names no framework, or what does not go together.
    """

    name: str
    """A short one; its folder has it as well."""
    backend: Backend
    device: Device | None = field(default=None, metadata=OPTIONAL)
    """Left out: the one that the framework takes by itself."""
    control: Control | None = field(default=None, metadata=OPTIONAL)
    module: str | None = field(default=None, metadata=OPTIONAL)
    """The network's own code, FILE.py:Class or package.module:Class."""
    kwargs: Mapping[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    """What that is called with."""
    network: Mapping[str, Any] = field(default_factory=dict, metadata=OPTIONAL)
    """Fields of `UNetConfig` that are not as a recipe makes them."""
    recipe: TrainConfig = field(default_factory=TrainConfig, metadata=OPTIONAL)
    """Whole; seed and fold are the run's."""

    def __post_init__(self) -> None:
        if re.fullmatch(r"[A-Za-z0-9][\w.:=+-]{0,63}", self.name) is None:
            raise ConfigError(
                f"arm {shown(self.name)}: give it a name of at most 64 letters, digits and any of . : = + - _"
            )
        if self.control in JAX_ONLY and self.backend != "jax":
            raise ConfigError(f"arm {self.name}: control {self.control} is planted in JAX; give it backend jax")
        if self.module is not None and (self.network or self.control in ("flax_momentum", "half_pixel")):
            raise ConfigError(
                f"arm {self.name}: a network from code is as its code says; leave out control and network"
            )
        if self.device == "tpu" and self.backend != "jax":
            raise ConfigError(f"arm {self.name}: PyTorch trains on a cpu or a gpu")
        if self.module is None:
            if self.kwargs:
                raise ConfigError(f"arm {self.name}: kwargs are for the code of a module; give it one")
            self.changed(UNetConfig(features=self.recipe.features, upsampling=self.recipe.upsampling), self.network)
        try:
            json.dumps(self.kwargs, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"arm {self.name}: kwargs: give what JSON has, no dates and no NaN") from error

    @property
    def folder(self) -> str:
        """The name of its folder, which no system minds."""
        return self.name.replace(":", "-")

    @property
    def planted(self) -> bool:
        """Whether it has a fault."""
        return self.control in FAULTS

    def identity(self) -> dict[str, Any]:
        """All that decides what its runs find, beside data, seed and fold, as plain JSON values."""
        fields: dict[str, Any] = json.loads(json.dumps(encoded(self)))
        fields["recipe"] = {name: value for name, value in fields["recipe"].items() if name not in _NOT_COMPARED}
        file = Path((self.module or "").rpartition(":")[0])
        if file.suffix == ".py" and file.is_file():
            fields["module"] = f"{file.name}, sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
        return fields

    @property
    def digest(self) -> str:
        """A sha256, in hex, of its identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def changed(self, config: UNetConfig, fields: Mapping[str, Any]) -> UNetConfig:
        """The network with other values of some fields.

        Raises:
            ConfigError: there is none.
        """
        try:
            found: UNetConfig = decoded(UNetConfig, {**encoded(config), **fields})
        except ValueError as error:
            raise ConfigError(f"arm {self.name}: network: {error}") from error
        return found

    def of_run(self, seed: int, fold: int | None, folds: int | None) -> TrainConfig:
        """The recipe of one of its runs."""
        parted = replace(self.recipe.split, folds=folds, fold=fold)
        return replace(self.recipe, seed=seed, split=parted)


def with_options(recipe: TrainConfig, options: Mapping[str, Any], place: str) -> TrainConfig:
    """The recipe with some options as they are typed after `unet train`, - or _ between words.

    Args:
        recipe: what the others are.
        options: by their names.
        place: where they stand, for messages.

    Raises:
        ConfigError: there is no such option, it is not of an arm, or its value is none.
    """
    fields = recipe.to_dict()
    for given, value in options.items():
        name = given.replace("-", "_")
        if name in _OF_STUDY:
            raise ConfigError(
                f"{place}: {shown(given)}: is the study's to give; see its seeds, folds, network and module"
            )
        owner = fields if name in fields and not isinstance(fields[name], dict) else None
        for part in fields.values() if owner is None else ():
            owner = part if isinstance(part, dict) and name in part else owner
        if owner is None:
            raise ConfigError(f"{place}: {shown(given)}: is no option of an arm or of unet train")
        owner[name] = value
    try:
        found: TrainConfig = decoded(TrainConfig, fields)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{place}: option {error}") from error
    return found


def arm_of_text(text: str) -> dict[str, Any]:
    """The fields of an arm that is named in short, such as jax, jax:bfloat16, jax:plain:norm_parts=2, control:tf32.

    Raises:
        ConfigError: it names no framework or control.
    """
    first, *words = text.split(":")
    if first == "control":
        if len(words) != 1 or words[0] not in get_args(Control):
            raise ConfigError(f"arm {shown(text)}: there is no such control; there are {some(get_args(Control))}")
        return {"name": text, "control": words[0]}
    if first not in get_args(Backend):
        raise ConfigError(f"arm {shown(text)}: names no framework; begin with jax, torch or control")
    fields: dict[str, Any] = {"name": text, "backend": first}
    for word in words:
        name, is_option, value = word.partition("=")
        if is_option:
            fields[name] = _value(value)
        elif word in _WORDS:
            fields |= _WORDS[word]
        else:
            raise ConfigError(
                f"arm {shown(text)}: {shown(word)}: give one of {some(_WORDS)}, or an option as name=value"
            )
    return fields


def arms_of(given: Any, recipe: TrainConfig, beside: Path) -> tuple[Arm, ...]:
    """The arms of a study.

    Args:
        given: texts, or tables of an arm's fields and of options of `unet train`.
        recipe: what the options are that no arm has.
        beside: where the files lie that they name.

    Raises:
        ConfigError: one is none, or two have one name.
    """
    if not isinstance(given, list | tuple) or not given:
        raise ConfigError("arms: give a list of them, such as torch and jax")
    tables = [arm_of_text(one) if isinstance(one, str) else one for one in given]
    for number, table in enumerate(tables, 1):
        if not isinstance(table, Mapping):
            raise ConfigError(f"arm {number}: give a text, such as jax:bfloat16, or a table of its fields")
    plain = [table for table in tables if "control" not in table]
    if not plain or tables[0] is not plain[0]:
        raise ConfigError("arms: the first one, with which the others are compared, is no control")
    backends = [table.get("backend") for table in plain]
    faulty = "jax" if "jax" in backends else backends[0]
    found = []
    for number, table in enumerate(tables, 1):
        base = tables[0] if table.get("control") == "rounding" else {"backend": faulty} if "control" in table else {}
        found.append(_arm({**base, **table}, recipe, beside, number))
    names = [arm.folder.lower() for arm in found]
    twice = [arm.name for arm in found if names.count(arm.folder.lower()) > 1]
    if twice:
        raise ConfigError(f"arms: {some(twice)}: each needs a name of its own")
    return tuple(found)


def _arm(table: Mapping[str, Any], recipe: TrainConfig, beside: Path, number: int) -> Arm:
    own = {name for name in Arm.__dataclass_fields__ if name != "recipe"}
    place = f"arm {shown(table.get('name', number))}"
    fields = {name: value for name, value in table.items() if name in own}
    options = {name: value for name, value in table.items() if name not in own}
    if fields.get("backend") not in get_args(Backend):
        raise ConfigError(f'{place}: names no framework; give backend = "jax" or "torch"')
    fields.setdefault("name", _name_of(fields, options))
    if isinstance(fields.get("module"), str):
        file, _, name = fields["module"].rpartition(":")
        if not file or not name:
            raise ConfigError(f"{place}: module {shown(fields['module'])}: give FILE.py:Class or package.module:Class")
        if file.endswith(".py"):
            if "\0" in file or not (beside / file).is_file():
                raise ConfigError(f"{place}: module {shown(file)}: no such file")
            fields["module"] = f"{(beside / file).resolve()}:{name}"
        recipe = replace(recipe, features=TrainConfig.features)
    whole = with_options(recipe, options, place)
    try:
        arm: Arm = decoded(Arm, {**fields, "recipe": encoded(whole)})
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error
    return arm


def _name_of(fields: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    if fields.get("control") is not None:
        return f"control:{fields['control']}"
    words = [str(value) if name == "precision" else f"{name}={value}" for name, value in options.items()]
    return ":".join([fields["backend"], *words]).replace(" ", "")


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text, text)

"""What a checkpoint holds whatever its container: the tensors, the config and a sha256 of each tensor."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, ConfigError
from unet_core.hub import Tensors, check_tensors, in_forward_order, infer_config

RECORD_KEY = "unet_twins"
"""Where each container keeps the record: the safetensors metadata, torch's `_metadata`, Orbax's `metadata` item."""

_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """One network's tensors, in the hub's names and layouts, with what describes them."""

    config: UNetConfig
    tensors: Tensors
    config_stored: bool = True
    """False where the config was read off the tensors' shapes."""
    digests_stored: bool = True
    """False where the file has no sha256 to check the tensors against."""


def digest(tensor: np.ndarray) -> str:
    """The sha256, in hex, of a tensor's dtype, shape and values (little-endian, C order)."""
    values = np.ascontiguousarray(tensor)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    state = hashlib.sha256(f"{values.dtype.name} {list(tensor.shape)}\n".encode())
    state.update(values.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def seal(config: UNetConfig, tensors: Tensors) -> str:
    """The record that is stored beside the tensors: one line of JSON with the config and every digest."""
    record = {
        "version": _VERSION,
        "config": dataclasses.asdict(config),
        "sha256": {key: digest(value) for key, value in tensors.items()},
    }
    return json.dumps(record)


def open_sealed(tensors: Tensors, record: str | None, source: str) -> Checkpoint:
    """Hold the tensors of the file `source` against its record, or against their own shapes where it has none.

    Raises:
        CheckpointError: a damaged record, a tensor whose sha256 is not the stored one, or tensors that are not those of
            the config; every offending tensor is listed.
    """
    if record is None:
        config = infer_config({key: value.shape for key, value in tensors.items()}, source)
        check_tensors(tensors, config, source)
        return Checkpoint(config, in_forward_order(tensors, config), config_stored=False, digests_stored=False)
    config, digests = _read_record(record, source)
    check_tensors(tensors, config, source)
    changed = [key for key, value in tensors.items() if digests.get(key) != digest(value)]
    if changed or len(digests) != len(tensors):
        raise CheckpointError(
            f"{source}: the file is damaged: the sha256 of {', '.join(changed) or 'a tensor that is gone'} "
            "is not the stored one; get the file again or restore a copy"
        )
    return Checkpoint(config, in_forward_order(tensors, config))


def _read_record(record: str, source: str) -> tuple[UNetConfig, dict[str, str]]:
    try:
        parsed: Any = json.loads(record)
        version, config, digests = parsed["version"], parsed["config"], parsed["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source}: the stored record of config and digests is damaged ({error!r})") from error
    if version != _VERSION:
        raise CheckpointError(
            f"{source}: written in format {version!r}, this release reads {_VERSION}; update unet-twins"
        )
    if not isinstance(digests, dict):
        raise CheckpointError(f"{source}: the stored record of config and digests is damaged (no sha256 per tensor)")
    try:
        return UNetConfig.from_dict(config), digests
    except ConfigError as error:
        raise CheckpointError(f"{source}: the stored config describes no network: {error}") from error

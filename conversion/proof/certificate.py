"""What a conversion proved, of which files, on what, and how far: a small JSON next to the file that was written."""

import dataclasses
import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from conversion.backends.backend import Tool
from conversion.proof.checks import Check
from conversion.proof.proof import NetworkSummary, Proof, agreement, finite
from conversion.proof.samples import Input
from unet_core.checkpoints.checkpoint import Checkpoint, network_digest
from unet_core.checkpoints.containers import Container
from unet_core.checkpoints.evidence import OURS, Evidence
from unet_core.checkpoints.safetensors_file import stored_certificate
from unet_core.codec import OPTIONAL, decoded, limited, parsed
from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, first_line, printable, some
from unet_core.hub.store import is_pinned
from unet_core.paths import absolute
from unet_core.staging import locally
from unet_core.training.state import TrainingState, state_digest
from unet_core.version import VERSION

SCHEMA = 2
_EARLIER = 1
"""Of earlier releases: it did not say by what the network is known."""
SUFFIX = ".certificate.json"
"""What follows the name of the file that was written, in the name of its certificate."""

RUN = "training run"
"""What a person calls the folder of a run; files have the names of their `Container`."""
SOURCE = "model with its own code"
"""And what it calls a source that names its own code (`conversion.sources`)."""

ONNX, STABLEHLO, FLAX, TORCH_CODE = "ONNX model", "StableHLO program", "Flax code", "PyTorch code"
"""And what is exported (`conversion.exports`)."""
EXPORTED = (ONNX, STABLEHLO, FLAX, TORCH_CODE)

_LARGEST = 1_000_000
"""Bytes; a certificate has some five thousand."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Party:
    """One of the two files, and how it was run."""

    name: str
    """Without its folder."""
    kind: str
    """What a person calls it: the value of a `Container`, `RUN`, or one of `EXPORTED`."""
    sha256: str | None
    """Of its bytes (`unet_core.files.sha256_of`); of a run, of the state that was proven. None: the certificate is in
    the file itself, which cannot hold its own digest."""
    network: str
    """`unet_core.checkpoints.checkpoint.network_digest`."""
    training: str | None
    """`unet_core.training.state.state_digest`, where a whole training was converted."""
    step: int | None
    """Of a run, the one of the state that was proven."""
    key: str
    """Where in the file the network lay; empty: it is all there is."""
    dialect: str
    """Whose names its tensors have."""
    framework: Tool
    """That it was run in."""
    device: str
    versions: dict[str, str]
    flags: dict[str, bool | str]
    """What decides how exact its products were."""
    origin: str = field(default="", metadata=OPTIONAL)
    """Its address on the Hub, with the commit, where it was read from there."""


@dataclass(frozen=True)
class Certificate:
    """A proof that was made, with what tells whether two files are those that it was made of.

    It is a record, not a signature: its own digest shows damage, and nothing shows who wrote it.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> certificate = conversion.convert("model.pt", "model_jax").certificate
        >>> certificate.subject, certificate.tensors
        ('networks', 38)
    """

    version: str
    """Of unet-twins."""
    when: str
    """The time in UTC, such as 2026-01-31T23:59:59Z."""
    subject: Literal["networks", "trainings"]
    """What was compared."""
    verdict: str
    source: Party
    destination: Party
    evidence: Evidence | None
    """By what it is known that the network is the user's; None: a certificate of an earlier release."""
    untrained: str
    """Why the networks were compared in eval mode alone; empty where they were in training mode too."""
    config: dict[str, Any]
    """Of the network, which is one for both; of one that was read from code, what it is and the sha256 of its graph."""
    tensors: int
    """How many tensors the network has, or the training state."""
    identical: int
    """How many of them are the same in both, in every bit."""
    seed: int
    """Of what is random among the inputs."""
    inputs: tuple[Input, ...]
    """What both were run on."""
    checks: tuple[Check, ...]

    def to_json(self, *, indent: int | None = 1) -> str:
        """Everything; a number that is not finite is written as a string."""
        fields = _fields(self)
        return json.dumps({**fields, "seal": _seal(fields)}, indent=indent, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str = "the certificate") -> "Certificate":
        """The inverse of `to_json`.

        Args:
            text: the JSON.
            source: where it is from, for messages.

        Raises:
            CheckpointError: it is damaged, of a later release, or says what no proof that was passed says.
        """
        if len(text) > _LARGEST:
            raise CheckpointError(f"{source}: has {len(text)} characters; no certificate has more than {_LARGEST}")
        try:
            fields = parsed(text)
            if not isinstance(fields, dict) or "schema" not in fields:
                raise ValueError("it has no schema")
            schema, seal = fields.pop("schema"), fields.pop("seal", None)
            if type(schema) is not int or schema not in (_EARLIER, SCHEMA):
                said = printable(repr(schema))[:20]
                raise CheckpointError(f"{source}: is of schema {said}, this release reads {SCHEMA}; update unet-twins")
            later = {"evidence": None, "untrained": ""}
            if (schema == _EARLIER) == bool(later.keys() & fields.keys()):
                raise ValueError("it says otherwise than its schema by what the network is known")
            fields = {**fields, **later} if schema == _EARLIER else fields
            certificate: Certificate = decoded(cls, limited(fields))
            _check(certificate)
            if seal != _seal(_fields(certificate)):
                raise ValueError("its seal is not the digest of what it says")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{source}: is no sound certificate: {first_line(error)}") from error
        return certificate


def certificate_path(path: Path) -> Path:
    """Where the certificate of what is written to `path` lies: next to it."""
    named = path if path.name not in ("", "..") else absolute(path)
    return named.with_name(named.name + SUFFIX)


def weights_of(path: Path) -> Path:
    """Where the weights of code that is exported to `path` lie: beside it."""
    return path.with_suffix(".safetensors")


def party(
    path: Path,
    side: NetworkSummary,
    checkpoint: Checkpoint,
    *,
    kind: str,
    sha256: str | None,
    state: TrainingState | None = None,
) -> Party:
    """One of the two files of a proof; `path` gives its name, and `sha256` may come later."""
    training = None if state is None else state_digest(state)
    step = state.step if state is not None and kind == RUN else None
    name, network, reading = printable(absolute(path).name), network_digest(checkpoint), checkpoint.reading
    ran = side.framework, side.device, dict(side.versions), dict(side.flags)
    origin = str(path) if is_pinned(str(path)) else ""
    return Party(name, kind, sha256, network, training, step, reading.key, checkpoint.dialect, *ran, origin)


def certify(proof: Proof, source: Party, destination: Party, *, when: datetime) -> Certificate:
    """The certificate of a proof that was passed.

    Raises:
        CheckpointError: it was not, or the two files do not hold the same network or training.
    """
    config = json.loads(json.dumps(proof.a.config))
    time = when.astimezone(UTC).strftime(_TIME)
    shared = {
        field.name: getattr(proof, field.name)
        for field in dataclasses.fields(Certificate)
        if hasattr(proof, field.name)
    }
    certificate = Certificate(
        **shared, version=VERSION, when=time, source=source, destination=destination, config=config
    )
    try:
        _check(certificate)
    except ValueError as error:
        raise CheckpointError(f"{destination.name}: what was proven cannot be certified: {error}") from error
    return certificate


@locally
def read_certificate(path: Path) -> Certificate:
    """The certificate in a file that `unet convert` wrote, or in the metadata of a `.safetensors` file.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if not stat.S_ISREG(status.st_mode):
        companion = certificate_path(path)
        raise CheckpointError(f"{path}: is no certificate{f'; name {companion}' if companion.is_file() else ''}")
    own = path.suffix.lower() == ".safetensors"
    if not own and status.st_size > _LARGEST:
        raise CheckpointError(f"{path}: has {status.st_size} bytes; no certificate has more than {_LARGEST}")
    try:
        text = stored_certificate(path) if own else path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is no sound certificate: it is no text") from error
    if text is None:
        raise CheckpointError(f"{path}: has no certificate in its metadata")
    certificate = Certificate.from_json(text, str(path))
    if (certificate.destination.sha256 is None) != own:
        raise CheckpointError(f"{path}: is no sound certificate: it is not that of the file it lies in or beside")
    return certificate


def _fields(certificate: Certificate) -> dict[str, Any]:
    fields: dict[str, Any] = finite(dataclasses.asdict(certificate))
    for side in ("source", "destination"):
        if not fields[side]["origin"]:
            del fields[side]["origin"]
    if certificate.evidence is not None:
        return {"schema": SCHEMA, **fields, "evidence": certificate.evidence.to_dict()}
    later = ("evidence", "untrained")
    return {"schema": _EARLIER, **{name: value for name, value in fields.items() if name not in later}}


def _seal(fields: dict[str, Any]) -> str:
    """The sha256 of all the rest, as JSON with sorted keys and no spaces."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check(certificate: Certificate) -> None:
    """Raise ValueError where no conversion writes this."""
    a, b, config = certificate.source, certificate.destination, certificate.config
    graph, known = config.get("graph"), certificate.evidence or OURS
    kinds = (RUN, SOURCE, *EXPORTED, *(container.value for container in Container))
    digests = [a.network, b.network, a.training, b.training, a.sha256, b.sha256, graph]
    digests += [given.sha256 for given in certificate.inputs]
    wrong = [value for value in digests if value is not None and not re.fullmatch("[0-9a-f]{64}", value)]
    failed = [f"{check.quantity} on {check.sample}" for check in certificate.checks if not check.ok]
    verdict = agreement(certificate.subject, certificate.checks, known, certificate.untrained)
    faults = {
        "its time is none": datetime.strptime(certificate.when, _TIME).strftime(_TIME) != certificate.when,
        "its config is incomplete": graph is None and json.loads(UNetConfig.from_dict(config).to_json()) != config,
        "its network is none that was read from code": graph is not None and config.keys() != {"network", "graph"},
        "nothing tells that the network is the user's": known.by == "nothing",
        "a name that is none of a file": any(one.name in ("", ".", "..") or "/" in one.name for one in (a, b)),
        "a kind that is none": any(one.kind not in kinds for one in (a, b)),
        "an address that is none": any(one.origin and not is_pinned(one.origin) for one in (a, b)),
        "a step that is none": any((one.kind == RUN) != (one.step is not None) for one in (a, b)),
        f"not a sha256: {some(wrong) or 'null'}": bool(wrong) or a.sha256 is None,
        "the two files do not hold the same": (a.network, a.training) != (b.network, b.training),
        f"over its budget: {some(failed)}": bool(failed),
        "nothing was checked": not certificate.checks or not certificate.inputs,
        "more tensors are the same than there are": certificate.identical > certificate.tensors,
        "its verdict is not that of its checks": certificate.verdict != verdict,
    }
    for fault, found in faults.items():
        if found:
            raise ValueError(fault)

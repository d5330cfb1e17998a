"""The model card: what a person reads on the page of a repository, and the metadata that the Hub reads."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.labels import Classes
from unet_core.errors import shown
from unet_core.graph import Graph
from unet_core.graph.canonical import tensor_specs
from unet_core.hub.licenses import License

_TAGS = ("image-segmentation", "unet", "pytorch", "jax", "flax", "safetensors")


@dataclass(frozen=True)
class Certified:
    """What a certificate says, for people."""

    verdict: str
    when: str
    version: str
    """Of unet-twins."""
    figures: Sequence[tuple[str, str, float, float]]
    """Of every quantity its name, its precision, the largest error, and the budget of that."""


def card(
    repo: str,
    checkpoint: Checkpoint,
    *,
    license: License,  # noqa: A002
    certified: Certified | None = None,
) -> str:
    """The text of README.md.

    Args:
        repo: owner/name, to load it by.
        checkpoint: the network.
        license: of the weights.
        certified: what its certificate says; None: there is none.
    """
    named = {} if license.name is None else {"license_name": license.name}
    metadata = {
        "license": license.license,
        **named,
        "library_name": "unet-twins",
        "pipeline_tag": "image-segmentation",
        "tags": _TAGS,
    }
    head = [f"{name}: {json.dumps(value)}" for name, value in metadata.items()]  # JSON is YAML
    rows = [f"| {name} | {_cell(value)} |" for name, value in _facts(checkpoint)]
    parts = [
        "\n".join(["---", *head, "---"]),
        f"# {repo.rpartition('/')[2]}",
        "A network that segments pictures, in PyTorch and in JAX.",
        "\n".join(["| | |", "|---|---|", *rows]),
        "## What it is known by",
        _known(checkpoint, certified),
        "## How to load it",
        _loading(repo, checkpoint),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(checkpoint: Checkpoint) -> Sequence[tuple[str, str]]:
    config, specs = checkpoint.config, tensor_specs(checkpoint.config)
    parameters = sum(value.size for key, value in checkpoint.tensors.items() if specs[key].trained)
    if isinstance(config, Graph):
        title, sizes = config.title, f"{config.sizes}, in {config.dimensions} dimensions"
    else:
        title, sizes = "UNet of unet-twins", f"any size from {config.minimum_size}x{config.minimum_size} up"
    classes = checkpoint.origin.classes or Classes.of_nobody(config.out_channels, config.output)
    return (
        ("network", title),
        ("code", checkpoint.evidence.source or "none was named"),
        ("channels", f"{config.in_channels} in, {config.out_channels} out"),
        ("sizes that it takes", sizes),
        ("answers", "logits" if config.output == "logits" else f"probabilities ({config.output})"),
        ("classes", ", ".join(classes.names) or f"{len(classes.values)}, without names"),
        ("parameters", f"{parameters:,}"),
    )


def _known(checkpoint: Checkpoint, certified: Certified | None) -> str:
    evidence = checkpoint.evidence
    said = f"By {_cell(str(evidence))}."
    if certified is None:
        return f"{said}\n\nThere is no certificate of these weights."
    rows = [
        f"| {quantity} | {precision} | {error:.1e} | {budget:.1e} |"
        for quantity, precision, error, budget in certified.figures
    ]
    proven = (
        "The network was verified: run in both frameworks, and against that code or answer."
        if evidence.proves
        else "Both frameworks compute the same; whether this is what its own code computes was not verified."
    )
    return "\n".join(
        [
            said,
            "",
            f"{proven} {_cell(certified.verdict)} (unet-twins {certified.version}, {certified.when}).",
            "",
            "| quantity | precision | error | budget |",
            "|---|---|---|---|",
            *rows,
            "",
            "The certificate lies beside the weights; `unet verify --certificate` holds them against it.",
        ]
    )


def _loading(repo: str, checkpoint: Checkpoint) -> str:
    kind = "Network" if isinstance(checkpoint.config, Graph) else "UNet"
    return "\n".join(
        [
            "```python",
            "import unet_torch",
            "",
            f'model = unet_torch.{kind}.from_pretrained("{repo}")  # NCHW, eval mode',
            "```",
            "",
            "```python",
            "import unet_jax",
            "",
            f'model = unet_jax.{kind}.from_pretrained("{repo}")  # NHWC, eval mode',
            "```",
            "",
            "```sh",
            f"unet predict hf://{repo} pictures --out masks",
            f"unet export hf://{repo} model.onnx",
            "```",
        ]
    )


def _cell(text: str) -> str:
    """Fit for a line of Markdown."""
    return re.sub(r"([|<>`*_\[\]])", r"\\\1", shown(text))

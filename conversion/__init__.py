"""Checkpoints and models across the frameworks, and the proof that they are the same network.

Each framework is imported when a job first needs it.
"""

from conversion.exports.files import export
from conversion.files import convert
from conversion.inspection import Inspection, inspect
from conversion.models import to_jax, to_torch
from conversion.optimizers import optimizer_to_optax, optimizer_to_torch
from conversion.proof.certificate import Certificate
from conversion.proof.confirmation import Confirmation, confirm
from conversion.proof.proof import Proof
from conversion.proof.verification import verify
from conversion.pushing import push
from conversion.result import Conversion, DifferentError
from unet_core.checkpoints.reading import Hints

__all__ = [
    "Certificate",
    "Confirmation",
    "Conversion",
    "DifferentError",
    "Hints",
    "Inspection",
    "Proof",
    "confirm",
    "convert",
    "export",
    "inspect",
    "optimizer_to_optax",
    "optimizer_to_torch",
    "push",
    "to_jax",
    "to_torch",
    "verify",
]

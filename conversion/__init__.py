"""Checkpoints and models across the frameworks, and the proof that they are the same network.

Each framework is imported when a job first needs it.
"""

from conversion.certificate import Certificate
from conversion.confirmation import Confirmation, confirm
from conversion.files import convert
from conversion.inspection import Inspection, inspect
from conversion.models import to_jax, to_torch
from conversion.optimizers import optimizer_to_optax, optimizer_to_torch
from conversion.outcome import Conversion, DifferentError
from conversion.proof import Proof
from conversion.verification import verify
from unet_core.reading import Hints

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
    "inspect",
    "optimizer_to_optax",
    "optimizer_to_torch",
    "to_jax",
    "to_torch",
    "verify",
]

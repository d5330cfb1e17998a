"""Imports of the two frameworks, made when a job needs them and not before."""

from collections.abc import Iterator
from contextlib import contextmanager

from unet_core.errors import MissingFrameworkError
from unet_core.installation import installing

_EXTRAS = {
    "torch": ("PyTorch", "torch"),
    "jax": ("JAX", "jax"),
    "jaxlib": ("JAX", "jax"),
    "flax": ("Flax", "jax"),
    "orbax": ("Orbax", "jax"),
    "optax": ("optax", "jax"),
    "tensorstore": ("TensorStore", "jax"),
    "matplotlib": ("matplotlib", "train"),
    "PIL": ("Pillow", "train"),
    "jinja2": ("Jinja2", "report"),
    "grain": ("grain", "train"),
    "onnx": ("onnx", "export"),
    "onnxruntime": ("onnxruntime", "export"),
    "flatbuffers": ("flatbuffers", "export"),
}


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of what stands on a framework.

    Raises:
        MissingFrameworkError: the framework is not installed; the message says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in _EXTRAS:
            raise
        name, extra = _EXTRAS[package]
        raise MissingFrameworkError(
            f"this needs {name}, which is not installed: {installing(extra)}", name=package
        ) from error

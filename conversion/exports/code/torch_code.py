"""PyTorch, as what a network is printed in."""

from conversion.exports.code.language import Language
from conversion.exports.code.torch_layers import LAYERS
from conversion.exports.code.torch_table import ARITHMETIC, EXPRESSIONS, FUNCTIONS, entry
from conversion.exports.code.torch_text import HEAD, HELPERS, LOAD
from conversion.proof.certificate import TORCH_CODE

_SCRIPT = """
import torch
for name in ("dropout", "dropout1d", "dropout2d", "dropout3d"):
    setattr(torch.nn.functional, name, lambda x, *_: x)

def network(dtype):
    torch.set_default_dtype(dtype)
    return written.load(WEIGHTS)

def channels_first(array, dtype):
    return torch.tensor(np.moveaxis(array, -1, 1).copy(), dtype=dtype)

def channels_last(answer):
    return np.moveaxis(answer.detach().numpy(), 1, -1)

def answers(model, dtype):
    with torch.no_grad():
        return {number: channels_last(model(channels_first(x, dtype))) for number, x in given.items()}

found |= {f"narrow.{number}": answer for number, answer in answers(network(torch.float32), torch.float32).items()}
model = network(torch.float64)
found |= {f"wide.{number}": answer for number, answer in answers(model, torch.float64).items()}
answer = model.train()(channels_first(given["0"], torch.float64))
(answer * channels_first(cotangent, torch.float64)).mean().backward()
found["training"] = channels_last(answer)
for name, value in model.named_parameters(remove_duplicate=False):
    if value.grad is not None:
        found[f"gradient.{name}"] = value.grad.numpy()
for name, value in model.named_buffers(remove_duplicate=False):
    if name.endswith(("running_mean", "running_var")):
        found[f"statistic.{name}"] = value.numpy()
"""

TORCH = Language(
    kind=TORCH_CODE,
    tool="torch",
    packages=("torch",),
    channels_last=False,
    module="nn.Module",
    sequence="nn.Sequential",
    several="nn.ModuleList",
    forward="forward",
    array="Tensor",
    start=("super().__init__()",),
    nothing="nn.Identity()",
    gap="nn.Identity()",
    mapping="",
    typed=False,
    renamed=None,
    layers=LAYERS,
    functions=FUNCTIONS,
    arithmetic=ARITHMETIC,
    expressions=EXPRESSIONS,
    entry=entry,
    head=HEAD,
    helpers=HELPERS,
    aliases={},
    load=LOAD,
    script=_SCRIPT,
)

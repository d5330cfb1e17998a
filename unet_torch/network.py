"""Any graph as a PyTorch module. `unet_jax/network.py` is the twin."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_core.checkpoints.checkpoint import Origin
from unet_core.checkpoints.evidence import UNCHECKED, Evidence
from unet_core.graph import Graph
from unet_torch.execution import Tap, execute
from unet_torch.layers import OUTPUTS
from unet_torch.pretrained import Pretrained


class Network(Pretrained, nn.Module):
    """A network of any graph: [n, c, h, w], or [n, c, d, h, w] in three dimensions.

    Its state_dict is that of the module that the graph was read from: the same names in the same order, tensors that
    stand there twice among them. A new network is in training mode, with zeros in all its tensors.

    Args:
        graph: what it computes.
        norm_parts: BatchNorm takes the statistics of each of so many equal parts of a batch.
        evidence: by what the graph is known to be the user's network.

    Examples:
        >>> import torch, unet_torch
        >>> graph = unet_torch.read(torch.nn.Conv2d(3, 2, 3, padding=1)).graph
        >>> unet_torch.Network(graph)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 2, 8, 8])
    """

    def __init__(self, graph: Graph, *, norm_parts: int = 1, evidence: Evidence = UNCHECKED) -> None:
        super().__init__()
        self.graph = graph
        self.origin = Origin()
        self.evidence = evidence
        self.norm_parts = norm_parts
        self.generator: torch.Generator | None = None
        """Where dropout draws from; None: from torch's own."""
        for name, tensor in graph.tensors.items():
            *parents, last = name.split(".")
            part: nn.Module = self
            for parent in parents:  # not by add_module, which refuses the names of methods, such as `logits`
                part = part._modules.setdefault(parent, nn.Module())  # type: ignore[assignment]
            if tensor.same_as is None and tensor.kind == "parameter":
                part._parameters[last] = nn.Parameter(torch.zeros(tensor.shape))
            elif tensor.same_as is None:
                kind = torch.int64 if tensor.kind == "counter" else None
                part._buffers[last] = torch.zeros(tensor.shape, dtype=kind)
        self.register_state_dict_post_hook(_twice)
        self.register_load_state_dict_pre_hook(_once)

    @property
    def config(self) -> Graph:
        """The graph, under the name that a `unet_torch.UNet` has for what describes it."""
        return self.graph

    def logits(self, x: Float[Tensor, "n c *size"], *, tap: Tap | None = None) -> Float[Tensor, "n k *out"]:
        """The output before a last sigmoid or softmax; in training mode the running statistics are renewed.

        Args:
            x: the pictures.
            tap: is told every node's output, and returns what it hands on.

        Raises:
            ValueError: an input that the network does not take.
        """
        tensors = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        answer, updates = execute(
            self.graph,
            tensors,
            x,
            training=self.training,
            draw=self._draw,
            norm_parts=self.norm_parts,
            until=self.graph.in_mode(training=self.training).logits,
            tap=tap,
        )
        with torch.no_grad():
            for name, value in updates.items():
                tensors[name].copy_(value)
        return answer

    def forward(self, x: Float[Tensor, "n c *size"]) -> Float[Tensor, "n k *out"]:
        """What the network computes: its logits, or what its last operation makes of them; raises what they raise."""
        return OUTPUTS[self.graph.in_mode(training=self.training).output](self.logits(x))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        device = None if self.generator is None else self.generator.device
        return torch.rand(shape, generator=self.generator, device=device)


def _twice(model: Network, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """Put the tensors that have two names under both into a state_dict, in its order."""
    for name, tensor in model.graph.tensors.items():
        state[prefix + name] = state[prefix + tensor.same_as] if tensor.same_as else state.pop(prefix + name)


def _once(model: Network, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Leave the second names of tensors out of a state_dict that is loaded."""
    for name, tensor in model.graph.tensors.items():
        if tensor.same_as:
            state.pop(prefix + name, None)

"""How a node of one network's graph differs from the same node of another's."""

from conversion.diagnosis.nodes import TracedNetwork
from unet_core.graph import Node

_FITS = {
    ("interpolate", "pad"): "an odd size is padded with zeros instead of resized",
    ("pad", "interpolate"): "an odd size is resized instead of padded with zeros",
}
CORNERS = {
    False: "the upsampling uses half-pixel corners instead of align_corners",
    True: "the upsampling uses align_corners, not half-pixel corners",
}


def difference(node: Node, other: Node, a: TracedNetwork, b: TracedNetwork) -> str | None:
    """How a node of B, or one without tensors before it, differs from that of A; None where none does."""
    if node.operation != other.operation:
        return _FITS.get((node.operation, other.operation), f"where A has {node.operation}, B has {other.operation}")
    for name, value in node.attributes.items():
        if value != other.attributes[name]:
            return _said(node, other, name, a, b)
    owners = _owners(node, a), _owners(other, b)
    if owners[0] != owners[1] and sorted(owners[0]) == sorted(owners[1]):
        return order(other.inputs)
    for names in zip(node.inputs, other.inputs, strict=False):
        one, its = (side.nodes.get(name) for side, name in zip((a, b), names, strict=True))
        if one is None or its is None or one == its or one.tensors or its.tensors:
            continue
        said = difference(one, its, a, b)
        if said is not None:
            return said
    return None


def _owners(node: Node, network: TracedNetwork) -> list[str]:
    """Of each input, the node with tensors, or the picture, from which it comes in the first place."""
    found = []
    for name in node.inputs:
        while name in network.nodes and network.nodes[name].inputs and not network.nodes[name].tensors:
            name = network.nodes[name].inputs[0]
        found.append(name)
    return found


def _said(node: Node, other: Node, name: str, a: TracedNetwork, b: TracedNetwork) -> str:
    """That an attribute is another one in B."""
    value, found, operation = node.attributes[name], other.attributes[name], node.operation
    if (operation, name) == ("interpolate", "size"):
        both = (a, node), (b, other)
        pads = [any(taker.operation == "pad" for taker in side.takers(one.name)) for side, one in both]
        if pads[0] != pads[1]:
            return _FITS["interpolate", "pad"] if pads[1] else _FITS["pad", "interpolate"]
    if name == "align_corners":
        return CORNERS[bool(found)]
    if isinstance(value, float) and isinstance(found, float):
        return f"{name} is {found:.3g} instead of {value:.3g}"
    return f"{name} of {operation} is {found} instead of {value}"


def order(inputs: tuple[str, ...]) -> str:
    """How it is said that a concatenation has this order."""
    return f"the concatenation order is swapped: [{', '.join(inputs)}]"

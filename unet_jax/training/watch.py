"""How the hosts of a training notice that one of them is gone.

Of the collectives under way some never return then, and nothing says whom they wait for.
"""

import json
import os
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jax._src import distributed  # which has no public name for what the hosts tell each other by the coordinator
from jax.errors import JaxRuntimeError

from unet_core.errors import RunError, first_line
from unet_jax.training.leaving import leave, leave_at_exit
from unet_jax.training.rendezvous import Door, address_of, new_secret, reached

_MEETING = 30.0
"""Seconds for all to have a connection with the first host, once JAX has brought them together."""
_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3}
"""A machine that does not answer for 14 seconds is gone, though it closed no connection."""
_BYE = "bye"
_REACHED, _PLACE = "unet/watch/reached", "unet/watch/place"
"""What the coordinator keeps: the first host's address as each other one sees it; its ports, and the run's secret."""


class Watch:
    """A connection of every host with the first one, by which all learn at once when one of them ends.

    Args:
        index, count: this host, and how many there are.

    Raises:
        RunError: a host is not reached.
    """

    def __init__(self, index: int, count: int) -> None:
        self._closed = False
        self._me = f"host {index} ({socket.gethostname()}, process {os.getpid()})"
        self._peers: list[socket.socket] = []
        try:
            peers = _expected(count) if index == 0 else [_joined(index)]
        except (OSError, JaxRuntimeError) as error:
            leave_at_exit(2)
            raise RunError(f"{self._me}: the hosts have no connection: {first_line(error)}") from error
        for peer in peers:
            self._add(peer)

    def failed(self, why: str) -> None:
        """Tell the others that this one ends, and why."""
        self._end(f"{self._me} has ended: {why}")

    def close(self) -> None:
        """This one ends as it should."""
        self._end(_BYE)

    def _end(self, line: str) -> None:
        self._closed = True
        for peer in self._peers:
            with suppress(OSError):
                peer.sendall(f"{line}\n".encode())
                peer.shutdown(socket.SHUT_WR)

    def _add(self, peer: socket.socket) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        peer.sendall(f"{self._me}\n".encode())
        self._peers.append(peer)
        threading.Thread(target=self._listen, args=(peer,), daemon=True).start()

    def _listen(self, peer: socket.socket) -> None:
        lines: list[str] = []
        with suppress(OSError), peer.makefile("r", encoding="utf-8", errors="replace") as file:
            lines.extend(line.rstrip("\n") for line in file)
        name, *rest = lines or ["a host"]
        if self._closed or rest == [_BYE]:
            return
        line = rest[0] if rest else f"{name} has ended"
        self._end(line)  # the first one passes it on
        leave(f"{line}; go on with --resume")


def _expected(count: int) -> Sequence[socket.socket]:
    """The first host's connections with the others."""
    told: Any = distributed.global_state.client
    addresses = {told.blocking_key_value_get(f"{_REACHED}/{index}", int(_MEETING * 1000)) for index in range(1, count)}
    secret = new_secret()
    door = Door(sorted(addresses), secret)
    told.key_value_set(_PLACE, json.dumps({"ports": door.ports, "secret": secret.hex()}))
    return list(door.peers(count - 1, _MEETING).values())


def _joined(index: int) -> socket.socket:
    """Another host's connection with the first one, which is at the address where JAX has found it."""
    told: Any = distributed.global_state.client
    name, _, port = (distributed.global_state.coordinator_address or "").rpartition(":")
    address = address_of(name.strip("[]"), int(port), _MEETING)
    told.key_value_set(f"{_REACHED}/{index}", address)
    place = json.loads(told.blocking_key_value_get(_PLACE, int(_MEETING * 1000)))
    return reached(address, place["ports"][address], bytes.fromhex(place["secret"]), index, _MEETING)

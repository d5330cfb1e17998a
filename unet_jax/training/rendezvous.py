"""Connections with the first host that only those get who know the run's secret.

Each side sends random bytes, and the other answers with an HMAC of them: the secret itself never goes over the wire.
The first host listens at the addresses at which the others reach it, and only until all are there.
"""

import hmac
import secrets
import selectors
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

_RANDOM = 32
"""Bytes of a challenge, of a secret, and of an HMAC by SHA-256."""
_INDEX = 4
_ANSWER = _INDEX + 2 * _RANDOM
"""Bytes in which a peer says which host it is, what it asks in turn, and its proof."""
_PATIENCE = 5.0
"""Seconds that a visitor has to prove who it is."""
_VISITORS = 64
"""Who has not proven it yet, at most: beyond them, the one that has waited longest is hung up on."""
_PAUSE = 0.1
"""Seconds between two tries of a peer."""


def new_secret() -> bytes:
    """Of one run, made by its first host."""
    return secrets.token_bytes(_RANDOM)


@dataclass
class _Visitor:
    """A connection that has proven nothing so far."""

    peer: socket.socket
    came: float = field(default_factory=time.monotonic)
    challenge: bytes = field(default_factory=lambda: secrets.token_bytes(_RANDOM))
    said: bytes = b""


class Door:
    """Where the first host listens for the others.

    Args:
        addresses: of this host, without a port; it listens at these and at no other.
        secret: that of the run.

    Raises:
        OSError: one of them is no address of this host.
    """

    def __init__(self, addresses: Iterable[str], secret: bytes) -> None:
        self._secret = secret
        self._selector = selectors.DefaultSelector()
        self._visitors: list[_Visitor] = []
        self.ports: dict[str, int] = {}
        """The port at each address."""
        try:
            for address in addresses:
                listener = socket.create_server((address, 0), family=_family(address))
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ)
                self.ports[address] = listener.getsockname()[1]
        except OSError:
            self._close()
            raise

    def peers(self, count: int, seconds: float) -> dict[int, socket.socket]:
        """The others by their numbers, 1 to `count`; then nothing listens any more.

        Raises:
            OSError: they have not all come in time.
        """
        found: dict[int, socket.socket] = {}
        until = time.monotonic() + seconds
        try:
            while len(found) < count:
                if time.monotonic() > until:
                    missing = next(index for index in range(1, count + 1) if index not in found)
                    raise TimeoutError(f"host {missing} has not come within {seconds:g} seconds")
                for key, _ in self._selector.select(_PAUSE):
                    if key.data is None:
                        self._admit(key.fileobj)  # type: ignore[arg-type]  # the selector knows its number as well
                    elif key.data in self._visitors:
                        known = self._heard(key.data, count)
                        for index in known.keys() & found.keys():  # it has lost the connection, and comes again
                            found[index].close()
                        found |= known
                self._hang_up(visitor for visitor in self._visitors if time.monotonic() - visitor.came > _PATIENCE)
        finally:
            self._close()
        return found

    def _admit(self, listener: socket.socket) -> None:
        try:
            peer = listener.accept()[0]
        except OSError:  # it has left already; or there are no more file descriptors
            self._hang_up(self._visitors[:1])
            return
        visitor = _Visitor(peer)
        peer.setblocking(False)
        self._hang_up(self._visitors[: len(self._visitors) - _VISITORS + 1])
        self._visitors.append(visitor)
        self._selector.register(peer, selectors.EVENT_READ, visitor)
        try:
            peer.sendall(visitor.challenge)
        except OSError:
            self._hang_up([visitor])

    def _heard(self, visitor: _Visitor, count: int) -> dict[int, socket.socket]:
        """The peer that a visitor is, once it has proven it."""
        try:
            more = visitor.peer.recv(_ANSWER - len(visitor.said))
            visitor.said += more
            if more and len(visitor.said) < _ANSWER:
                return {}
            named, nonce, proof = _parts(visitor.said)
            index = int.from_bytes(named)
            genuine = hmac.compare_digest(proof, _proof(self._secret, b"peer", visitor.challenge, nonce, named))
            if genuine and 1 <= index <= count:
                visitor.peer.sendall(_proof(self._secret, b"first", visitor.challenge, nonce, named))
                self._selector.unregister(visitor.peer)
                self._visitors.remove(visitor)
                return {index: visitor.peer}
        except OSError:
            pass  # it has left
        self._hang_up([visitor])
        return {}

    def _hang_up(self, visitors: Iterable[_Visitor]) -> None:
        for visitor in list(visitors):
            self._visitors.remove(visitor)
            self._selector.unregister(visitor.peer)
            visitor.peer.close()

    def _close(self) -> None:
        self._hang_up(self._visitors)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()


def reached(address: str, port: int, secret: bytes, index: int, seconds: float) -> socket.socket:
    """A connection of host `index` with the first one, each of whom has proven that it knows the secret.

    Raises:
        OSError: it is not to be had in time.
    """
    until = time.monotonic() + seconds
    while True:
        left = max(until - time.monotonic(), _PAUSE)
        try:
            peer = socket.create_connection((address, port), timeout=min(left, _PATIENCE))
            try:
                _prove(peer, secret, index)
            except OSError:
                peer.close()
                raise
            return peer
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)


def address_of(name: str, port: int, seconds: float) -> str:
    """The address at which this host reaches another one, where something listens on a port.

    Raises:
        OSError: it does not.
    """
    with socket.create_connection((name, port), timeout=seconds) as found:
        address: str = found.getpeername()[0]
        return address


def is_own(address: str) -> bool:
    """Whether it is an address of this host, at which it could listen."""
    with suppress(OSError), socket.create_server((address, 0), family=_family(address)):
        return True
    return False


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _prove(peer: socket.socket, secret: bytes, index: int) -> None:
    challenge, nonce, named = _exactly(peer, _RANDOM), secrets.token_bytes(_RANDOM), index.to_bytes(_INDEX)
    peer.sendall(named + nonce + _proof(secret, b"peer", challenge, nonce, named))
    answer = _exactly(peer, _RANDOM)
    if not hmac.compare_digest(answer, _proof(secret, b"first", challenge, nonce, named)):
        raise ConnectionError("who answers there does not know the run's secret")


def _exactly(peer: socket.socket, count: int) -> bytes:
    """So many bytes; the socket has a time limit for each part."""
    found = b""
    while len(found) < count:
        more = peer.recv(count - len(found))
        if not more:
            raise ConnectionResetError("the other side has hung up")
        found += more
    return found


def _parts(said: bytes) -> tuple[bytes, bytes, bytes]:
    return said[:_INDEX], said[_INDEX : _INDEX + _RANDOM], said[_INDEX + _RANDOM :]


def _proof(secret: bytes, side: bytes, challenge: bytes, nonce: bytes, named: bytes) -> bytes:
    return hmac.digest(secret, side + challenge + nonce + named, "sha256")

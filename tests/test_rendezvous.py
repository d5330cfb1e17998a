"""The connections between hosts: whoever does not know the run's secret keeps nobody from training."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("jax")

from unet_jax.training import hosts, rendezvous
from unet_jax.training.rendezvous import Door, address_of, is_own, new_secret, reached

HERE = "127.0.0.1"
SECRET = new_secret()


@contextlib.contextmanager
def stranger_that(does, port):
    with socket.create_connection((HERE, port), timeout=10) as stranger:
        with contextlib.suppress(OSError):
            does(stranger)
        yield


def silent(stranger):
    pass


def garbage(stranger):
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: unet\r\n\r\n\0\xff")


def endless_line(stranger):
    stranger.sendall(b"a" * 1_000_000)


def leaves_at_once(stranger):
    stranger.close()


def an_echo(stranger):
    stranger.sendall(stranger.recv(32) * 3)


def wrong_secret(stranger):
    rendezvous._prove(stranger, new_secret(), 1)


def one_byte_at_a_time(stranger):
    def drip():
        with contextlib.suppress(OSError):
            while True:
                stranger.sendall(b"a")
                time.sleep(0.02)

    threading.Thread(target=drip, daemon=True).start()


def a_crowd(stranger):
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(stranger.getpeername(), timeout=10))
        threading.Timer(0.5, stack.pop_all().close).start()


STRANGERS = [silent, garbage, endless_line, wrong_secret, leaves_at_once, one_byte_at_a_time, a_crowd, an_echo]


@contextlib.contextmanager
def opened(count, seconds=20.0):
    """A door, and what comes of the peers that it waits for."""
    door = Door([HERE], SECRET)
    with ThreadPoolExecutor(1) as pool:
        yield door.ports[HERE], pool.submit(door.peers, count, seconds)


def close(*connections):
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_neither_gets_in_nor_keeps_the_others_out(stranger):
    with opened(2) as (port, found), stranger_that(stranger, port):
        own = [reached(HERE, port, SECRET, index, 10.0) for index in (1, 2)]
        peers = found.result()
        assert sorted(peers) == [1, 2]
        for index, connection in enumerate(own, 1):
            connection.sendall(b"hello")
            assert peers[index].recv(5) == b"hello"
        close(*own, *peers.values())


@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_alone_are_nobody(stranger):
    """And the host that is missing is named."""
    with opened(1, seconds=0.2) as (port, found), stranger_that(stranger, port):
        error = found.exception()
    assert isinstance(error, TimeoutError)
    assert str(error) == "host 1 has not come within 0.2 seconds"


def test_who_is_silent_is_hung_up_on(monkeypatch):
    monkeypatch.setattr(rendezvous, "_PATIENCE", 0.2)
    with opened(1) as (port, found), contextlib.closing(socket.create_connection((HERE, port), timeout=5)) as stranger:
        assert len(stranger.recv(100)) == 32
        assert stranger.recv(1) == b"", "it was not waited for any longer"
        peer = reached(HERE, port, SECRET, 1, 10.0)
        close(peer, *found.result().values())


def test_a_host_that_does_not_exist_is_nobody():
    with opened(1, seconds=1.0) as (port, found):
        with pytest.raises(OSError, match=r"hung up|reset"):
            reached(HERE, port, SECRET, 2, 0.2)
        close(reached(HERE, port, SECRET, 1, 5.0), *found.result().values())


def test_a_host_that_comes_again_is_counted_once():
    with opened(2) as (port, found):
        lost = reached(HERE, port, SECRET, 1, 5.0)
        own = [reached(HERE, port, SECRET, index, 5.0) for index in (1, 2)]
        peers = found.result()
        own[0].sendall(b"again")
        assert peers[1].recv(5) == b"again"
        close(lost, *own, *peers.values())


def test_nothing_listens_once_all_are_there():
    with opened(1) as (port, found):
        peer = reached(HERE, port, SECRET, 1, 5.0)
        close(peer, *found.result().values())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HERE, port))


def test_it_listens_at_its_address_alone():
    with opened(1, seconds=0.3) as (port, found):
        socket.create_connection((HERE, port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
        assert found.exception() is not None


def test_a_first_host_that_does_not_know_the_secret_is_none():
    """One that has taken its port sends a challenge, and some bytes as its proof."""
    with socket.create_server((HERE, 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as peer:
                        peer.sendall(b"c" * 32)
                        rendezvous._exactly(peer, 68)
                        peer.sendall(b"p" * 32)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(ConnectionError, match="does not know the run's secret"):
            reached(HERE, server.getsockname()[1], SECRET, 1, 0.3)
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_the_secret_does_not_go_over_the_wire(monkeypatch):
    heard = []
    proof = rendezvous._proof
    monkeypatch.setattr(rendezvous, "_proof", lambda *given: heard.append(given) or proof(*given))
    sent, real = [], socket.socket.sendall
    monkeypatch.setattr(socket.socket, "sendall", lambda peer, data: sent.append(data) or real(peer, data))
    with opened(1) as (port, found):
        close(reached(HERE, port, SECRET, 1, 5.0), *found.result().values())
    assert {given[0] for given in heard} == {SECRET}
    assert [len(data) for data in sent] == [32, 68, 32]
    assert not any(SECRET in data for data in sent)
    assert len({data[-32:] for data in sent}) == 3, "no proof is another's echo"


def test_a_door_is_for_addresses_of_this_host():
    assert is_own(HERE)
    assert not is_own("192.0.2.1")
    with pytest.raises(OSError, match="assign"):
        Door([HERE, "192.0.2.1"], SECRET)


def test_the_address_is_the_one_that_answers():
    with socket.create_server((HERE, 0)) as server:
        port = server.getsockname()[1]
        assert address_of("localhost", port, 5.0) == HERE
    with pytest.raises(OSError, match="refused"):
        address_of("localhost", port, 5.0)


@pytest.mark.parametrize(
    ("coordinator", "addresses", "bound"),
    [
        ("localhost:8476", ["127.0.0.1", "::1"], True),
        ("127.0.0.1:8476", ["127.0.0.1"], True),
        ("[::1]:8476", ["::1"], True),
        ("node1:8476", ["127.0.1.1"], False),  # as Debian's /etc/hosts calls the host itself
        ("node1:8476", ["192.0.2.1"], False),  # a router's
        ("node1:8476", ["127.0.1.1", "192.0.2.9"], True),
        ("node1:8476", [], False),
        (None, [], False),
    ],
)
def test_jaxs_own_service_listens_where_the_others_reach_it(coordinator, addresses, bound, monkeypatch):
    monkeypatch.setattr(hosts, "is_own", lambda address: address in (HERE, "::1", "127.0.1.1", "192.0.2.9"))

    def found(*_, **__):
        if not addresses:
            raise socket.gaierror("unknown")
        return [(None, None, None, "", (address, 0)) for address in addresses]

    monkeypatch.delenv("JAX_COORDINATOR_BIND_ADDRESS", raising=False)
    monkeypatch.setattr(hosts.socket, "getaddrinfo", found)
    assert hosts._bound(coordinator) == (coordinator if bound else None)
    monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "10.0.0.2:8476")
    assert hosts._bound(coordinator) is None


def test_a_visitor_is_no_reason_to_wait_longer_than_was_said():
    begun = time.monotonic()
    with opened(1, seconds=0.3) as (port, found), stranger_that(one_byte_at_a_time, port):
        assert isinstance(found.exception(), TimeoutError)
    assert time.monotonic() - begun < 2

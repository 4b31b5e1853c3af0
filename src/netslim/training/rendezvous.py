"""How the processes of a data-parallel job find each other, and who is named when one does not come."""

from __future__ import annotations

import contextlib
import hmac
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection

from torch.distributed import DistError, TCPStore

NAMED_AFTER = 60.0  # seconds
TIMEOUT = "NETSLIM_NODE_TIMEOUT"  # seconds after which a node that does not come is given up
DEFAULT_TIMEOUT = 600.0
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 30_000}  # 30 s

_KEY = "netslim/control"
_kept: list[TCPStore] = []  # rank 0's server, until the process ends


@dataclass(frozen=True)
class Place:
    """This process among the others.

    address, port: where rank 0 is found (MASTER_ADDR, MASTER_PORT).
    """

    rank: int
    world: int
    per_node: int
    address: str
    port: int


class Patience:
    """Waiting for something that may never come: named after a minute, given up after a set time.

    Raises:
        ValueError: NETSLIM_NODE_TIMEOUT is not a positive number.
    """

    def __init__(self) -> None:
        self.seconds, self._start, self._named = timeout(), time.monotonic(), False

    def check(self, what: str) -> None:
        """Say what is missing, once it is time to.

        Raises:
            TimeoutError: it is given up.
        """
        waited = time.monotonic() - self._start
        if waited > self.seconds:
            raise TimeoutError(f"{what}; given up after {self.seconds:g} s ({TIMEOUT} sets the time)")
        if waited > NAMED_AFTER and not self._named:
            self._named = True
            print(f"netslim: waiting: {what}", file=sys.stderr, flush=True)


def timeout() -> float:
    """Seconds after which a node that does not come, or does not see the shared folder, is given up: default 600.

    >>> timeout()
    600.0
    """
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text or DEFAULT_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{TIMEOUT}={text} is not a number of seconds; give one such as {TIMEOUT}=600")
    return seconds


def meet(place: Place, check: Callable[[], None] = lambda: None) -> dict[Connection, int]:
    """Connect rank 0 to every other rank. Returns connection -> rank at its other end.

    Args:
        place: this process.
        check: called again and again while this process waits; may raise.

    Raises:
        TimeoutError: a process has not come in time.
        ValueError: the processes do not agree on how many they are, or two have the same rank.
    """
    return _receive_all(place, check) if place.rank == 0 else {_find_rank_zero(place, check): 0}


def _receive_all(place: Place, check: Callable[[], None]) -> dict[Connection, int]:
    token, patience = secrets.token_hex(16), Patience()
    came: dict[Connection, int] = {}
    with _server() as server:
        server.settimeout(0.5)
        _store(place).set(_KEY, f"{server.getsockname()[1]} {token}")
        while missing := set(range(1, place.world)) - set(came.values()):
            check()
            patience.check(_absent(place, missing))
            try:
                guest = _connection(server.accept()[0])
            except TimeoutError:
                continue
            if (hello := _hello(guest, token)) is None:
                continue
            rank, world, host = hello
            came[guest] = rank
            if refusal := _refusal(place, rank, world, host, missing):
                _answer(came, refusal)
                raise ValueError(refusal)
    _answer(came, "")
    return came


def _answer(guests: Iterable[Connection], refusal: str) -> None:
    for guest in guests:
        with contextlib.suppress(OSError):  # it has ended meanwhile: its connection will tell
            guest.send(refusal)


def _refusal(place: Place, rank: int, world: int, host: str, missing: set[int]) -> str:
    """Why a process cannot belong to this job; "" where it can."""
    if world != place.world:
        return (
            f"rank {rank} on {host} belongs to a job of {world} processes, rank 0 on {platform.node()} to one of "
            f"{place.world}; give all nodes the same trainer.devices and trainer.num_nodes"
        )
    if rank not in missing:
        return f"two processes came as rank {rank}, the second on {host}; give each node a number of its own"
    return ""


def _hello(guest: Connection, token: str) -> tuple[int, int, str] | None:
    """What a process of this job says of itself; None from a stranger, of whom nothing else is read."""
    with contextlib.suppress(EOFError, OSError):
        if guest.poll(5) and hmac.compare_digest(guest.recv_bytes(len(token)), token.encode()):
            return guest.recv()
    guest.close()
    return None


def _find_rank_zero(place: Place, check: Callable[[], None]) -> Connection:
    patience = Patience()
    host: Connection | None = None
    store: TCPStore | None = None
    missing = f"rank 0 has not come to {place.address}:{place.port} (asked by rank {place.rank} on {platform.node()})"
    while True:
        check()
        patience.check(missing)
        try:
            store = store or _store(place)
            host = _introduce(store, place)
        except (OSError, EOFError, DistError):  # not there yet, or the rank 0 of a job that has ended
            host = store = None
        if host is None:
            time.sleep(0.2)
            continue
        return _welcomed(host, check)


def _welcomed(host: Connection, check: Callable[[], None]) -> Connection:
    """Wait for rank 0, which answers when all have come, and names who has not."""
    while not host.poll(0.5):
        check()
    try:
        refusal = host.recv()
    except (EOFError, OSError):
        raise ConnectionError("rank 0 ended while it waited for the other ranks; its own output says why") from None
    if refusal:
        raise ValueError(refusal)
    return host


def _introduce(store: TCPStore, place: Place) -> Connection | None:
    if not store.check([_KEY]):
        return None
    port, token = store.get(_KEY).decode().split()
    host = _connection(socket.create_connection((place.address, int(port)), timeout=5))
    host.send_bytes(token.encode())
    host.send((place.rank, place.world, platform.node()))
    return host


def _store(place: Place) -> TCPStore:
    """The key-value store of torch.distributed's own rendezvous: served by torchrun, or else by rank 0."""
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if place.rank > 0 or served:
        socket.create_connection((place.address, place.port), timeout=5).close()  # TCPStore prints when it fails
    master = place.rank == 0 and not served
    store = TCPStore(
        place.address, place.port, None, master, timedelta(seconds=30), wait_for_workers=False, multi_tenant=True
    )
    if master:
        _kept.append(store)  # torch.distributed's own, on the same port, shares the server
    return store


def _server() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def _connection(end: socket.socket) -> Connection:
    """Messages over a socket; the kernel asks the other machine whether it is still there."""
    end.setblocking(True)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            end.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return Connection(end.detach())


def _absent(place: Place, missing: set[int]) -> str:
    """Which nodes, or where there is one, which ranks have not come."""
    ranks = ", ".join(map(str, sorted(missing)))
    nodes = sorted({rank // place.per_node for rank in missing})
    many = place.world > place.per_node
    where = f"node {', '.join(map(str, nodes))} of {place.world // place.per_node} (rank {ranks})"
    return f"{where if many else f'rank {ranks}'} has not come to rank 0 at {place.address}:{place.port}"

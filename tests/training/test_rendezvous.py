"""How ranks meet: several in this process, each in a thread, over real sockets on loopback."""

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

from netslim.training import rendezvous
from netslim.training.rendezvous import Place, meet


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    yield number
    rendezvous._kept.clear()


def in_threads(*works: Callable[[], Any]) -> list[Any]:
    """What each returns or raises."""
    results: list[Any] = [None] * len(works)

    def note(number: int) -> None:
        try:
            results[number] = works[number]()
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=note, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def place(rank: int, port: int, world: int = 3, per_node: int = 1) -> Place:
    return Place(rank, world, per_node, "127.0.0.1", port)


def test_rank_0_is_connected_to_each_other_rank(port):
    first, *others = in_threads(*(lambda rank=rank: meet(place(rank, port)) for rank in range(3)))
    assert sorted(first.values()) == [1, 2]
    for rank, other in enumerate(others, 1):
        ((end, at_its_end),) = other.items()
        assert at_its_end == 0
        end.send(f"I am {rank}")
    assert {rank: end.recv() for end, rank in first.items()} == {1: "I am 1", 2: "I am 2"}
    for end in [*first, *(end for other in others for end in other)]:
        end.close()


def test_strangers_are_not_let_in(port, monkeypatch):
    """A port scanner, and a process with the address but not the token."""
    seen = []
    hello = rendezvous._hello
    monkeypatch.setattr(rendezvous, "_hello", lambda *arguments: seen.append(hello(*arguments)) or seen[-1])

    def strange() -> None:
        while not rendezvous._kept:
            time.sleep(0.01)
        while not rendezvous._kept[0].check([rendezvous._KEY]):
            time.sleep(0.01)
        other = int(rendezvous._kept[0].get(rendezvous._KEY).decode().split()[0])
        socket.create_connection(("127.0.0.1", other)).close()
        with socket.create_connection(("127.0.0.1", other)) as end:
            end.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
        Connection(socket.create_connection(("127.0.0.1", other)).detach()).send_bytes(b"0" * 32)
        while len(seen) < 3:
            time.sleep(0.01)

    def late() -> dict[Connection, int]:
        while len(seen) < 3:
            time.sleep(0.01)
        return meet(place(1, port, world=2))

    first, _, second = in_threads(lambda: meet(place(0, port, world=2)), strange, late)
    assert seen == [None, None, None, (1, 2, os.uname().nodename)]
    for end in [*first, *second]:
        end.close()


@pytest.mark.parametrize(
    ("absent", "per_node", "line"),
    [
        (0, 1, "rank 0 has not come to 127.0.0.1:{port} (asked by rank 1 on {host})"),
        (1, 1, "node 1 of 2 (rank 1) has not come to rank 0 at 127.0.0.1:{port}"),
        (1, 2, "rank 1 has not come to rank 0 at 127.0.0.1:{port}"),
    ],
)
def test_who_does_not_come_is_named_and_given_up(absent, per_node, line, port, monkeypatch, capsys):
    monkeypatch.setattr(rendezvous, "NAMED_AFTER", 0.5)
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", "1.5")
    line = line.format(port=port, host=os.uname().nodename)
    start = time.monotonic()
    with pytest.raises(TimeoutError) as error:
        meet(place(1 - absent, port, world=2, per_node=per_node))
    assert 1.5 <= time.monotonic() - start < 5
    assert str(error.value) == f"{line}; given up after 1.5 s (NETSLIM_NODE_TIMEOUT sets the time)"
    assert capsys.readouterr().err == f"netslim: waiting: {line}\n"  # once


def test_nobody_is_named_before_a_minute(port, monkeypatch, capsys):
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", "1")
    with pytest.raises(TimeoutError):
        meet(place(0, port))
    assert capsys.readouterr().err == ""
    assert rendezvous.NAMED_AFTER == 60


@pytest.mark.parametrize("text", ["ten", "0", "-1", "nan", "inf"])
def test_the_time_is_a_number_of_seconds(text, port, monkeypatch):
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"NETSLIM_NODE_TIMEOUT={text} is not a number of seconds"):
        meet(place(0, port))


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"world": 4}, "belongs to a job of 4 processes, rank 0 on .* to one of 3; give all nodes the same trainer"),
        ({}, "two processes came as rank 1, the second on .*; give each node a number of its own"),
    ],
)
def test_nodes_started_for_other_jobs_are_refused(second, message, port, monkeypatch):
    monkeypatch.setenv("NETSLIM_NODE_TIMEOUT", "5")
    first, *others = in_threads(
        lambda: meet(place(0, port)), lambda: meet(place(1, port)), lambda: meet(place(1, port, **second))
    )
    assert isinstance(first, ValueError)
    assert re.search(message, str(first))
    assert all(isinstance(other, (ValueError, OSError)) for other in others)  # the latter: it came too late to hear it


def test_the_address_of_an_earlier_job_does_not_mislead(port):
    """torchrun keeps its store: a sweep's next job finds the last one's address in it."""
    first, second = in_threads(lambda: meet(place(0, port, 2)), lambda: meet(place(1, port, 2)))
    kept = rendezvous._kept[0]
    for end in [*first, *second]:
        end.close()

    def later() -> dict[Connection, int]:
        time.sleep(1)
        return meet(place(0, port, 2))

    first, second = in_threads(later, lambda: meet(place(1, port, 2)))
    assert list(first.values()) == [1]
    assert list(second.values()) == [0]
    assert kept is rendezvous._kept[0]
    for end in [*first, *second]:
        end.close()


def test_a_started_rank_that_ends_before_it_joins_is_told_of(port):
    def check() -> None:
        raise ChildProcessError("rank 1 ended with exit code 3 before it joined")

    with pytest.raises(ChildProcessError, match="exit code 3"):
        meet(place(0, port), check)

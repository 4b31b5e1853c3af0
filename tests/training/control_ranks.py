"""Run by test_control.py, once per rank, without torch: python control_ranks.py RANK WORLD PORT SCENARIO HOW."""

import ctypes
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Client, Listener

from netslim.training.control import LOST, Control, Failure

PATIENCE = 1.0


def connect(rank: int, world: int, port: int) -> dict:
    if rank > 0:
        return {dial(("127.0.0.1", port), rank): 0}
    with Listener(("127.0.0.1", port), backlog=world) as listener:
        guests = [listener.accept() for _ in range(1, world)]
    return {guest: guest.recv() for guest in guests}


def dial(address: tuple[str, int], rank: int):
    while True:
        try:
            end = Client(address)
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            end.send(rank)
            return end


def block(how: str) -> None:
    """Never come back."""
    if how == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    if how == "socket":
        near, far = socket.socketpair()
        near.recv(far.fileno())
    if how == "sleep":
        time.sleep(1000)
    if how == "C":  # blocked where no signal handler of Python's can run
        ctypes.CDLL(None).pause()
        while True:
            ctypes.CDLL(None).sleep(1000)
    while how == "busy":
        pass


def raises_while_others(how: str, control: Control) -> None:
    with control.call() as call:
        if control.rank == 1:
            control.fail(Failure(1, "bad image", 5, call, patience=PATIENCE, details="Traceback: line 7\n"))
            control.gather(call, b"")
            control.from_rank_zero(call, b"")
        block(how)


def nobody_listens(_: str, control: Control) -> None:
    """Output and the sweep are gone: the processes end all the same."""
    os.close(2)
    control.tell = lambda line: os.write(2, line.encode())
    raises_while_others("sleep", control)


def is_killed(rank: str, control: Control) -> None:
    with control.call() as call:
        if control.rank == int(rank):
            os.kill(os.getpid(), signal.SIGKILL)
        control.from_rank_zero(call + 99, b"") if control.rank else block("sleep")


def is_silent(how: str, control: Control) -> None:
    """Rank 1 does not let any of its threads run for longer than the others would wait."""
    with control.call() as call:
        if control.rank == 1 and how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)  # the test sends SIGCONT
        if control.rank == 1 and how == "interpreter":
            ctypes.PyDLL(None).sleep(5)  # PyDLL keeps the interpreter's lock
        control.gather(call, b"")
        control.from_rank_zero(call, b"go on")


def gets_sigterm(how: str, control: Control) -> None:
    with control.call():
        if control.rank == 0:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        block(how)


def fails_where_all_learn_it(_: str, control: Control) -> None:
    for _ in range(2):
        with control.call() as call:
            if control.rank == 1:
                control.fail(Failure(1, "disk full", 5, call, patience=PATIENCE))
            said = control.gather(call, b"from %d" % control.rank)
            print(control.from_rank_zero(call, b" ".join(said)).decode(), flush=True)
    time.sleep(2 * PATIENCE)
    with control.call() as call:
        control.from_rank_zero(call, b"")


def ends_early(_: str, control: Control) -> None:
    """Rank 1 is done; rank 0 goes on without it, and without needing it."""
    if control.rank == 0:
        time.sleep(LOST + 2)


def work() -> None:
    os.closerange(1, 3)  # the test waits for their end
    time.sleep(20)


def idles(_: str, control: Control) -> None:
    """A job that trains: what does the connection cost it?"""
    time.sleep(0.5)
    clock = time.pthread_getcpuclockid(control._thread.ident)
    before = time.clock_gettime(clock)
    with control.call() as call:
        time.sleep(2)
        control.gather(call, b"")
        control.from_rank_zero(call, b"")
    print(f"cheap: {time.clock_gettime(clock) - before < 0.005}", flush=True)


def has_workers(how: str, control: Control) -> None:
    """A forked child, such as a data loader's worker, is ended by SIGTERM, or outlives its rank."""
    with control.call() as call:
        if control.rank == 1:
            worker = get_context("fork").Process(target=work)
            worker.start()
            if how == "killed rank":
                os.kill(os.getpid(), signal.SIGKILL)
            worker.terminate()
            worker.join()
        control.gather(call, b"")
        control.from_rank_zero(call, b"")
        time.sleep(1)


def main(rank: int, world: int, port: int, scenario: str, how: str) -> None:
    control = Control(rank, tell=lambda line: print(f"told: {line}", flush=True))
    control.start()
    control.connect(connect(rank, world, port))
    globals()[scenario](how, control)
    control.close()
    print(f"threads left: {threading.active_count() - 1}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:6])

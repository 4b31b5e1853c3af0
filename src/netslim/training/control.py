"""The control connection of a data-parallel job: from rank 0 to every other rank, watched by a thread of each process.

Collectives wait for each other without end when one process fails alone. Here a failure is heard whatever the main
thread waits for (a collective, a lock, a file), and so is SIGTERM. A process that ends closes its connection at once,
however it ends; the kernel's keepalive finds a machine that is lost. A process that only computes for a long time
keeps its connection open: nobody takes it for dead. Without messages the thread sleeps and costs nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

SAY = 1.0  # seconds after which a process that fails alone prints its error
END = 10.0  # seconds after which the others end, unless they come to the same call and learn the error there
LOST = 5.0  # seconds after which they end when the connection is lost: they may just be leaving the last call

STOPPED = "stopped by SIGTERM; the same command goes on from the last whole epoch"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Failure:
    """Why this job cannot go on."""

    rank: int
    line: str
    code: int  # the exit code of every process
    call: int | None = None  # which call it failed in; None: the process itself has ended, or will
    patience: float = END
    details: str = ""  # what this rank prints more, such as a traceback


class Control:
    """One process's end of the connection.

    Args:
        rank: of this process.
        speaks: whether this process prints what happened on another rank (one per machine does).
        kill: called before this process ends itself: ends the processes that it started.
        tell: called with the reason, in one line, before this process ends itself.
    """

    def __init__(
        self, rank: int, *, speaks: bool = True, kill: Callable[[], None] = lambda: None,
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:  # fmt: skip
        self.rank, self.speaks, self.kill, self.tell = rank, speaks, kill, tell
        self.failure: Failure | None = None
        self._connections: dict[Connection, int] = {}  # -> the rank at its other end
        self._others: list[int] = []  # the ranks that were connected
        self._begun, self._open = 0, set[int]()  # calls: how many this process has begun, which it is in
        self._inbox: dict[tuple[int, int], bytes] = {}  # (call, rank) -> what it said
        self._news, self._sending = threading.Condition(), threading.Lock()
        self._since, self._said, self._closed = 0.0, False, False
        self._woken, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="netslim-control")

    def start(self) -> None:
        """Watch for SIGTERM from now on. Only the main thread may call this."""
        for end in (self._woken, self._waker):
            end.setblocking(False)
        signal.signal(signal.SIGTERM, lambda *_: None)  # the thread ends the process; the main thread may be blocked
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=self._forget)
        self._thread.start()

    def connect(self, connections: Mapping[Connection, int]) -> None:
        """Watch these too (connection -> rank at its other end)."""
        self._connections, self._others = {**connections}, sorted(connections.values())
        self._wake()

    def close(self) -> None:
        """End the thread, and close everything."""
        self._closed = True
        self._wake()
        self._thread.join()
        signal.set_wakeup_fd(-1)
        self._close_all()

    @contextlib.contextmanager
    def call(self) -> Iterator[int]:
        """A step that all ranks take: inside it this process needs the others. Gives the step's number."""
        self._begun += 1
        number = self._begun
        self._open.add(number)
        try:
            yield number
        finally:
            self._open.discard(number)

    def from_rank_zero(self, call: int, message: bytes) -> bytes:
        """Rank 0's message, on every rank."""
        if self.rank == 0:
            self._send((call, message), to=list(self._connections))
            return message
        return self._hear(call, 0)

    def gather(self, call: int, message: bytes) -> list[bytes]:
        """The messages of ranks 1, 2, … for rank 0, which gets them in this order; [] on the others."""
        if self.rank == 0:
            return [self._hear(call, rank) for rank in self._others]
        self._send((call, message), to=list(self._connections))
        return []

    def fail(self, failure: Failure) -> None:
        """Let all ranks know. The first failure counts; what follows from it is not reported."""
        with self._news:
            if self.failure is not None and self._matters(self.failure):
                return
            self.failure, self._since, self._said = failure, time.monotonic(), False
        if self.rank in (0, failure.rank):
            self._send(failure, to=[end for end, rank in list(self._connections.items()) if rank != failure.rank])
        self._wake()

    def lost_another(self, seconds: float = 2.0) -> bool:
        """Whether another rank has ended, or is found to have within some seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.failure is not None and self.failure.rank != self.rank and self.failure.call is None:
                return True
            time.sleep(0.05)
        return False

    def _send(self, message: Any, to: list[Connection]) -> None:
        with self._sending:
            for connection in to:
                with contextlib.suppress(OSError):  # it is gone: the thread sees that too
                    connection.send(message)

    def _hear(self, call: int, rank: int) -> bytes:
        with self._news:
            self._news.wait_for(lambda: (call, rank) in self._inbox)
            return self._inbox.pop((call, rank))

    def _watch(self) -> None:
        while not self._closed:
            sources = wait([self._woken, *self._connections], timeout=0.2 if self.failure else None)
            for source in sources:
                if isinstance(source, Connection):
                    self._receive(source)
                elif signal.SIGTERM in self._woken.recv(1024):
                    self.fail(Failure(self.rank, STOPPED, 128 + signal.SIGTERM, patience=0))
            if self.failure is not None:
                self._judge(self.failure)

    def _receive(self, source: Connection) -> None:
        rank = self._connections[source]
        try:
            message = source.recv()
        except (EOFError, OSError):
            del self._connections[source]
            source.close()
            self._lose(rank)
            return
        if isinstance(message, Failure):
            self.fail(message)
        else:
            call, said = message
            with self._news:
                self._inbox[call, rank] = said
                self._news.notify()

    def _lose(self, rank: int) -> None:
        if self.failure is not None and self.failure.rank == rank:
            self._since = min(self._since, time.monotonic() + LOST - END)  # it has said why; it will not come any more
        line = "its process was killed or ended early, or its machine is lost; its own output may say more"
        self.fail(Failure(rank, line, 1, patience=LOST))

    def _matters(self, failure: Failure) -> bool:
        """Whether this process needs the rank that failed: it has not come to the call, or not got through it."""
        if failure.patience == 0:
            return True
        if failure.call is None:
            return bool(self._open)
        return failure.call > self._begun or failure.call in self._open

    def _judge(self, failure: Failure) -> None:
        age, mine = time.monotonic() - self._since, failure.rank == self.rank
        if not self._matters(failure):
            self.failure = None if failure.call is not None else failure
            return
        if mine and age >= SAY and not self._said:
            self._said = True
            _say(f"netslim: rank {failure.rank} failed: {failure.line}\n{failure.details}")
        if age >= failure.patience * (1 + mine / 5):  # last: else the others would see its connections end first
            self._end(failure)

    def _end(self, failure: Failure) -> None:
        stopped = failure.line == STOPPED
        line = failure.line if stopped else f"rank {failure.rank} failed: {failure.line}"
        if (stopped and self.rank == 0) or (not stopped and self.speaks and failure.rank != self.rank):
            _say(f"netslim: {line}" + ("\n" if stopped else "; stopping\n"))
        try:
            self.tell(line)
            self.kill()
            for child in multiprocessing.active_children():
                child.kill()
        finally:
            os._exit(failure.code)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def _forget(self) -> None:
        """In a forked child, such as a data loader's worker: its signals and its end are its own."""
        if not self._closed:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._close_all()
            self._closed = True
        _release()

    def _close_all(self) -> None:
        for pipe in (self._woken, self._waker):
            pipe.close()
        for connection in self._connections:
            connection.close()
        self._connections = {}


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody listens any more
        print(text, end="", file=sys.stderr, flush=True)


def _hold() -> None:
    """SIGTERM waits: a child that gets it before it has forgotten this process's pipe would stop the job."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def end_with(parent: int) -> None:
    """Ask the kernel (Linux) for SIGTERM when the process that started this one dies, and end now if it has died."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)

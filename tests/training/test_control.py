"""Three real processes and their control connection. Oracle: exit codes, output, and the clock."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SCRIPT = str(Path(__file__).with_name("control_ranks.py"))
WORLD = 3


def run(scenario: str, how: str = "", meanwhile=lambda processes: None) -> tuple[list[int], list[str], float]:
    """Exit code and output of each rank, and how long it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(WORLD), str(port), scenario, how],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(WORLD)
    ]  # fmt: skip
    try:
        meanwhile(processes)
        outputs = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs, time.monotonic() - start


@pytest.mark.parametrize("how", ["lock", "socket", "sleep", "C", "busy"])
def test_a_rank_that_fails_alone_ends_the_others_whatever_they_wait_for(how):
    codes, outputs, seconds = run("raises_while_others", how)
    assert codes == [5, 5, 5]
    assert outputs[1].startswith("netslim: rank 1 failed: bad image\nTraceback: line 7\n")
    for others in (outputs[0], outputs[2]):
        assert others == "netslim: rank 1 failed: bad image; stopping\ntold: rank 1 failed: bad image\n"
    assert seconds < 30


def test_the_ranks_end_also_when_nobody_listens():
    codes, _, seconds = run("nobody_listens")
    assert codes == [5, 5, 5]
    assert seconds < 30


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_killed_rank_ends_the_others(rank):
    codes, outputs, seconds = run("is_killed", str(rank))
    assert codes == [-9 if rank == other else 1 for other in range(WORLD)]
    for other in {0, 1, 2} - {rank}:
        assert outputs[other].startswith(f"netslim: rank {rank} failed: its process was killed or ended early")
    assert seconds < 30


def test_a_rank_that_holds_the_interpreter_is_not_taken_for_dead():
    codes, outputs, seconds = run("is_silent", "interpreter")
    assert codes == [0, 0, 0], outputs
    assert seconds > 5


def test_a_stopped_rank_is_not_taken_for_dead():
    codes, outputs, _ = run(
        "is_silent", "stopped", lambda all: (time.sleep(5), os.kill(all[1].pid, signal.SIGCONT))
    )  # fmt: skip
    assert codes == [0, 0, 0], outputs


@pytest.mark.parametrize("how", ["lock", "C", "busy"])
def test_sigterm_ends_all_whatever_they_wait_for(how):
    codes, outputs, _ = run("gets_sigterm", how)
    assert codes == [143, 143, 143]
    assert outputs[0].startswith("netslim: stopped by SIGTERM; the same command goes on from the last whole epoch\n")
    assert "netslim" not in outputs[1]  # once is enough


def test_an_error_that_all_learn_ends_nobody():
    codes, outputs, _ = run("fails_where_all_learn_it")
    assert codes == [0, 0, 0]
    assert outputs == 3 * ["from 1 from 2\nfrom 1 from 2\nthreads left: 0\n"]


def test_a_rank_that_has_finished_may_go():
    codes, outputs, _ = run("ends_early")
    assert (codes, outputs) == ([0, 0, 0], 3 * ["threads left: 0\n"])


def test_it_costs_a_training_nothing():
    """Less than 5 ms of processor time in two seconds with one message."""
    codes, outputs, _ = run("idles")
    assert (codes, outputs) == ([0, 0, 0], 3 * ["cheap: True\nthreads left: 0\n"])


def test_sigterm_for_a_forked_child_is_not_for_the_job():
    codes, outputs, _ = run("has_workers", "terminated")
    assert codes == [0, 0, 0], outputs


def test_a_forked_child_does_not_hide_the_end_of_its_rank():
    codes, _, seconds = run("has_workers", "killed rank")
    assert codes == [1, -9, 1]
    assert seconds < 30


def test_nothing_is_left_behind_in_this_process():
    """The control connection belongs to jobs of several processes: one process has none."""
    assert not any(thread.name == "netslim-control" for thread in threading.enumerate())
    assert signal.set_wakeup_fd(-1) == -1


def test_importing_it_costs_nothing():
    loaded = "import sys, netslim.training.control; print([name for name in sys.modules if name == 'torch'])"
    printed = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"

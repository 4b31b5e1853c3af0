"""Leases of fake devices, taken by real processes. Oracle: the log of who held what and when, read afterwards."""

import math
import multiprocessing
import os
import signal
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from netslim.launch import gpu_lease, job_process
from netslim.launch import job as one_job

DEVICES = ["0", "1", "2"]
PROCESSES = multiprocessing.get_context("fork")
SLACK = 0.5  # seconds that a look at the locks may take on a busy machine


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NETSLIM_LEASES", str(tmp_path / "leases"))


class Job:
    """A process that holds ``count`` devices for some seconds."""

    def __init__(self, seconds: float, count: int = 1) -> None:
        self.told, tell = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=self._work, args=(tell, seconds, count))
        self.process.start()
        tell.close()

    @staticmethod
    def _work(tell: Connection, seconds: float, count: int) -> None:
        asked = time.monotonic()
        with gpu_lease.hold(DEVICES, count) as held:
            tell.send((held, asked, time.monotonic()))
            time.sleep(seconds)
            released = time.monotonic()
        tell.send(released)

    def end(self) -> None:
        self.told.close()
        self.process.join(10)
        self.process.close()


def test_twelve_uneven_jobs_on_three_devices():
    jobs = [Job(seconds) for seconds in (0.9, 0.1, 0.3, 0.1, 0.6, 0.2, 1.2, 0.1, 0.4, 0.1, 0.2, 0.5)]
    held = []  # (device, asked, taken, released) of each job
    for job in jobs:
        (device,), asked, taken = job.told.recv()
        held.append((device, asked, taken, job.told.recv()))
        job.end()
    for device in DEVICES:
        mine = sorted((taken, released) for name, _, taken, released in held if name == device)
        following = [*(taken for taken, _ in mine[1:]), math.inf]
        for (_, released), taken in zip(mine, following, strict=True):
            assert released <= taken  # never held by two
            waiting = any(asked < released and other > released + SLACK for _, asked, other, _ in held)
            assert not waiting or taken <= released + SLACK  # never idle while a job waits


def test_jobs_that_want_two_of_three_do_not_block_each_other(monkeypatch):
    take = gpu_lease._take
    monkeypatch.setattr(gpu_lease, "_take", lambda files, wanted, mine, held: take(files, 1, mine, held))  # one by one
    jobs = [Job(0.05, count=2) for _ in range(6)]
    for job in jobs:
        assert job.told.poll(20)
        assert len(set(job.told.recv()[0])) == 2
        job.told.recv()
        job.end()


def test_a_killed_holder_releases_its_device():
    holders = [Job(60) for _ in DEVICES]
    devices = [holder.told.recv()[0] for holder in holders]
    assert sorted(devices) == [["0"], ["1"], ["2"]]
    waiter = Job(0)
    assert not waiter.told.poll(0.3)
    os.kill(holders[1].process.pid, signal.SIGKILL)
    assert waiter.told.poll(5)
    assert waiter.told.recv()[0] == devices[1]
    waiter.end()
    for holder in holders:
        holder.process.kill()
        holder.end()


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"3 devices asked for, 2 visible \(0, 1\)"), gpu_lease.hold(["0", "1"], 3):
        pass


def test_the_job_sees_only_its_own_device_from_the_first_data_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert gpu_lease.visible() == ["4", "6"]
    with gpu_lease.hold(["4"]), ExitStack() as until:
        build = gpu_lease.before(lambda word: (word, os.environ["CUDA_VISIBLE_DEVICES"]), 1, until)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"
        assert build("a") == ("a", "6")
        assert build("b") == ("b", "6")
    with gpu_lease.hold(["4", "6"], 2) as both:
        assert both == ["4", "6"]


def test_without_a_gpu_there_is_nothing_to_lease(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu_lease.visible() == []


def test_the_locks_are_the_users_own_on_this_machine(monkeypatch):
    assert gpu_lease.folder() == Path(os.environ["NETSLIM_LEASES"])
    monkeypatch.delenv("NETSLIM_LEASES")
    assert gpu_lease.folder().name == f"netslim-{os.getuid()}"


LEASED = [  # launcher, trainer.devices, what the job sees before and after its first data
    ("basic", 1, "4,6,7", "4"),
    ("joblib", 1, "4,6,7", "4"),
    ("joblib", 2, "4,6", "4,6"),
    ("joblib", "auto", "4,6,7", "4,6,7"),
    ("joblib", [1], "4,6,7", "4,6,7"),  # chosen by hand
    ("submitit_slurm", 1, "4,6,7", "4,6,7"),  # the scheduler's choice
    ("ray", 1, "4,6,7", "4,6,7"),
]


@pytest.mark.parametrize(("launcher", "devices", "before", "after"), LEASED)
def test_who_leases_and_when(launcher, devices, before, after, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(job_process, "possible", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    hydra = OmegaConf.create({"runtime": {"choices": {"hydra/launcher": launcher}}})
    monkeypatch.setattr(one_job, "_hydra", lambda: hydra)
    settings = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": devices}})
    arguments = {"data": dict}
    with ExitStack() as until:
        one_job._lease(settings, arguments, until)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == before
        arguments["data"]()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    for device in "467":
        with gpu_lease.hold([device]):  # all are free again
            pass

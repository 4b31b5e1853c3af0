"""Leases of fake devices, taken by real processes. Oracle: who says that it holds what, asked in turns."""

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from netslim.launch import gpu_lease, job_process, running
from netslim.launch import job as one_job

DEVICES = ["0", "1", "2"]
PROCESSES = multiprocessing.get_context("fork")
PATIENCE = 60  # seconds after which something never happens, on a busy machine too


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NETSLIM_LEASES", str(tmp_path / "leases"))


class Job:
    """A process that holds ``count`` devices until it is told to release them."""

    def __init__(self, count: int = 1, jobs_per_gpu: int = 1, devices: Sequence[str] = DEVICES) -> None:
        self.told, tell = PROCESSES.Pipe()
        self.process = PROCESSES.Process(target=self._work, args=(tell, devices, count, jobs_per_gpu))
        self.process.start()
        tell.close()

    @staticmethod
    def _work(tell: Connection, devices: Sequence[str], count: int, jobs_per_gpu: int) -> None:
        with gpu_lease.hold(devices, count, jobs_per_gpu) as held:
            tell.send(held)
            tell.recv()

    def release(self) -> None:
        self.told.send("enough")
        self.told.close()
        self.process.join(PATIENCE)
        self.process.close()


def next_holders(waiting: list[Job], number: int) -> list[tuple[Job, list[str]]]:
    """The next jobs of those that wait to say which devices they hold; they wait no longer."""
    found: list[tuple[Job, list[str]]] = []
    while len(found) < number:
        ready = wait([job.told for job in waiting], PATIENCE)
        assert ready, "a device is free and nobody takes it"
        for job in [job for job in waiting if job.told in ready]:
            waiting.remove(job)
            found.append((job, job.told.recv()))
    assert len(found) == number, "more hold devices than there are"
    return found


def test_twelve_uneven_jobs_on_three_devices():
    """In turns that no clock decides: one job releases its device, and one that waits takes just that one."""
    waiting, order = [Job() for _ in range(12)], random.Random(0)
    holding = next_holders(waiting, 3)
    assert sorted(device for _, (device,) in holding) == DEVICES
    while waiting:
        job, (device,) = holding.pop(order.randrange(len(holding)))
        assert not wait([other.told for other in waiting], 0.2)  # never held by two: all others wait
        job.release()
        ((other, taken),) = next_holders(waiting, 1)
        assert taken == [device]  # never idle while a job waits
        holding.append((other, taken))
    for job, _ in holding:
        job.release()


def test_jobs_that_want_two_of_three_do_not_block_each_other(monkeypatch):
    take = gpu_lease._take
    monkeypatch.setattr(gpu_lease, "_take", lambda files, wanted, mine, held: take(files, 1, mine, held))  # one by one
    waiting = [Job(count=2) for _ in range(6)]
    while waiting:
        ((job, held),) = next_holders(waiting, 1)
        assert len(set(held)) == 2
        job.release()


def test_three_jobs_on_each_of_two_devices():
    first, order = [Job(jobs_per_gpu=3, devices="01") for _ in range(2)], random.Random(0)
    holding = next_holders(first, 2)
    assert sorted(device for _, (device,) in holding) == ["0", "1"]  # none has two while the other is idle
    waiting = [Job(jobs_per_gpu=3, devices="01") for _ in range(8)]
    holding += next_holders(waiting, 4)
    while waiting:
        assert sorted(device for _, (device,) in holding) == ["0", "0", "0", "1", "1", "1"]
        assert not wait([other.told for other in waiting], 0.2)
        job, device = holding.pop(order.randrange(len(holding)))
        job.release()
        ((other, taken),) = next_holders(waiting, 1)
        assert taken == device
        holding.append((other, taken))
    for job, _ in holding:
        job.release()


def test_a_job_that_wants_a_device_alone_shares_it_with_nobody():
    sharing = [Job(jobs_per_gpu=2, devices="0") for _ in range(2)]
    holding = next_holders(sharing, 2)
    alone = Job(devices="0")
    assert not alone.told.poll(0.3)
    holding[0][0].release()
    assert not alone.told.poll(0.3)  # one slot is still held
    os.kill(holding[1][0].process.pid, signal.SIGKILL)
    assert alone.told.poll(PATIENCE)
    assert alone.told.recv() == ["0"]
    later = Job(jobs_per_gpu=16, devices="0")
    assert not later.told.poll(0.3)
    alone.release()
    assert later.told.poll(PATIENCE)
    later.told.recv()
    later.release()


def test_so_many_jobs_on_one_device_are_refused():
    for share in (0, 17):
        with pytest.raises(ValueError, match=f"jobs_per_gpu={share} cannot be; give 1 to 16"):
            gpu_lease.slots("0", share)
    with pytest.raises(ValueError, match="jobs_per_gpu=17 is too large; give 16 or fewer"):
        running.jobs_per_gpu(OmegaConf.create({"jobs_per_gpu": 17}))


def test_a_killed_holder_releases_its_device():
    holders = [Job() for _ in DEVICES]
    devices = [holder.told.recv() for holder in holders]
    assert sorted(devices) == [["0"], ["1"], ["2"]]
    waiter = Job()
    assert not waiter.told.poll(0.3)
    os.kill(holders[1].process.pid, signal.SIGKILL)
    assert waiter.told.poll(PATIENCE)
    assert waiter.told.recv() == devices[1]
    for job in (holders[0], holders[2], waiter):
        job.release()


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


@dataclass(frozen=True)
class Needs:
    """What a lease looks at of a job."""

    data: Callable[[], object]


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
    settings = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": devices}, "jobs_per_gpu": 1})
    with ExitStack() as until:
        asked = one_job._lease(settings, Needs(data=dict), until)
        assert os.environ["CUDA_VISIBLE_DEVICES"] == before
        asked.data()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    for device in "467":
        with gpu_lease.hold([device]):  # all are free again
            pass


def test_jobs_of_a_sweep_share_a_gpu_as_the_setting_says(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(job_process, "possible", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    monkeypatch.setattr(
        one_job, "_hydra", lambda: OmegaConf.create({"runtime": {"choices": {"hydra/launcher": "joblib"}}})
    )
    settings = OmegaConf.create({"trainer": {"accelerator": "auto", "devices": 1}, "jobs_per_gpu": 3})
    with ExitStack() as until:
        for _ in range(3):
            one_job._lease(settings, Needs(data=dict), until).data()
        fourth = Job(jobs_per_gpu=3, devices="4")
        assert not fourth.told.poll(0.3)
    assert fourth.told.poll(PATIENCE)
    fourth.told.recv()
    fourth.release()

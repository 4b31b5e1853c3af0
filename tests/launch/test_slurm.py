"""A sweep through a real Slurm on this machine: its daemons, with folders and ports of their own, on loopback."""

import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netslim.experiment.paths import load_jobs
from netslim.launch import slurm

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(daemon, path="/usr/sbin:/usr/bin") is None for daemon in ("munged", "slurmctld", "slurmd")),
        reason="needs Slurm: apt-get install slurm-wlm munge",
    ),
    pytest.mark.skipif(os.getuid() != 0, reason="Slurm's daemons need root"),
]

CONF = """
ClusterName=netslim
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/slurmd
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=10
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    with ExitStack() as probes:
        sockets = [probes.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def patiently(what: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 180) -> object:
    """What ``what`` gives as soon as it is true."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "waited in vain"
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """One node, this machine. Only what is started here is stopped here."""
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/slurm.XXXXXX"], text=True).strip())  # a short path
    host, cpus = platform.node().split(".")[0], os.cpu_count()
    (folder / "slurm.conf").write_text(CONF.format(host=host, cpus=cpus, folder=folder, ports=free_ports(2)))
    (folder / "ctld").mkdir()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    munge = ["--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/key"]
    munge += [f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/seed", f"--log-file={folder}/munge.log"]
    conf = ["-D", "-f", str(folder / "slurm.conf")]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as daemons:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin:/usr/bin")
        daemons.callback(shutil.rmtree, folder, ignore_errors=True)
        for command in (["munged", *munge], ["slurmctld", *conf], ["slurmd", *conf]):
            log = daemons.enter_context(open(folder / f"{command[0]}.out", "w"))
            daemon = subprocess.Popen(command, stdout=log, stderr=log)
            daemons.callback(daemon.wait)
            daemons.callback(daemon.terminate)
            if command[0] == "munged":
                patiently((folder / "munge.socket").exists, daemon, 20)
        idle = ["sinfo", "--noheader", "--format=%T"]
        patiently(lambda: subprocess.run(idle, capture_output=True, text=True).stdout.strip() == "idle", seconds=60)
        daemons.callback(subprocess.run, ["scancel", "--user=root"])
        yield folder


def sweep(outputs: Path, *more: str) -> subprocess.Popen:
    """λ = 0 and λ = 0.01, one Slurm job each."""
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=null"]
    words = [
        "experiment=lab4_digits",
        "net.layers=[16,16,M,32,32,M,64,64]",
        "method=paper",
        "finetune.epochs=0",
        "lambda=0,1e-2",
        "ratio=0.5",
        *more,
        f"outputs={outputs}",
    ]
    command = [sys.executable, "-m", "netslim", "-m", *launcher, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen, code: int) -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == code, printed
    return printed


def running(outputs: Path, strength: str) -> dict[str, object]:
    """The status of a job once it has trained for an epoch; empty before."""
    if not list(outputs.glob(f"lab4_digits/train_lambda={strength}_*/last.ckpt")):
        return {}
    statuses = [json.loads(path.read_text()) for path in outputs.glob("lab4_digits/logs/status/*/*.json")]
    return next(status for status in statuses if f"lambda={strength} " in status.get("command", ""))


def said(outputs: Path) -> str:
    """What the jobs printed, all attempts."""
    return "".join(path.read_text() for path in outputs.glob("lab4_digits/logs/.submitit/*/*_log.out"))


def test_a_killed_job_is_named_the_other_finishes_and_the_same_command_runs_what_is_missing(cluster, tmp_path):
    process = sweep(tmp_path, "epochs=30")
    os.kill(patiently(lambda: running(tmp_path, "0.01"), process)["pid"], signal.SIGKILL)
    printed = end(process, 1)
    assert [job.strength for job in load_jobs(tmp_path / "lab4_digits")] == [0.0]
    why, again, remedy = printed.splitlines()[-3:]
    assert "left the queue without a result (killed, cancelled, or its node failed)" in why
    assert {"netslim", "lambda=0.01", "ratio=0.5"} <= set(again.split())
    assert remedy == "The same command runs only what is missing."

    before = said(tmp_path).count("lambda=0_seed=0 | epoch")
    end(sweep(tmp_path, "epochs=30"), 0)
    assert [job.strength for job in load_jobs(tmp_path / "lab4_digits")] == [0.0, 0.01]
    assert before == said(tmp_path).count("lambda=0_seed=0 | epoch") == 30
    assert "going on from last.ckpt" in said(tmp_path)


def test_a_preempted_job_and_one_out_of_time_are_requeued_and_go_on(cluster, tmp_path):
    process = sweep(tmp_path, "epochs=60")
    patiently(lambda: running(tmp_path, "0") and running(tmp_path, "0.01"), process)
    preempted, out_of_time = sorted(slurm.queue())
    subprocess.run(["scontrol", "requeue", preempted], check=True)  # SIGTERM, as preemption does
    subprocess.run(["scancel", "--signal=USR2", out_of_time], check=True)  # what signal_delay_s before the limit comes
    end(process, 0)
    assert [job.strength for job in load_jobs(tmp_path / "lab4_digits")] == [0.0, 0.01]
    for strength in ("0", "0.01"):
        assert said(tmp_path).count(f"train_lambda={strength}_seed=0 | epoch 60/60") == 1
    assert said(tmp_path).count("going on from last.ckpt") == 2


def test_a_job_of_two_tasks_is_one_data_parallel_training(cluster, tmp_path):
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.launcher.tasks_per_node=2"]
    end(sweep(tmp_path, "epochs=2", *two), 0)
    for job in load_jobs(tmp_path / "lab4_digits"):
        assert job.train.run.hardware.startswith("2 processes")
        assert job.train.test.total == 364
    for strength in ("0", "0.01"):
        assert said(tmp_path).count(f"train_lambda={strength}_seed=0 | epoch 2/2") == 1


def test_two_tasks_without_a_data_parallel_trainer_are_refused(cluster, tmp_path):
    printed = end(sweep(tmp_path, "epochs=2", "hydra.launcher.tasks_per_node=2"), 1)
    assert "2 processes were started for a training on one device; add trainer=ddp" in printed

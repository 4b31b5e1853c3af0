"""Jobs that end badly, in real sweeps of each launcher: the others finish, and the sweep says what did not."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from netslim.experiment.paths import load_jobs

LAUNCHERS = [
    "basic",
    pytest.param("joblib", marks=pytest.mark.slow),
    pytest.param("ray", marks=pytest.mark.slow),
]
REASONS = {
    "raise": "RuntimeError: out of luck and of words",
    "refuse": "not with me",
    "exit": "ended with exit code 3 and no result",
    "kill": "killed by SIGKILL (out of memory?)",
    "term": "stopped by SIGTERM",
}


@pytest.fixture
def netslim(tmp_path, monkeypatch):
    """Runs ``netslim`` and gives what it printed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    (tmp_path / "marks").mkdir()
    settings = [
        "net._target_=deadly.Network",
        "callbacks=[{_target_:deadly.End}]",
        f"+net.marks={tmp_path / 'marks'}",
        "~net.layers",
        "~net.in_channels",
    ]
    words = ["net=vgg_digits", "epochs=1", "finetune.epochs=0", "threads=1", *settings, f"outputs={tmp_path}"]

    def run(*more: str, code: int) -> str:
        command = [sys.executable, "-m", "netslim", *more, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        assert done.returncode == code, done.stdout
        return done.stdout

    return run


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_others_finish_and_the_same_command_runs_only_what_is_missing(launcher, netslim, tmp_path):
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher}_launcher")
    without_gpu = ["hydra.launcher.ray.remote.num_gpus=0"] if launcher == "ray" else []
    command = ["-m", f"hydra/launcher={launcher}", *without_gpu, f"+net.how=nothing,{','.join(REASONS)}"]
    printed = netslim(*command, code=1)
    assert len(load_jobs(tmp_path / "vgg_digits_digits")) == 1
    *_, title, summary = printed.rpartition("netslim: 5 of 6 jobs did not finish:\n")
    assert title, printed
    lines = [line.strip() for line in summary.splitlines()]
    assert lines[0::2][:5] == list(REASONS.values())
    assert [next(word for word in shlex.split(line) if "how" in word) for line in lines[1::2][:5]] == [
        f"+net.how={how}" for how in REASONS
    ]
    assert lines[10] == "The same command runs only what is missing."

    if launcher != "basic":
        return
    again = netslim(*command, code=0)
    assert again.count("| epoch 1/1 |") == 5
    assert len(load_jobs(tmp_path / "vgg_digits_digits")) == 6


@pytest.mark.slow
def test_a_killed_worker_of_joblib_takes_its_jobs_with_it_and_the_sweep_goes_on_by_itself(netslim, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    command = ["-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+net.how=nothing,worker,refuse"]
    printed = netslim(*command, code=1)
    assert "a worker process was killed; going on with the jobs that have not ended" in printed
    assert len(load_jobs(tmp_path / "vgg_digits_digits")) == 2
    assert "netslim: 1 of 3 jobs did not finish:\n  not with me\n" in printed

"""What a command would do, against what it then does. Oracle: the folders that a real run leaves."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from netslim.experiment import paths
from netslim.launch import app, ending, job_process, job_status
from tests.commands import call

TINY = [
    "data=synthetic", "data.source.size=8", "data.source.train=256", "data.val_size=16", "data.batch_size=16",
    "net.layers=[4,M,4]", "net.in_channels=3", "name=a",
]  # fmt: skip
SWEEP = ["-m", "ratio=0.25,0.5", "lambda=0,1e-3", "epochs=2", "finetune.epochs=1", *TINY]


def test_a_dry_run_says_what_the_run_does_and_leaves_nothing(tmp_path, monkeypatch, capfd):
    call("--dry-run", *SWEEP, f"outputs={tmp_path}")
    said = capfd.readouterr().out
    assert not list(tmp_path.iterdir())
    assert f"jobs:      4, to {tmp_path / 'a'}\n" in said
    assert "stages:    2 train, 4 slim, 4 finetune;" in said
    assert "finished:  none\n" in said
    assert "for 8 epochs" in said  # two trainings of two, four fine-tunings of one

    call(*SWEEP, f"outputs={tmp_path}", "logger=none", "quiet=true")
    (plan,) = (json.loads(path.read_text()) for path in tmp_path.rglob("plan.json"))
    kinds = ("train_*", "slim_*", "finetune_*")
    assert set(map(Path, plan)) == {path for kind in kinds for path in (tmp_path / "a").glob(kind)}
    assert sum(plan.values()) == 8
    capfd.readouterr()

    call("--dry-run", *SWEEP, f"outputs={tmp_path}")
    said = capfd.readouterr().out
    assert "finished:  2 train, 4 slim, 4 finetune\n" in said
    assert "time:      about 0 s, for 0 epochs" in said


def test_quiet_leaves_the_table_and_the_paths(tmp_path, monkeypatch, capfd):
    call(*SWEEP, f"outputs={tmp_path}", "quiet=true")
    out, err = capfd.readouterr()
    assert err == ""
    lines = [line for line in out.splitlines() if line.strip()]
    assert lines[-2:] == [
        f"Report:      {tmp_path}/a/report/index.html",
        f"TensorBoard: tensorboard --logdir {tmp_path}/a",
    ]
    rows = [line.split() for line in lines if "%" in line]
    jobs = paths.load_jobs(tmp_path / "a")
    assert [(row[0], row[2], row[4]) for row in rows] == [
        (f"{100 * job.ratio:g}", {0.0: "0", 1e-3: "1e-3"}[job.strength], f"{100 * job.train.test.score:.2f}")
        for job in sorted(jobs, key=lambda job: (job.ratio, job.strength))
    ]
    assert [float(row[7]) for row in rows] == pytest.approx(
        [100 * job.finetune.test.score for job in sorted(jobs, key=lambda job: (job.ratio, job.strength))], abs=0.006
    )


def test_lines_for_people_have_no_digests_and_say_what_is_left(tmp_path, monkeypatch, capfd):
    call(*SWEEP, f"outputs={tmp_path}", "logger=none")
    out = capfd.readouterr().out
    assert "job 3 of 4 | λ = 0, prune ratio 50 %, seed 0" in out
    assert re.search(r"train_lambda=0_seed=0 \| epoch 1/2 \| loss .* \| left: job \d+ s, sweep \d+ s", out)
    digests = {path.name.rsplit("_", 1)[1] for path in (tmp_path / "a").glob("*_*")}
    assert digests
    assert not [digest for digest in digests if digest in out]


def test_a_sweep_is_tried_before_it_trains(tmp_path, monkeypatch, capfd):
    """Job 2 can only be refused by its network: nothing of job 1 is there."""
    GlobalHydra.instance().clear()
    ending.started.clear()
    monkeypatch.setattr(sys, "argv", ["netslim", "-m", "ratio=0.5,0.9", "lambda=0", *TINY, f"outputs={tmp_path}"])
    with pytest.raises(SystemExit) as end:
        app.main()
    assert end.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("highest reachable ratio is 0.75 (job 2 of 2: ratio=0.9)")
    assert not list(tmp_path.iterdir())


def test_a_debug_run_is_marked_and_apart(tmp_path, monkeypatch, capfd):
    words = ["lambda=0", "ratio=0.5", "epochs=3", "finetune.epochs=1", *TINY, f"outputs={tmp_path}", "logger=none"]
    call(*words, "debug=true")
    assert [path.name for path in tmp_path.iterdir()] == ["a_debug"]
    (trial,) = paths.load_jobs(tmp_path / "a_debug")
    limits = {"limit_train_batches": 2, "limit_val_batches": 2, "limit_test_batches": 2}
    assert [record.limits for record in (trial.train, trial.slim, trial.finetune)] == [limits] * 3
    assert len(trial.train.epochs) == 3
    page = (tmp_path / "a_debug" / "report" / "report.md").read_text()
    assert "cut short by limit\\_train\\_batches=2" in page

    call(*words)
    (whole,) = paths.load_jobs(tmp_path / "a")
    assert whole.train.limits == {}
    assert whole.train.name != trial.train.name
    call(*words, "+trainer.limit_val_batches=0", "name=b")
    (cut,) = paths.load_jobs(tmp_path / "b")
    assert cut.train.limits == {"limit_val_batches": 0}
    assert "cut short" not in (tmp_path / "a" / "report" / "report.md").read_text()


def test_work_apart_gives_its_result_and_says_how_it_died():
    assert job_process.apart(lambda: [os.getpid()]) != [os.getpid()]
    with pytest.raises(ChildProcessError, match="ended with exit code 7"):
        job_process.apart(lambda: os._exit(7))


def test_without_a_plan_nothing_is_known(tmp_path):
    assert job_status.plan(tmp_path) == {}

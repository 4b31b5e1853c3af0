"""A module of the user's own, outside the package, adds a score, a schedule and stages through the command line.

Oracles: the kept channels sorted by hand from the recorded γ, files counted, a log that the module itself writes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from netslim.experiment import paths, records
from netslim.files import read_json, read_tensors

MODULE = '''
import os
from pathlib import Path

import netslim
from netslim.experiment.networks import network_after
from netslim.experiment.records import Run, StageRecord
from netslim.experiment.stage import Stage
from netslim.measure.environment import describe_run
from netslim.method.scores import Scores


class Reversed:
    """The largest are removed first."""

    needs_data = False

    def __call__(self, network, batches, seed):
        sizes = {name: bn.weight.detach().abs() for name, bn in netslim.bn_layers(network).items()}
        return Scores({n: -g for n, g in sizes.items()}, {n: g == 0 for n, g in sizes.items()}, "-|γ|")


class Batches:
    """Looks at data; each layer's channels by their number, the last ones first."""

    needs_data = True

    def __call__(self, network, batches, seed):
        seen = [tuple(batch.shape[1:]) for batch in batches]
        note(f"{len(seen)} batches of {set(seen)}, seed {seed}")
        layers = netslim.bn_layers(network)
        value = {name: -bn.weight.detach().argsort().argsort().float() for name, bn in layers.items()}
        return Scores(value, {name: bn.weight == 0 for name, bn in layers.items()}, "place")


class TwoRounds:
    def rounds(self, ratio):
        return (ratio / 2, ratio)

    def during(self, ratio, epoch, epochs):
        return 0.0


class Gradual(TwoRounds):
    def during(self, ratio, epoch, epochs):
        return ratio * epoch / epochs


def note(line):
    with open(os.environ["NOTES"], "a") as file:
        file.write(line + "\\n")


class Gammas(StageRecord, kw_only=True):
    largest: float
    attempts: int


def largest(job, stages):
    """The largest γ after the training; it belongs to the training, whatever the ratio."""

    def work(folder, done):
        told = describe_run(job.command)
        note("largest")
        with open(folder / "attempts", "a") as file:
            file.write("x")
        if os.environ.get("FAIL"):
            raise ValueError("the stage of one's own has failed")
        network = network_after(job, job.data(), done.values())
        sizes = [bn.weight.abs().max().item() for bn in netslim.bn_layers(network).values()]
        return Gammas(largest=max(sizes), attempts=len((folder / "attempts").read_text()), run=Run(**told()))

    train = stages[0]
    return Stage("largest", (train.name,), {"of": train.name}, work, {"lambda": job.strength, "seed": job.seed}, Gammas)


def bytes_of(job, stages):
    class Bytes(StageRecord, kw_only=True):
        size: int

    def work(folder, done):
        (before,) = done.values()
        return Bytes(size=(before.folder / "slim.pt").stat().st_size)

    last = next(stage for stage in reversed(stages) if stage.kind == "finetune")
    labels = {"lambda": job.strength, "ratio": job.ratio, "seed": job.seed}
    return Stage("bytes", (last.name,), {"of": last.name}, work, labels, Bytes)
'''
WORDS = ["net=vgg_digits", "data=digits", "epochs=1", "finetune.epochs=1", "threads=1", "lambda=1e-3"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mydoors.py").write_text(MODULE)
    return tmp_path


def netslim(folder: Path, *words: str, code: int = 0, **variables: str) -> str:
    environment = {**os.environ, "NOTES": str(folder / "notes"), **variables}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder / "own"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "netslim", *words, f"outputs={folder / 'out'}", "name=s"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    assert done.returncode == code, done.stdout
    return done.stdout


def kinds(folder: Path) -> list[str]:
    return sorted(path.name.split("_")[0] for path in (folder / "out" / "s").glob("*_*") if path.is_dir())


def gammas(folder: Path, name: str) -> torch.Tensor:
    return torch.cat([torch.tensor(v).abs() for v in read_json(folder / "out" / "s" / name / "scales.json").values()])


@pytest.mark.slow
def test_a_score_of_ones_own_ranks_and_shares_the_training(own):
    netslim(own, *WORDS, "ratio=0.3")
    netslim(own, *WORDS, "ratio=0.3", "score._target_=mydoors.Reversed")
    assert kinds(own) == ["finetune", "finetune", "job", "job", "slim", "slim", "train"]
    paper, other = sorted(paths.load_jobs(own / "out" / "s"), key=lambda job: job.slim.unit, reverse=True)
    assert (paper.slim.unit, other.slim.unit) == ("|γ|", "-|γ|")
    sizes = gammas(own, other.train.name).sort().values
    removed = other.slim.removed
    assert removed == paper.slim.removed == int(0.3 * 224)
    assert paper.slim.threshold == pytest.approx(sizes[removed - 1].item())
    assert other.slim.threshold == pytest.approx(-sizes[-removed].item())
    assert other.slim.settings["score"] == {"_target_": "mydoors.Reversed"}
    assert "score" not in paper.slim.settings
    report = (own / "out" / "s" / "report" / "report.md").read_text()
    assert "score" in report  # two groups, told apart by it


@pytest.mark.slow
def test_a_score_from_a_folder_of_ones_own_sees_the_training_batches(own):
    conf = own / "conf" / "score"
    conf.mkdir(parents=True)
    (conf / "batches.yaml").write_text("_target_: mydoors.Batches\n")
    netslim(own, "--config-dir", str(own / "conf"), *WORDS, "ratio=0.3", "score=batches", "seed=3", "finetune.epochs=0")
    (line,) = (own / "notes").read_text().splitlines()
    assert line == "21 batches of {(1, 8, 8)}, seed 3"  # 1,290 training images in batches of 64
    (job,) = paths.load_jobs(own / "out" / "s")
    assert job.slim.unit == "place"
    assert netslim(own, "--config-dir", str(own / "conf"), *WORDS, "score=none", code=2).count("Traceback") == 0


@pytest.mark.slow
def test_stages_of_ones_own_are_done_once_resumed_and_part_of_the_jobs_record(own):
    both = "stages=[{_target_: mydoors.largest},{_target_: mydoors.bytes_of}]"
    failed = netslim(own, *WORDS, "ratio=0.3", both, code=2, FAIL="1")
    assert failed.splitlines()[-1] == "netslim: error: the stage of one's own has failed"
    for ratio in ("0.3", "0.5", "0.3"):
        netslim(own, *WORDS, f"ratio={ratio}", both)
    assert kinds(own) == ["bytes", "bytes", "finetune", "finetune", "job", "job", "largest", "slim", "slim", "train"]
    assert (own / "notes").read_text().splitlines() == ["largest"] * 2  # the attempt that failed, and one for both jobs
    sweep = own / "out" / "s"
    (folder,) = sweep.glob("largest_*")
    record = json.loads((folder / "record.json").read_text())
    assert folder.name.startswith("largest_lambda=0.001_seed=0_")
    assert record["attempts"] == 2  # it found what the attempt that failed had left
    assert record["largest"] == pytest.approx(max(gammas(own, paths.load_jobs(sweep)[0].train.name)).item())
    for path in sweep.glob("job_*/record.json"):
        job = records.read(path, records.JobRecord)
        (size,) = [json.loads((sweep / name / "record.json").read_text())["size"] for name in job.more[1:]]
        assert job.more[0] == folder.name
        assert size == (sweep / job.finetune / "slim.pt").stat().st_size
    assert "| largest | 1e-3 |" in (sweep / "report" / "report.md").read_text()  # with its wall-clock
    (folder / "record.json").unlink()
    last = subprocess.run([sys.executable, "-m", "netslim.report", str(sweep)], capture_output=True, text=True)
    assert last.returncode == 2
    assert f"{folder} has no record.json although a job names it" in last.stderr


@pytest.mark.slow
def test_a_schedule_of_two_rounds_slims_and_fine_tunes_twice(own):
    netslim(own, *WORDS, "ratio=0.5", "schedule._target_=mydoors.TwoRounds")
    assert kinds(own) == ["finetune", "finetune", "job", "slim", "slim", "train"]
    (job,) = paths.load_jobs(own / "out" / "s")
    first = records.read(own / "out" / "s" / job.more[0].name / "record.json", records.SlimRecord)
    assert (first.removed, first.ratio, job.slim.removed, job.slim.ratio) == (56, 0.25, 112, 0.5)
    assert (first.prunable, job.slim.prunable) == (224, 224)
    assert sum(layer.channels - layer.kept for layer in job.slim.layers) == 112
    assert job.slim.dense == first.dense  # compared with the dense network, not with that of the first round
    assert job.slim.small.params < first.small.params
    state = read_tensors(own / "out" / "s" / job.finetune.name / "slim.pt")["state"]
    assert (
        sum(value.numel() for key, value in state.items() if key.endswith(("weight", "bias"))) == job.slim.small.params
    )
    refused = netslim(own, *WORDS, "epochs=2", "schedule._target_=mydoors.Gradual", code=2)
    assert "Gradual removes channels inside the training (epoch 2) and in rounds after it; choose one" in refused


@pytest.mark.slow
def test_loggers_and_callbacks(own):
    (own / "own" / "mycallback.py").write_text(
        "import os\nfrom lightning import Callback\nclass Count(Callback):\n"
        "    def on_train_epoch_end(self, trainer, pl_module):\n"
        "        open(os.environ['NOTES'], 'a').write(f'{type(trainer.logger).__name__}\\n')\n"
    )
    words = [*WORDS, "ratio=0.5", "epochs=2", "callbacks=[{_target_: mycallback.Count}]"]
    netslim(own, *words, "logger=csv")
    assert (own / "notes").read_text().splitlines() == ["CSVLogger"] * 3
    sweep = own / "out" / "s"
    assert not list(sweep.rglob("events.*"))
    (table,) = sweep.glob("train_*/csv/0/metrics.csv")
    assert "accuracy/val" in table.read_text()
    netslim(own, *words, "logger=none", "seed=1")
    assert not list(sweep.glob("train_*seed=1*/csv"))
    (job,) = [job for job in paths.load_jobs(sweep) if job.seed == 0]
    assert job.train.settings["callbacks"] == [{"_target_": "mycallback.Count"}]
    assert "callbacks[0]=5 names no function" in netslim(own, *WORDS, "callbacks=[5]", code=2)
    assert "controls=scrath is not known; there is scratch" in netslim(own, *WORDS, "controls=[scrath]", code=2)

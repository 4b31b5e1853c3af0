"""Every score and penalty of conf/ through the command. Oracle: what their formulas say of the recorded layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from netslim.experiment import paths
from netslim.experiment.records import FinishedJob
from netslim.launch.command_line import CONF
from netslim.method.scores import needs_connections
from tests.commands import call

WORDS = ["net=vgg_digits", "data=digits", "epochs=1", "finetune.epochs=0", "threads=1", "lambda=1e-2", "ratio=0.3"]


def run(folder: Path, *words: str) -> None:
    call(*WORDS, *words, f"outputs={folder}", "name=s")


def kept(job: FinishedJob) -> list[tuple[int, int]]:
    return [(layer.kept, layer.channels) for layer in job.slim.layers]


def test_every_score_of_conf_is_one():
    names = ["layer_mean", "magnitude", "per_mac", "random", "taylor", "uniform", "variance"]
    made = [instantiate(OmegaConf.load(CONF / "score" / f"{name}.yaml")) for name in names]
    assert [score.needs_data for score in made] == [name == "taylor" for name in names]
    assert [needs_connections(score) for score in made] == [name in ("per_mac", "variance") for name in names]


@pytest.mark.slow
def test_scores_with_a_seed_with_data_and_with_connections_slim_what_one_training_made(tmp_path):
    for name in ("magnitude", "random", "taylor", "per_mac"):
        run(tmp_path, f"score={name}")
    assert len(list((tmp_path / "s").glob("train_*"))) == 1
    jobs = {job.slim.unit: job for job in paths.load_jobs(tmp_path / "s")}
    assert set(jobs) == {"|γ|", "|γ|, shuffled", "(γ∂L/∂γ + β∂L/∂β)²", "|γ| / layer mean / MACs^0.5"}
    assert {job.slim.removed for job in jobs.values()} == {int(0.3 * 224)}
    assert kept(jobs["|γ|, shuffled"]) == kept(jobs["|γ|"])
    assert jobs["|γ| / layer mean / MACs^0.5"].slim.macs_left < jobs["|γ|"].slim.macs_left


@pytest.mark.slow
def test_every_penalty_trains_a_network_of_its_own(tmp_path):
    names = sorted(path.stem for path in (CONF / "penalty").glob("*.yaml"))
    assert names == ["l1", "macs_l1", "polarization", "proximal"]
    for name in names:
        run(tmp_path, f"penalty={name}")
    jobs = {
        job.train.settings.get("penalty", {}).get("_target_", "L1").rpartition(".")[2]: job.train
        for job in paths.load_jobs(tmp_path / "s")
    }
    assert set(jobs) == {"L1", "MacsL1", "Polarization", "Proximal"}
    assert len({str(record.scales) for record in jobs.values()}) == 4
    assert jobs["Polarization"].budget is None
    assert jobs["MacsL1"].budget == jobs["L1"].budget
    assert jobs["Proximal"].budget == pytest.approx((jobs["L1"].budget or 0) * 0.1)  # without momentum 0.9

"""A vote of allocations. Oracles: the jobs of the single scores, and validation images counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import netslim
from netslim.data import InMemoryData, digits
from netslim.experiment import paths, pipeline, vote
from netslim.experiment.vote import Vote
from netslim.method.scores import Magnitude, Scores
from netslim.method.scoring.uniform import Uniform
from netslim.nets import VGG
from netslim.training.task import Metric


@dataclass(frozen=True)
class Job:
    score: Any


JOB: Any = Job(score=None)
SCORES = {"place in the layer": "uniform", "|γ| / layer mean": "layer_mean", "|γ|": "magnitude"}


def accuracy_on_validation(network: torch.nn.Module) -> float:
    data = InMemoryData(digits, title="d", mean=[0.305], std=[0.375], val_size=0.1)
    right = seen = 0
    for batch in data.val_dataloader():
        images, labels = data.on_after_batch_transfer(batch, 0)
        with torch.no_grad():
            right += int((network.eval()(images).argmax(1) == labels).sum())
        seen += len(labels)
    return right / seen


def test_the_best_of_equal_macs_on_validation_images_is_kept(tmp_path, job_of):
    words = ["ratio=null", "target_macs=0.4", "finetune.epochs=0", "lambda=1e-2", "epochs=3"]
    pipeline.run(tmp_path / "vote", job_of(*words, "score=vote"))
    (job,) = paths.load_jobs(tmp_path / "vote")
    found = {candidate.unit: candidate for candidate in job.slim.candidates}
    assert len(found) == 4
    assert all(each.macs <= 0.4 * job.slim.dense.macs for each in found.values())
    best = max(found.values(), key=lambda each: each.value)
    assert job.slim.unit == best.unit
    assert (job.slim.small.macs, job.slim.removed) == (best.macs, best.removed)
    for unit, name in SCORES.items():
        pipeline.run(tmp_path / name, job_of(*words, f"score={name}"))
        (alone,) = paths.load_jobs(tmp_path / name)
        small = netslim.load(tmp_path / name / alone.slim.name / "slim.pt", VGG([8, "M", 8, 4], in_channels=1))
        assert found[unit].value == pytest.approx(accuracy_on_validation(small))
        assert found[unit].macs == alone.slim.small.macs
        if unit == best.unit:
            assert job.slim.recalibrated == alone.slim.recalibrated


def test_the_smallest_wins_where_smaller_is_better(monkeypatch):
    monkeypatch.setattr(vote, "scores_of", lambda job, network, images: job.score(network))
    network = VGG([4, "M", 4], in_channels=1)

    def measure(scores: Scores) -> dict:
        value = {"|γ|": 0.3, "place in the layer": 0.1}[scores.unit]
        return {"slim": {"params": 1, "macs": 1}, "removed": 0, "recalibrated": {"metrics": {"error/val": value}}}

    job = replace(JOB, score=Vote(of=[Magnitude(), Uniform()]))
    for direction, winner in (("min", "place in the layer"), ("max", "|γ|")):
        scores, candidates = vote.elect(job, network, None, Metric("error", direction), measure)
        assert scores.unit == winner
        assert [each.value for each in candidates] == [0.3, 0.1]


def test_without_validation_images_it_is_refused_before_the_training(tmp_path, job_of):
    with pytest.raises(ValueError, match=r"score=vote chooses by validation images, .* set data.val_size=0.1"):
        pipeline.run(tmp_path, job_of("score=vote", "data.val_size=0"))
    assert not list(tmp_path.glob("*/record.json"))


def test_a_training_that_gets_smaller_does_not_vote(tmp_path, job_of):
    with pytest.raises(ValueError, match="Vote needs data, and a schedule that cuts inside the training"):
        pipeline.run(tmp_path, job_of("score=vote", "schedule=gradual"))


def test_one_score_is_no_vote():
    assert len(Vote(of=[Uniform(), Magnitude()]).of) == 2
    with pytest.raises(ValueError, match="needs at least two scores to choose from, got 1"):
        Vote(of=[Uniform()])

"""Oracle: jobs with round numbers, whose sentences were written by hand before they were computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from msgspec.structs import replace

from netslim.experiment.records import FinishedJob, Measured, Metric, Recalibrated, Test
from netslim.report import results
from netslim.report.sections.verdict import NO_CUT, Verdict


def of(correct: int, total: int = 10000) -> Test:
    return Test(correct=correct, total=total)


def cut(job: FinishedJob, strength: float, ratio: float, dense: Test, pruned: Test, final: Test, dead: float) -> Any:
    """A job in which 100 of 1000 parameters are left, and ``dead`` of 100 γ are dead."""
    train = replace(copy.deepcopy(job.train), test=dense, classes=10)
    train.scales = {"bn": [0.0] * round(100 * dead) + [0.5] * round(100 * (1 - dead))}
    slim = replace(
        copy.deepcopy(job.slim),
        removed=round(100 * ratio), prunable=100,
        dense=Measured(params=1000, macs=6000, test=dense), small=Measured(params=100, macs=2000, test=pruned),
        recalibrated=Recalibrated(test=pruned),
    )  # fmt: skip
    assert job.finetune
    return replace(
        job, strength=strength, ratio=ratio, train=train, slim=slim, finetune=replace(job.finetune, test=final)
    )


@pytest.fixture
def lab(job: FinishedJob) -> list[FinishedJob]:
    """A cut of 50 % that costs nothing with a penalty and 4 points without, one of 90 % that fails."""
    return [
        cut(job, 0.0, 0.5, of(9300), of(1000), of(8900), dead=0.0),
        cut(job, 0.0, 0.9, of(9300), of(1000), of(4000), dead=0.0),
        cut(job, 1e-4, 0.5, of(9310), of(9200), of(9290), dead=0.6),
        cut(job, 1e-4, 0.9, of(9310), of(1000), of(6000), dead=0.6),
    ]


def sentences(jobs: list[FinishedJob]) -> list[str]:
    (group,) = results.groups(jobs)
    return Verdict(group).sentences()


def test_the_deepest_cut_that_costs_at_most_one_point(lab: list[FinishedJob]) -> None:
    assert sentences(lab)[0] == (
        "The deepest cut that costs at most one point removes 50 % of the channels at λ = 1e-4: 92.90 % accuracy "
        "against 93.00 % for the dense network of λ = 0, no difference that 10\u202f000 test images can show, with "
        "10.0 times fewer parameters and 3.0 times fewer MACs."
    )


def test_what_a_pass_takes_and_into_how_many_classes_the_images_are_put(lab: list[FinishedJob]) -> None:
    for job in lab:
        job.slim.run = replace(job.slim.run, latency={"dense": 1.5, "slim": 0.5})
    lab[3].finetune.test = Test(correct=6000, total=10000, predicted=7)
    first, _, third, _ = sentences(lab)
    assert first.endswith("3.0 times fewer MACs; one image passes 3.0 times faster (1.5 -> 0.5 ms).")
    assert "60.00 % at best (λ = 1e-4), and puts the images into 7 of 10 classes: " in third


def test_a_pass_that_takes_as_long_is_not_called_faster(lab: list[FinishedJob]) -> None:
    for job in lab:
        job.slim.run = replace(job.slim.run, latency={"dense": 0.202, "slim": 0.199})
    assert sentences(lab)[0].endswith("3.0 times fewer MACs; one image passes as fast (0.2 ms).")


def test_what_happened_without_the_penalty(lab: list[FinishedJob]) -> None:
    assert sentences(lab)[1] == (
        "Without the penalty (λ = 0) this cut leaves 10.00 % right after pruning, where λ = 1e-4 keeps 92.00 %; at the "
        "end λ = 0 has 89.00 % against 92.90 % (λ = 1e-4), 3.90 points worse."
    )


def test_why_the_deepest_ratio_fails(lab: list[FinishedJob]) -> None:
    assert sentences(lab)[2] == (
        "The deepest ratio, 90 %, fails with 60.00 % at best (λ = 1e-4): 60.0 % of the γ are dead (at most 1 % of "
        "their layer's mean), so 30.0 % of the channels are removed although they are live; the narrowest layer, bn1, "
        "keeps 1 of 2 channels."
    )


def test_what_to_try_next(lab: list[FinishedJob]) -> None:
    assert sentences(lab)[3] == (
        "Next, try a larger λ, such as lambda=3e-4, or ratio=0.6, which the dead γ of λ = 1e-4 cover. Repeat it with "
        "seed=0,1,2 to learn how far runs differ."
    )


def test_where_every_cut_costs_more_the_best_is_named(job: FinishedJob) -> None:
    jobs = [cut(job, 0.0, 0.5, of(9300), of(1000), of(8900), dead=0.0)]
    first, second, third, last = sentences(jobs)
    assert first.startswith(
        "Every cut measures more than one point worse; the best one removes 50 % of the channels at λ = 0: "
    )
    assert "4.00 points worse" in first
    assert second == "No job with λ > 0 has this ratio, so what the penalty gives is not known."
    assert "fails" in third
    assert last.startswith("Next, try a penalty: ")


def test_a_deepest_ratio_that_holds_asks_for_a_deeper_one(job: FinishedJob) -> None:
    jobs = [cut(job, 1e-4, 0.9, of(9300), of(9200), of(9290), dead=0.95)]
    assert sentences(jobs)[2].startswith(
        "The deepest ratio, 90 %, holds with 92.90 % at best (λ = 1e-4): 95.0 % of the γ"
    )
    assert "enough for all that is removed" in sentences(jobs)[2]
    assert "such as ratio=0.95." in sentences(jobs)[3]


def test_guessing_is_called_so(job: FinishedJob) -> None:
    jobs = [cut(job, 1e-4, 0.9, of(9300), of(1000), of(1010), dead=0.95)]
    assert "10.10 % at best (λ = 1e-4), no better than guessing among 10 classes: 95.0 %" in sentences(jobs)[2]
    assert "a longer fine-tuning, or a floor" in sentences(jobs)[3]


def test_a_penalty_that_costs_before_any_cut_is_not_made_larger(job: FinishedJob) -> None:
    jobs = [
        cut(job, 0.0, 0.9, of(9300), of(1000), of(4000), dead=0.0),
        cut(job, 1e-4, 0.9, of(9000), of(1000), of(6000), dead=0.43),
    ]
    assert sentences(jobs)[3].startswith(
        "Next, try ratio=0.4, which the dead γ of λ = 1e-4 cover. A larger λ costs more: λ = 1e-4 loses 3.00 points "
        "before any cut."
    )


def test_four_images_of_364_are_no_difference(job: FinishedJob) -> None:
    jobs = [cut(job, 0.0, 0.5, of(330, 364), of(330, 364), of(326, 364), dead=0.0)]
    first, _, third, _ = sentences(jobs)
    assert "no difference that 364 test images can show" in first
    assert third.startswith("The deepest ratio, 50 %, may hold, with 89.56 % at best")


def test_a_penalty_whose_cost_the_images_cannot_show_may_be_made_larger(job: FinishedJob) -> None:
    jobs = [
        cut(job, s, 0.9, of(dense, 364), of(36, 364), of(100, 364), dead=0.05) for s, dense in ((0.0, 330), (1e-3, 325))
    ]
    assert sentences(jobs)[3].startswith("Next, try a larger λ, such as lambda=3e-3. Repeat")


def test_another_metric_in_which_smaller_is_better(job: FinishedJob) -> None:
    tests = Test(value=0.1), Test(value=0.5), Test(value=0.1005)
    jobs = [cut(job, 1e-4, 0.5, *tests, dead=0.6), cut(job, 1e-4, 0.9, tests[0], tests[1], Test(value=0.2), dead=0.6)]
    for changed in jobs:
        changed.train.metric = Metric("error", "min", ".3f")
    first, _, third, _ = sentences(jobs)
    assert "removes 50 % of the channels at λ = 1e-4: 0.101 error against 0.100 " in first
    assert "fails with 0.200 at best" in third


def test_nothing_removed_is_said(job: FinishedJob) -> None:
    assert sentences([cut(job, 0.0, 0.0, of(9300), of(9300), of(9300), dead=0.0)]) == [NO_CUT]

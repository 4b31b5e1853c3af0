"""Oracle: jobs with round numbers, whose sentences were written by hand before they were computed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from msgspec.structs import replace

from netslim.experiment.measurements import Cut, Layer, Measured, Recalibrated, Run, Size, Test
from netslim.experiment.records import ControlRecord, FinishedJob
from netslim.report import results
from netslim.report.figures import accuracy
from netslim.report.sections.comparison import collapses, methods, sentences, table
from netslim.report.sections.cost import near
from netslim.report.sections.overview import document
from netslim.report.sections.verdict import Verdict

LAYERS = [Layer(name="bn1", channels=50, kept=1), Layer(name="bn2", channels=50, kept=9)]


def of(correct: int) -> Test:
    return Test(correct=correct, total=10000)


def paper(job: FinishedJob, strength: float, pruned: int, final: int, dead: float) -> FinishedJob:
    """90 of 100 channels removed at once."""
    train = replace(copy.deepcopy(job.train), name=f"t{strength}", test=of(9300), classes=10)
    train.scales = {"bn": [0.0] * round(100 * dead) + [0.5] * round(100 * (1 - dead))}
    slim: Any = replace(
        copy.deepcopy(job.slim), removed=90, prunable=100, layers=LAYERS,
        dense=Measured(params=1000, macs=6000, test=of(9300)), small=Measured(params=10, macs=120, test=of(pruned)),
        recalibrated=Recalibrated(test=of(pruned)),
    )  # fmt: skip
    assert job.finetune
    tuned = replace(job.finetune, test=of(final))
    return replace(job, strength=strength, ratio=0.9, train=train, slim=slim, finetune=tuned, method="paper")


def gradual(job: FinishedJob, strength: float, final: int) -> FinishedJob:
    cut = Cut(
        removed=90, prunable=100, layers=LAYERS, dense=Size(params=1000, macs=6000), small=Size(params=20, macs=150),
        epochs=[],
    )  # fmt: skip
    train = replace(job.train, name=f"g{strength}", test=of(final), classes=10, cut=cut)
    return replace(job, strength=strength, ratio=0.9, train=train, slim=None, finetune=None, method="gradual")


@pytest.fixture
def jobs(job: FinishedJob) -> list[FinishedJob]:
    return [
        paper(job, 0.0, 1000, 2500, dead=0.0),
        paper(job, 1e-2, 8000, 9100, dead=0.8),
        gradual(job, 0.0, 9000),
        gradual(job, 1e-2, 9200),
    ]


def test_methods_are_groups_by_their_names(jobs: list[FinishedJob]) -> None:
    assert [group.label for group in results.groups(jobs)] == ["gradual", "paper"]


def test_the_best_of_each_method_in_one_sentence(jobs: list[FinishedJob]) -> None:
    assert methods(results.groups(jobs)) == [
        "At 90 %, the best of each method: gradual 92.00 % (λ = 1e-2, 2.5 % of the MACs) and paper 91.00 % (λ = 1e-2, "
        "2 % of the MACs)."
    ]
    assert methods(results.groups(jobs[:2])) == []


def of_size(small: int, control: int, seed: int, run: Run) -> ControlRecord:
    """A control as large as the network of ``small`` correct images, trained with that seed."""
    return ControlRecord(
        stage="uniform", name=f"uniform{small}{seed}", control="uniform widths from scratch", ratio=0.9, seed=seed,
        params=10, macs=120, widths={}, epochs=[], test=of(control), run=run,
    )  # fmt: skip


@pytest.fixture
def seeds(job: FinishedJob) -> list[FinishedJob]:
    """Two methods at one λ with two seeds, the same after the cut, and uniform widths beside each."""
    found = []
    for seed, (plain, better) in enumerate([(9000, 9050), (9100, 9150)]):
        for method, final in (("paper", plain), ("rescale", better)):
            made = paper(job, 1e-2, 1000, final, dead=0.8)
            made.controls = [of_size(final, 9000 + 100 * seed, seed, job.train.run)]
            made.train.name = f"train{seed}"
            found.append(replace(made, seed=seed, method=method))
    return found


def test_what_images_and_seeds_can_tell_and_the_control_of_the_first(seeds: list[FinishedJob]) -> None:
    best, collapsed = sentences(results.groups(seeds))
    assert best == (
        "At 90 %, the best of each method: rescale 91.00 ± 0.71 % (2 % of the MACs) and paper 90.50 ± 0.71 % (2 % of "
        "the MACs). No difference to the first that 10\u202f000 test images can show: paper. As a control of the "
        "first, uniform widths from scratch: 90.50 ± 0.71 %."
    )
    assert collapsed.startswith("paper and rescale at 90 %: λ = 1e-2 collapses to 10.00 % when the channels are")
    assert collapsed.endswith("At the end: 90.50 % (paper) and 91.00 % (rescale).")


def test_the_table_has_methods_beside_their_controls_the_best_first(seeds: list[FinishedJob]) -> None:
    shallow = [replace(job, ratio=0.5) for job in seeds]
    found = table(results.groups([*seeds, *shallow]))
    assert found
    assert found.head == ["ratio", "method", "at the end", "MACs", "epochs", "training", "uniform widths from scratch"]
    assert [row[:4] for row in found.rows] == [
        ["50 %", "rescale", "91.00 ± 0.71", "50.0 ×"],
        ["50 %", "paper", "90.50 ± 0.71", "50.0 ×"],
        ["90 %", "rescale", "91.00 ± 0.71", "50.0 ×"],
        ["90 %", "paper", "90.50 ± 0.71", "50.0 ×"],
    ]
    assert {row[-1] for row in found.rows} == {"90.50 ± 0.71"}
    overall = sentences(results.groups([*seeds, *shallow]))[2]
    assert overall == "The mean over the 2 ratios: rescale 91.00 % and paper 90.50 %."
    assert table(results.groups(seeds[:1])) is None


def test_of_many_methods_the_first_three_and_the_last_are_named(seeds: list[FinishedJob]) -> None:
    more = [replace(seeds[0], method=name, controls=[], finetune=replace(seeds[0].finetune, test=of(correct)))
            for name, correct in (("a", 9900), ("b", 9800), ("c", 1200))]  # fmt: skip
    best, *_ = methods(results.groups([*seeds, *more]))
    assert best == (
        "At 90 %, the best 3 of 5 methods: a 99.00 % (2 % of the MACs), b 98.00 % (2 % of the MACs) and rescale "
        "91.00 ± 0.71 % (2 % of the MACs); the last, c 12.00 % (2 % of the MACs)."
    )


def test_a_collapse_is_explained(jobs: list[FinishedJob]) -> None:
    _, group = results.groups(jobs)
    assert collapses(group, 0.9) == [
        "λ = 0 collapses to 10.00 % when the channels are removed, no better than guessing: 0.0 % of the γ are dead "
        "(at most 1 % of their layer's mean), so 90.0 % of the channels are removed although they are live; the "
        "narrowest layer, bn1, keeps 1 of 50 channels. At the end it has 25.00 %."
    ]


def test_of_passes_the_dead_of_the_first_training_are_not_those_of_the_cut(jobs: list[FinishedJob]) -> None:
    rounds = [replace(job, more=[job.slim]) for job in jobs[:1] if job.slim]
    (said,) = collapses(results.Group("", rounds), 0.9)
    assert "how many of its γ were dead is not recorded; the narrowest layer, bn1, keeps 1 of 50 channels." in said


def test_a_network_that_shrank_in_its_training_has_one_sentence_and_no_collapse(jobs: list[FinishedJob]) -> None:
    group, _ = results.groups(jobs)
    assert collapses(group, 0.9) == []
    assert Verdict(group).sentences() == [
        "Slimming during the training to 90 % ends with 92.00 % accuracy (λ = 1e-2), with 50.0 times fewer parameters "
        "and 40.0 times fewer MACs than the dense network, which was not trained here; the narrowest layer, bn1, keeps "
        "1 of 50 channels."
    ]


def test_of_a_network_that_shrank_the_controls_are_told(jobs: list[FinishedJob]) -> None:
    job = jobs[3]
    dense = replace(of_size(1, 9300, 0, job.train.run), name="dense", control="dense network", ratio=None)
    job.controls = [of_size(9200, 9100, 0, job.train.run), dense]
    (said,) = Verdict(results.Group("", [job])).sentences()
    assert "40.0 times fewer MACs than the dense network; the narrowest layer" in said
    assert said.endswith(" Controls: uniform widths from scratch 91.00 % and dense network 93.00 %.")


def test_controls_far_below_are_not_drawn_those_near_are() -> None:
    def path(*scores: float) -> accuracy.Path:
        return accuracy.Path(f"{scores}", [accuracy.Point(1, 1, results.MeanStd(score, None, 1)) for score in scores])

    dense, uniform, random = path(0.8), path(0.6, 0.55), path(0.6, 0.1)
    assert near([path(0.62)], [dense, uniform, random]) == ([dense, uniform], [random.label])


def test_a_report_of_both_methods_is_made(jobs: list[FinishedJob]) -> None:
    page = str(document(results.groups(jobs), sweeps=[], unfinished=[]))
    assert "at the end" in page
    assert "after gradual slimming" in page


def test_trainings_of_several_ratios_are_not_averaged(job: FinishedJob) -> None:
    deep = gradual(job, 0.0, 9000)
    assert deep.train.cut
    larger = replace(deep.train.cut, small=Size(params=500, macs=3000))
    shallow = replace(deep, ratio=0.5, train=replace(deep.train, name="another", cut=larger))
    assert results.Group("", [shallow, deep]).trained(0.0) == [deep.train]
    assert results.Group("", [replace(shallow, train=deep.train), deep]).trained(0.0) == [deep.train]

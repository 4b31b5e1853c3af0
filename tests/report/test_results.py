"""Oracle: the standard library's statistics, and numbers worked out by hand."""

from __future__ import annotations

import copy
import math
import statistics
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from netslim.experiment.records import FinetuneRecord, FinishedJob, Test
from netslim.report import gammas, results


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_spread_is_mean_and_sample_standard_deviation(values: list[float]) -> None:
    found = results.mean_std(values)
    assert found is not None
    assert found.mean == pytest.approx(sum(values) / len(values))
    assert found.std == pytest.approx(statistics.stdev(values))
    assert found.n == len(values)


def test_one_value_has_no_spread_and_none_is_none() -> None:
    assert results.mean_std([0.7]) == results.MeanStd(0.7, None, 1)
    assert results.mean_std([]) is None


def with_(job: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(copy.deepcopy(job), **changes)


def test_jobs_of_one_setting_are_one_part_sorted_by_lambda_ratio_and_seed(job: FinishedJob) -> None:
    jobs = [with_(job, strength=s, ratio=r, seed=n) for n in (1, 0) for r in (0.9, 0.5) for s in (1e-4, 0.0)]
    (group,) = results.groups(jobs)
    found = [(j.strength, j.ratio, j.seed) for j in group.jobs]
    assert found == [(s, r, n) for s in (0.0, 1e-4) for r in (0.5, 0.9) for n in (0, 1)]
    assert group.label == ""
    assert (group.lambdas, group.ratios, group.seeds) == ([0.0, 1e-4], [0.5, 0.9], [0, 1])


def test_networks_are_never_averaged_together(job: FinishedJob) -> None:
    other = with_(job, train=with_(job.train, network="resnet"))
    first, second = results.groups([job, other])
    assert (first.label, second.label) == ("resnet", "vgg")
    assert len(first.jobs) == len(second.jobs) == 1


def made(job: FinishedJob, train: dict[str, Any], **changes: Any) -> FinishedJob:
    """The job, made with these settings of its training."""
    return with_(job, train=with_(job.train, settings=train), **changes)


def test_jobs_with_other_settings_are_never_averaged_together(job: FinishedJob) -> None:
    """Whatever their commands say."""
    first = made(job, {"epochs": 2, "trainer": {"accumulate_grad_batches": 1}})
    second = made(job, {"epochs": 2, "trainer": {"accumulate_grad_batches": 8}}, seed=1)
    third = made(job, {"epochs": 3, "trainer": {"accumulate_grad_batches": 1}}, seed=2)
    assert [group.label for group in results.groups([first, second, third])] == [
        "epochs=2, trainer.accumulate_grad_batches=1",
        "epochs=2, trainer.accumulate_grad_batches=8",
        "epochs=3, trainer.accumulate_grad_batches=1",
    ]


def test_a_job_without_fine_tuning_has_no_epochs_of_it(job: FinishedJob) -> None:
    """Its learning rate is nobody's difference."""
    tuned = made(job, {"epochs": 2}, finetune=with_(job.finetune, settings={"lr": 0.1, "epochs": 3}))
    plain = made(job, {"epochs": 2}, finetune=None)
    assert [group.label for group in results.groups([tuned, plain])] == ["finetune.epochs=0", "finetune.epochs=3"]


def test_a_setting_that_was_added_is_a_difference(job: FinishedJob) -> None:
    plain, added = made(job, {"epochs": 2}), made(job, {"epochs": 2, "trainer": {"benchmark": True}}, seed=1)
    assert [group.label for group in results.groups([plain, added])] == [
        "no trainer.benchmark",
        "trainer.benchmark=true",
    ]


def test_networks_of_one_name_with_other_settings_are_other_parts(job: FinishedJob) -> None:
    jobs = [made(job, {"net": {"layers": layers}}, seed=seed) for seed, layers in enumerate(([4, 8], [4, 16]))]
    assert [group.label for group in results.groups(jobs)] == ["net.layers=[4, 16]", "net.layers=[4, 8]"]


def test_where_its_data_are_makes_no_other_part(job: FinishedJob) -> None:
    first = made(job, {"lambda": 1e-4, "seed": 0, "data": {"root": "/a"}})
    second = made(job, {"lambda": 1e-4, "seed": 1, "data": {"root": "/b"}}, seed=1)
    (group,) = results.groups([first, second])
    assert (group.label, len(group.jobs)) == ("", 2)


def test_what_the_data_are_makes_another_part_wherever_they_lie(job: FinishedJob) -> None:
    """By the digest of their contents; three seeds on the same images in three folders are one part."""

    def on(root: str, identity: str, seed: int) -> FinishedJob:
        return made(job, {"data": {"root": root}, "identity": {"data.root": identity}}, seed=seed)

    (group,) = results.groups([on("/a", "5d41", 0), on("/b", "5d41", 1), on("/c", "5d41", 2)])
    assert group.seeds == [0, 1, 2]
    first, second = results.groups([on("/a", "5d41", 0), on("/a", "77aa", 0)])  # changed in place
    assert (first.label, second.label) == ("data.root=5d41", "data.root=77aa")


def test_the_same_images_that_were_trained_on_in_two_folders_are_told_apart_by_them(job: FinishedJob) -> None:
    """Records from before contents counted."""
    jobs = [made(job, {"data": {"root": root}}) for root in ("/scratch/x", "/home/x")]
    first, second = results.groups(jobs)
    assert (first.label, second.label) == ("data.root=/home/x", "data.root=/scratch/x")


def test_the_same_job_twice_is_an_error(job: FinishedJob) -> None:
    with pytest.raises(ValueError, match="recorded twice"):
        results.groups([job, copy.deepcopy(job)])


def test_fine_tuning_may_be_off(job: FinishedJob) -> None:
    job.finetune = None
    (group,) = results.groups([job])
    assert group.finetunings(1e-4, 0.5) == []
    assert results.tests(job)["after fine-tuning"] is None


def test_a_curve_is_the_mean_over_the_seeds_at_each_common_epoch() -> None:
    curves = [
        [{"epoch": 1, "val_accuracy": 0.25}, {"epoch": 2, "val_accuracy": 0.5}],
        [{"epoch": 1, "val_accuracy": 0.75}],
    ]
    records = [FinetuneRecord(name="x", epochs=rows, test=Test(value=0.5), run=None) for rows in curves]
    assert results.curve(records, "val_accuracy") == ([1], [results.MeanStd(0.5, math.sqrt(0.125), 2)])


def test_curves_show_validation_only_where_every_epoch_has_it(job: FinishedJob) -> None:
    assert results.curve_metric([job.train]) == "val_accuracy"
    assert results.curve_metric([job.train, job.finetune]) == "train_accuracy"


def test_trainings_shared_by_ratios_count_once(job: FinishedJob) -> None:
    (group,) = results.groups([job, with_(job, ratio=0.9)])
    assert group.trained(1e-4) == [job.train]


def test_share_of_scales_under_a_bound_uses_absolute_values(job: FinishedJob) -> None:
    assert sorted(gammas.scales(job.train)) == [0.0005, 0.005, 0.25, 0.5]
    assert [gammas.share_under(job.train, bound) for bound in (1e-4, 1e-3, 1e-2)] == [0.0, 0.25, 0.5]


def test_a_scale_is_dead_beside_its_layer_whatever_the_layers_size(job: FinishedJob) -> None:
    assert gammas.dead_share(job.train) == 0.25  # 0.0005 beside 0.5; but 0.005 beside 0.25 is 3.9 % of their mean
    small = {name: [1e-4 * value for value in values] for name, values in job.train.scales.items()}
    assert gammas.dead_share(replace(job.train, scales=small)) == 0.25
    assert gammas.dead_share(replace(job.train, scales={"bn": [0.0, 0.0]})) == 1.0
    assert math.isnan(gammas.dead_share(replace(job.train, scales={})))


def test_file_names_stay_short_and_apart(job: FinishedJob) -> None:
    labels = [", ".join(f"setting{i}={i}" for i in range(n)) for n in (1, 40, 41)]
    names = [results.Group(label, [job]).file("sparsity-training-accuracy") for label in labels]
    assert names[0] == "setting0-0-sparsity-training-accuracy"
    assert len({*names}) == 3
    assert max(map(len, names)) < 160

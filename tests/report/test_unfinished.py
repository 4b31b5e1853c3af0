"""Oracle: sweeps small enough to say by eye what is missing."""

from __future__ import annotations

import copy

from netslim.experiment.records import FinishedJob
from netslim.experiment.sweep_record import SweepRecord
from netslim.report import unfinished

SWEEP = SweepRecord(
    command="netslim -m experiment=x lambda=0,1e-4 'data.root=/a b'",
    jobs=[["experiment=x", "lambda=0", "ratio=0.5"], ["experiment=x", "lambda=1e-4", "ratio=0.5"]],
)


def test_a_missing_job_is_named_by_the_command_that_repeats_just_it(job: FinishedJob) -> None:
    assert unfinished.unfinished(SWEEP, [job]) == ["netslim 'data.root=/a b' experiment=x lambda=0 ratio=0.5"]


def test_values_are_compared_as_numbers_and_unswept_keys_match_anything(job: FinishedJob) -> None:
    other = copy.deepcopy(job)
    other.strength, other.seed = 0.0, 7
    assert unfinished.unfinished(SWEEP, [job, other]) == []


def test_other_swept_keys_must_agree_with_the_job_s_command(job: FinishedJob) -> None:
    sweep = SweepRecord(command="netslim -m net=a,b", jobs=[["net=a"], ["net=b"]])
    job.command = "netslim net=a"
    assert unfinished.unfinished(sweep, [job]) == ["netslim net=b"]


def test_without_a_sweep_file_nothing_is_known_to_be_missing(job: FinishedJob) -> None:
    assert unfinished.unfinished(None, [job]) == []


def test_a_setting_that_the_job_s_command_left_at_its_default_is_compared_too(job: FinishedJob) -> None:
    sweep = SweepRecord(
        command="netslim -m label_smoothing=0,0.1", jobs=[["label_smoothing=0"], ["label_smoothing=0.1"]]
    )
    job.train.settings = {"label_smoothing": 0.0}
    job.command = "netslim"
    assert unfinished.unfinished(sweep, [job]) == ["netslim label_smoothing=0.1"]


def test_of_a_setting_given_twice_the_last_one_counts(job: FinishedJob) -> None:
    sweep = SweepRecord(command="netslim", jobs=[["lambda=0.3", "lambda=1e-4", "ratio=0.9", "ratio=0.5"]])
    assert unfinished.unfinished(sweep, [job]) == []


def test_what_cannot_change_a_result_need_not_agree(job: FinishedJob) -> None:
    job.command = "netslim threads=2 trainer.devices=1"
    sweep = SweepRecord(
        command="netslim -m threads=1", jobs=[["threads=1", "trainer.devices=2", "trainer.accelerator=cpu"]]
    )
    assert unfinished.unfinished(sweep, [job]) == []


def test_where_the_files_lie_need_not_agree_unless_it_is_swept(job: FinishedJob) -> None:
    job.command = "netslim data.root=/scratch/x lambda=0.0001 ratio=0.5"
    job.train.settings = {"data": {"root": "/scratch/x"}, "identity": {"data.root": "5d41"}}
    moved = SweepRecord(
        command="netslim", jobs=[["data.root=/home/x", "ratio=0.5"], ["data.root=/home/x", "ratio=0.9"]]
    )
    assert unfinished.unfinished(moved, [job]) == ["netslim data.root=/home/x ratio=0.9"]
    swept = SweepRecord(command="netslim -m", jobs=[["data.root=/scratch/x"], ["data.root=/other"]])
    assert unfinished.unfinished(swept, [job]) == ["netslim data.root=/other"]


def test_a_value_that_is_no_number_belongs_to_no_finished_job(job: FinishedJob) -> None:
    sweep = SweepRecord(command="netslim -m", jobs=[["ratio=50%"], ["lambda=0 1e-3"]])
    assert unfinished.unfinished(sweep, [job]) == ["netslim ratio=50%", "netslim 'lambda=0 1e-3'"]

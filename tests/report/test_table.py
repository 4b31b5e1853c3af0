"""Oracle: the row of a job with round numbers, written out by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from msgspec.structs import replace

from netslim.experiment import paths
from netslim.experiment.measurements import Cut, Layer, Size
from netslim.experiment.records import FinishedJob
from netslim.report import table

EXPECTED = {
    "part": "", "method": "", "network": "vgg", "data": "toy", "lambda": "0.0001", "ratio": "0.5", "seed": "0",
    "budget": "0.25",
    "prunable": "4", "removed": "2", "delivered_ratio": "0.5", "threshold": "0.005",
    "scales_under_1e-04": "0.0", "scales_under_1e-03": "0.25", "scales_under_1e-02": "0.5", "dead_share": "0.25",
    "train_epochs": "2", "train_last_train_accuracy": "0.5", "train_last_val_accuracy": "0.375",
    "finetune_epochs": "1", "finetune_last_train_accuracy": "0.75", "finetune_last_val_accuracy": "",
    "dense_correct": "6", "dense_total": "8", "dense_accuracy": "0.75", "dense_loss": "0.5",
    "pruned_correct": "1", "pruned_total": "8", "pruned_accuracy": "0.125", "pruned_loss": "2.0",
    "recalibrated_correct": "3", "recalibrated_total": "8", "recalibrated_accuracy": "0.375",
    "recalibrated_loss": "1.0",
    "finetuned_correct": "5", "finetuned_total": "8", "finetuned_accuracy": "0.625", "finetuned_loss": "0.75",
    "final_accuracy": "0.625", "epochs_total": "3", "train_macs": "",
    "dense_params": "100", "slim_params": "25", "params_left": "0.25", "dense_macs": "1000", "slim_macs": "500",
    "macs_left": "0.5", "kept": "1 1", "train": "train_x", "slim": "slim_x", "finetune": "finetune_x",
}  # fmt: skip


def test_a_row_has_every_number_of_the_job(job: FinishedJob) -> None:
    (found,) = csv.DictReader(io.StringIO(table.to_csv([table.row(job)])))
    assert found == EXPECTED
    assert list(found) == list(EXPECTED)


def test_without_fine_tuning_its_cells_are_empty_and_the_columns_the_same(job: FinishedJob) -> None:
    job.finetune = None
    (found,) = csv.DictReader(io.StringIO(table.to_csv([table.row(job)])))
    after_recalibration = {"final_accuracy": "0.375", "epochs_total": "2"}
    assert found == EXPECTED | {key: "" for key in EXPECTED if key.startswith("finetune")} | after_recalibration


def test_the_multiply_adds_of_all_trainings_are_added_where_all_are_known(job: FinishedJob) -> None:
    assert job.finetune
    job.train.train_macs, job.finetune.train_macs = 700, 80
    assert table.row(job)["train_macs"] == 780
    job.finetune.train_macs = None
    assert table.row(job)["train_macs"] is None


def test_a_job_whose_network_got_smaller_in_its_training_has_a_row_too(job: FinishedJob) -> None:
    cut = Cut(
        removed=3, prunable=4, layers=[Layer(name="bn1", channels=4, kept=1)],
        dense=Size(params=100, macs=1000), small=Size(params=20, macs=100), epochs=[],
    )  # fmt: skip
    train = replace(job.train, cut=cut, train_macs=900)
    row = table.row(replace(job, train=train, slim=None, finetune=None, method="gradual"))
    assert list(row) == list(EXPECTED)
    assert (row["final_accuracy"], row["epochs_total"], row["train_macs"]) == (0.75, 2, 900)
    assert (row["dense_accuracy"], row["finetuned_accuracy"], row["threshold"], row["slim"]) == (None,) * 4
    assert (row["params_left"], row["macs_left"], row["kept"], row["method"]) == (0.2, 0.1, "1", "gradual")


def test_floats_read_back_to_the_same_bits(job: FinishedJob) -> None:
    job.slim.threshold = 0.1 + 0.2
    (found,) = csv.DictReader(io.StringIO(table.to_csv([table.row(job)])))
    assert found["threshold"] == "0.30000000000000004"
    assert float(found["threshold"]) == 0.1 + 0.2


def test_the_csv_of_a_sweep_has_a_row_per_job_with_the_recorded_numbers(sweep: Path) -> None:
    with (sweep / "report" / "results.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    keys = [(float(row["lambda"]), float(row["ratio"]), int(row["seed"])) for row in found]
    assert keys == [(strength, ratio, 0) for strength in (0.0, 1e-5, 1e-4) for ratio in (0.5, 0.9)]
    for row, job in zip(found, paths.load_jobs(sweep), strict=True):
        values = [abs(v) for layer in job.train.scales.values() for v in layer]
        assert float(row["scales_under_1e-02"]) == len([v for v in values if v < 0.01]) / len(values)
        assert int(row["finetuned_correct"]) == job.finetune.test.correct
        assert float(row["params_left"]) == job.slim.small.params / job.slim.dense.params
        assert float(row["delivered_ratio"]) == job.slim.removed / 5504


def test_every_epoch_of_every_training_is_one_row(sweep: Path) -> None:
    with (sweep / "report" / "epochs.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    jobs = paths.load_jobs(sweep)
    assert len(found) == 40 * (3 + 6)  # three trainings are shared by the six jobs
    last = [row for row in found if row["epoch"] == "40" and row["lambda"] == "0.0001"]
    assert [(row["stage"], row["ratio"]) for row in last] == [("train", ""), ("finetune", "0.5"), ("finetune", "0.9")]
    assert float(last[0]["val_accuracy"]) == jobs[-1].train.epochs[-1]["val_accuracy"]
    assert jobs[-1].finetune
    assert float(last[2]["train_loss"]) == jobs[-1].finetune.epochs[-1]["train_loss"]


def test_every_scale_is_one_row_with_its_sign(sweep: Path) -> None:
    with (sweep / "report" / "scales.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 3 * 5504
    train = paths.load_jobs(sweep)[-1].train
    own = [row for row in found if row["lambda"] == "0.0001"]
    for layer, values in train.scales.items():
        assert [float(row["scale"]) for row in own if row["layer"] == layer] == values

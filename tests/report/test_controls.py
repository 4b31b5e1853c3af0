"""Controls in the report: in the table, the figure and the CSV, each once. Oracle: the records, counted by hand."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netslim import report
from netslim.experiment import paths
from netslim.report.controls import controls
from netslim.report.results import groups
from netslim.report.sections.result import main_table

RUN = {"started": "2026-01-02T03:04:05+00:00", "seconds": 1.0, "command": "c", "versions": {}, "hardware": "h"}


def control(sweep: Path, kind: str, words: str, correct: int, **more: Any) -> str:
    """Write the record of a control; its name."""
    labels = {key: more.pop(key) for key in ("lambda", "ratio", "seed") if key in more}
    name = "_".join([kind, *(f"{key}={value}" for key, value in labels.items()), "00000000"])
    (sweep / name).mkdir(parents=True, exist_ok=True)
    epochs = [{"epoch": number, "train_accuracy": 0.5} for number in (1, 2, 3)]
    record = {"stage": kind, "name": name, **labels, "control": words, "params": 1000, "macs": 50_000, "run": RUN}
    record |= {"epochs": epochs, "test": {"correct": correct, "total": 10000}, "widths": {"a": 3, "b": 4}, **more}
    (sweep / name / "record.json").write_text(json.dumps(record))
    return name


@pytest.fixture
def sweep(make_sweep: Callable[..., Path]) -> Path:
    """Two λ, two ratios, two seeds; a dense control per seed, a uniform one per ratio and seed, one scratch each."""
    folder = make_sweep(lambdas=(0.0, 1e-4), ratios=(0.5, 0.9), seeds=(0, 1), epochs=4)
    for path in folder.glob("job_*/record.json"):
        job = json.loads(path.read_text())
        seed, ratio, own = job["seed"], job["ratio"], {key: job[key] for key in ("lambda", "ratio", "seed")}
        job["controls"] = [
            control(folder, "scratch", "its widths from scratch", 9100, **own),
            control(folder, "uniform", "uniform widths from scratch", 9000 + 10 * seed, ratio=ratio, seed=seed),
            control(folder, "dense", "dense network", 9400 + 20 * seed, seed=seed, train_macs=3_000_000),
        ]
        path.write_text(json.dumps(job))
    return folder


def test_each_control_is_there_once_over_its_seeds(sweep):
    found = controls(groups(paths.load_jobs(sweep)))
    told = [(each.words, each.strength, each.ratio, len(each.tests)) for each in found]
    assert told == [
        *[("its widths from scratch", strength, ratio, 2) for strength in (0.0, 1e-4) for ratio in (0.5, 0.9)],
        ("uniform widths from scratch", None, 0.5, 2),
        ("uniform widths from scratch", None, 0.9, 2),
        ("dense network", None, None, 2),
    ]


def test_the_table_has_a_marked_row_for_each_below_the_results(sweep):
    table = main_table(groups(paths.load_jobs(sweep)))
    assert table.head[0] == "network"
    assert [row[0] for row in table.rows[:4]] == ["slimmed"] * 4
    assert len(table.rows) == 4 + 7
    assert table.rows[-1][:2] == ["control: dense network", "94.10 ± 0.14"]
    assert table.rows[-1][3:5] == ["–", "–"]
    assert table.rows[-1][-2:] == ["3", "3 M"]
    assert table.rows[-2][0] == "control: uniform widths from scratch"
    assert table.rows[-2][3] == "90 %"
    assert all(len(row) == len(table.head) == len(table.align) for row in table.rows)


def test_what_is_trained_without_a_lambda_shows_none(make_sweep):
    folder = make_sweep(lambdas=(1e-4,), ratios=(0.5,), epochs=2)
    (path,) = folder.glob("job_*/record.json")
    job = json.loads(path.read_text())
    own = {key: job[key] for key in ("lambda", "ratio", "seed")}
    job["controls"] = [control(folder, "dense", "dense network", 9400, seed=0)]
    job["controls"] += [control(folder, "random", "random channels", 9000, inherited=5, train_macs=9_000_000, **own)]
    path.write_text(json.dumps(job))
    dense, random = main_table(groups(paths.load_jobs(folder))).rows[1:]
    assert dense[3:5] == ["–", "–"]
    assert random[3:5] + random[-2:] == ["50 %", "1e-4", "8", "9 M"]


def test_the_csv_has_a_row_per_training_and_the_figure_a_path_per_kind(sweep):
    report.build(sweep)
    with (sweep / "report" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    marked = [row for row in rows if row["control"]]
    assert len(rows) == 8 + 8 + 4 + 2
    assert [row["final_accuracy"] for row in marked if row["control"] == "dense network"] == ["0.94", "0.942"]
    assert {row["kept"] for row in marked} == {"3 4"}
    assert {row["epochs_total"] for row in marked} == {"3"}
    text = (sweep / "report" / "report.md").read_text()
    assert "control: uniform widths from scratch" in text
    assert "Controls, trained to compare with, are grey and dotted." in text
    with (sweep / "report" / "epochs.csv").open() as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert (stages.count("dense"), stages.count("scratch")) == (2 * 3, 8 * 3)


def test_a_sweep_without_controls_has_neither_the_column_nor_the_words(make_sweep):
    folder = make_sweep(lambdas=(0.0,), ratios=(0.5,), epochs=2)
    assert main_table(groups(paths.load_jobs(folder))).head[0] != "network"
    report.build(folder)
    assert "control" not in (folder / "report" / "results.csv").read_text()
    assert "ontrols" not in (folder / "report" / "report.md").read_text()

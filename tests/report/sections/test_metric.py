"""The report of a task with its own metric. Oracle: the records, read a second time."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from netslim import report

METRIC = {"name": "mean IoU", "direction": "max", "format": ".3f"}


def renamed(value: Any) -> Any:
    """A record of accuracy as one of mean IoU, with no counted images."""
    if isinstance(value, list):
        return [renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "correct" in value:
        return {"value": value["correct"] / value["total"], "loss": value["loss"]}
    return {key.replace("accuracy", "mean IoU"): renamed(item) for key, item in value.items()}


@pytest.fixture
def segmentation(make_sweep: Callable[..., Path]) -> Path:
    folder = make_sweep("segmentation", ratios=(0.5,), lambdas=(0.0, 1e-4), epochs=3)
    for path in folder.glob("*_*/record.json"):
        record = renamed(json.loads(path.read_text()))
        path.write_text(json.dumps(record if path.parent.name.startswith("job_") else record | {"metric": METRIC}))
    return folder


def test_the_report_says_what_the_task_is_judged_by(segmentation: Path) -> None:
    text = report.build(segmentation).with_name("report.md").read_text()
    assert "accuracy" not in text.lower().replace("test-accuracy", "").replace("training-accuracy", "").replace(
        "fine-tuning-accuracy", ""
    )
    for heading in ("Sparsity Training Mean IoU over Epochs", "Test Mean IoU with Prune Ratio 50 %"):
        assert f"## {heading}" in text
    (path,) = segmentation.glob("finetune_lambda=0_*/record.json")
    final = json.loads(path.read_text())["test"]["value"]
    assert f"Test set: mean IoU: {final:.3f}" in text
    assert f"| {final:.3f} | – | 50 % | 0 |" in text


def test_its_columns_are_named_after_it(segmentation: Path) -> None:
    with report.build(segmentation).with_name("results.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    (path,) = segmentation.glob("finetune_lambda=0_*/record.json")
    record = json.loads(path.read_text())
    assert float(row["finetuned_mean IoU"]) == record["test"]["value"]
    assert float(row["finetune_last_val_mean IoU"]) == record["epochs"][-1]["val_mean IoU"]
    assert row["finetuned_correct"] == ""

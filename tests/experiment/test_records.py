"""Files that are valid JSON, but not what netslim writes: one line that names the file, the place and the remedy."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netslim.experiment import paths, records
from netslim.experiment.sweep_record import SweepRecord

KIND_OF = {
    "sweep.json": SweepRecord,
    "record.json": records.JobRecord,
    "settings.json": dict[str, Any],
    "scales.json": dict[str, list[float]],
}
RUN = {"started": "now", "seconds": 1, "command": "c", "versions": {}, "hardware": "h"}
EPOCHS = [{"epoch": 1, "train_accuracy": 0.5}, {"epoch": 2, "train_accuracy": 0.75, "val_accuracy": 0.25}]
TEST = {"correct": 1, "total": 2}
SIZE = {"params": 4, "macs": 9, "test": TEST}
TRAIN = {"name": "n", "network": "vgg", "data": "d", "budget": 0.5, "epochs": EPOCHS, "test": TEST, "run": RUN}
FINETUNE = {"name": "n", "epochs": EPOCHS, "test": TEST, "run": RUN}
SLIM = {
    "name": "n", "threshold": 0.1, "removed": 1, "prunable": 2, "run": RUN, "recalibrated": {"test": TEST},
    "layers": [{"name": "bn", "channels": 2, "kept": 1}], "dense": SIZE, "slim": {**SIZE},
}  # fmt: skip
JOB = {"lambda": 0.1, "ratio": 0.5, "seed": 0, "train": "t", "slim": "s", "finetune": None, "command": "c"}


@pytest.mark.parametrize("content", [{}, [], None, 5, "s", True, {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", KIND_OF)
def test_other_content_is_named(name, content, tmp_path):
    path = tmp_path / name
    path.write_text(json.dumps(content))
    fits = isinstance(content, dict) and (name == "settings.json" or (name == "scales.json" and not content))
    if fits:
        assert records.read(path, KIND_OF[name]) == content
        return
    with pytest.raises(ValueError, match=rf"{name} is not as netslim writes it \(.*\); remove .* and run the command"):
        records.read(path, KIND_OF[name])


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Replace what stands at a place such as "slim.test.total"; ``...`` removes it."""

    def change(content: Any) -> None:
        *above, last = key.split(".")
        for step in above:
            content = content[int(step) if step.isdigit() else step]
        if value is ...:
            del content[last]
        else:
            content[int(last) if last.isdigit() else last] = value

    return change


@pytest.mark.parametrize(
    ("kind", "whole", "key", "value", "fault"),
    [
        # something is missing, or of another type
        (records.FinetuneRecord, FINETUNE, "test", {"correct": 1}, r"neither .*'total'.* at `\$.test`"),
        (records.FinetuneRecord, FINETUNE, "test", None, r"got `null` - at `\$.test`"),
        (records.FinetuneRecord, FINETUNE, "epochs", [], r"length >= 1 - at `\$.epochs`"),
        (records.FinetuneRecord, FINETUNE, "epochs.1", {"epoch": 2}, r"epochs\[1\] has no .* train_accuracy"),
        (records.FinetuneRecord, FINETUNE, "run", {"versions": {}}, r"required field `started` - at `\$.run`"),
        (records.FinetuneRecord, FINETUNE, "name", 5, r"Expected `str`, got `int` - at `\$.name`"),
        (records.SlimRecord, SLIM, "layers", ..., "required field `layers`"),
        (records.SlimRecord, SLIM, "recalibrated.test", ..., r"required field `test` - at `\$.recalibrated`"),
        (records.JobRecord, JOB, "ratio", ..., "required field `ratio`"),
        # numbers that cannot be
        (records.TrainRecord, TRAIN, "test.total", 0, r">= 1 - at `\$.test.total`"),
        (records.TrainRecord, TRAIN, "test.correct", 3, r"3 of 2 images are correct - at `\$.test`"),
        (records.TrainRecord, TRAIN, "test.correct", -1, r">= 0 - at `\$.test.correct`"),
        (records.TrainRecord, TRAIN, "test.loss", math.nan, r"loss is nan, not a finite number - at `\$.test`"),
        (records.TrainRecord, TRAIN, "run.seconds", math.inf, r"seconds is inf, not a finite number - at `\$.run`"),
        (records.TrainRecord, TRAIN, "run.seconds", -1, r"seconds is -1.0, under 0 - at `\$.run`"),
        (records.TrainRecord, TRAIN, "budget", math.nan, "budget is nan"),
        (records.TrainRecord, TRAIN, "epochs.1.val_accuracy", None, r"got `null` - at `\$.epochs\[1\]"),
        (records.TrainRecord, TRAIN, "epochs.1.val_accuracy", math.nan, r"epochs\[1\]: val_accuracy is nan"),
        (records.TrainRecord, TRAIN, "gamma_history", [[]], "gamma_history has 1 epochs, there are 2"),
        (records.TrainRecord, TRAIN, "gamma_history", [[], [1]], r"gamma_history\[1\] has 1 bins, not 29"),
        (records.SlimRecord, SLIM, "dense.params", 0, r">= 1 - at `\$.dense.params`"),
        (records.SlimRecord, SLIM, "slim.macs", -5, r">= 0 - at `\$.slim.macs`"),
        (records.SlimRecord, SLIM, "slim.params", True, r"Expected `int`, got `bool` - at `\$.slim.params`"),
        (records.SlimRecord, SLIM, "prunable", 0, r">= 1 - at `\$.prunable`"),
        (records.SlimRecord, SLIM, "removed", 3, "3 of 2 channels are removed"),
        (records.SlimRecord, SLIM, "layers.0.kept", 3, r"3 of 2 channels are kept - at `\$.layers\[0\]`"),
        (records.SlimRecord, SLIM, "layers.0.channels", 0, r">= 1 - at `\$.layers\[0\].channels`"),
        (records.SlimRecord, SLIM, "threshold", math.inf, "threshold is inf"),
        (records.JobRecord, JOB, "lambda", 10**400, r"out of range - at `\$.lambda`"),
        (records.JobRecord, JOB, "lambda", -1, "λ = -1 "),
        (records.JobRecord, JOB, "lambda", math.nan, "is nan"),
        (records.JobRecord, JOB, "ratio", 1, "ratio = 1 "),
        (SweepRecord, {"command": "c", "jobs": []}, "jobs", [1], r"got `int` - at `\$.jobs\[0\]`"),
        (SweepRecord, {"command": "c", "jobs": []}, "earlier", 3, r"got `int` - at `\$.earlier`"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(kind, whole, key, value, fault, tmp_path):
    path, content = tmp_path / "record.json", copy.deepcopy(whole)
    path.write_text(json.dumps(content))
    records.read(path, kind)
    put(key, value)(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=fault) as caught:
        records.read(path, kind)
    assert str(caught.value).startswith(f"{path} is not as netslim writes it (")
    assert str(caught.value).endswith(f"; remove the folder {tmp_path} and run the command again")
    assert "\n" not in str(caught.value)


def test_a_record_without_a_metric_is_of_a_classification(tmp_path):
    found = msgspec.convert(TRAIN, records.TrainRecord)
    assert found.metric == records.Metric("accuracy", "max", ".1%")
    assert found.test.score == 0.5
    other = {**TRAIN, "metric": {"name": "iou", "direction": "max", "format": ".3f"}, "test": {"value": 0.25}}
    other["epochs"] = [{"epoch": 1, "val_iou": 0.2}]
    assert msgspec.convert(other, records.TrainRecord).test.score == 0.25
    with pytest.raises(msgspec.ValidationError, match="train_iou"):
        msgspec.convert({**other, "epochs": [*other["epochs"], {"epoch": 2}]}, records.TrainRecord)


@pytest.mark.parametrize(("kind", "whole"), [(records.TrainRecord, TRAIN), (records.SlimRecord, SLIM)])
def test_what_is_read_is_written_again_with_the_same_keys(kind, whole):
    """Older code reads it: lambda, slim, and no key that it does not know."""
    whole = {"stage": "x", "lambda": 0.5, **whole}
    assert records.plain(msgspec.convert({**whole, "unknown": [1]}, kind)) == whole


def test_the_records_that_were_published_are_read():
    """Written before there were types."""
    folder = Path(__file__).parents[2] / "outputs" / "published" / "lab4_small" / "records"
    jobs = paths.load_jobs(folder)
    assert [(job.strength, job.ratio) for job in jobs] == [(s, r) for s in (0.0, 1.5e-4, 1.5e-3) for r in (0.5, 0.9)]
    assert (jobs[2].slim.small.test.correct, jobs[2].slim.small.params) == (1260, 55468)


@pytest.mark.parametrize("content", ["[]", "5", "{}"])
def test_a_job_with_another_record(content, tmp_path):
    (tmp_path / "job_x").mkdir()
    (tmp_path / "job_x" / "record.json").write_text(content)
    with pytest.raises(ValueError, match=r"job_x/record\.json is not as netslim writes it"):
        paths.load_jobs(tmp_path)

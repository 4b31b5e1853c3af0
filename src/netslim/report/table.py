"""The numbers as tidy tables: one row per job, per epoch, per γ; as CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Iterator

from netslim.experiment.measurements import as_written
from netslim.experiment.records import ControlRecord, Epoch, FinishedJob, TrainRecord
from netslim.report.gammas import dead_share, share_under
from netslim.report.results import RECOVERED, SMALL, final, tests

Row = dict[str, str | int | float | None]
COLUMN = {
    "dense": "dense",
    "after pruning": "pruned",
    "after recalibration": "recalibrated",
    **dict(zip(RECOVERED, ("reconstructed", "rescaled"), strict=True)),
    "after fine-tuning": "finetuned",
}


def row(job: FinishedJob, label: str = "") -> Row:
    """One job as one flat row of the CSV. No time, date or machine: a resumed sweep gives the same bits."""
    train, slim, tuned, metric, cut = job.train, job.slim, job.finetune, job.train.metric.name, job.cut
    cells: Row = {
        "part": label,
        "method": job.method,
        "network": train.network,
        "data": train.data,
        "lambda": as_written(job.strength),
        "ratio": job.ratio,
        "seed": job.seed,
        "budget": train.budget,
        "prunable": cut.prunable,
        "removed": cut.removed,
        "delivered_ratio": cut.removed / cut.prunable,
        "threshold": slim.threshold if slim else None,
    }
    cells |= {f"scales_under_{bound:.0e}": share_under(train, bound) for bound in SMALL}
    cells["dead_share"] = dead_share(train)
    for stage, record in (("train", train), ("finetune", tuned)):
        last = record.epochs[-1] if record and record.epochs else {}
        cells |= {f"{stage}_epochs": last.get("epoch")}
        cells |= {f"{stage}_last_{key}": last.get(key) for key in (f"train_{metric}", f"val_{metric}")}
    for stage, name in COLUMN.items():
        test = tests(job).get(stage)
        if stage in RECOVERED and test is None:
            continue
        cells |= {
            f"{name}_correct": test.correct if test else None,
            f"{name}_total": test.total if test else None,
            f"{name}_{metric}": test.score if test else None,
            f"{name}_loss": test.loss if test else None,
        }
    cells |= {f"final_{metric}": final(job)[1].score, "epochs_total": job.epochs_total, "train_macs": job.train_macs}
    cells |= {"dense_params": cut.dense.params, "slim_params": cut.small.params, "params_left": cut.params_left}
    cells |= {"dense_macs": cut.dense.macs, "slim_macs": cut.small.macs, "macs_left": cut.macs_left}
    cells["kept"] = " ".join(str(layer.kept) for layer in cut.layers)
    cells |= {"ratio_of": job.of} if job.target else {}
    stages = {"train": train, "slim": slim, "finetune": tuned}
    return cells | {kind: record.name if record else None for kind, record in stages.items()}


def epochs(jobs: Iterable[tuple[str, FinishedJob]]) -> list[Row]:
    """One row per epoch of every training of (group label, job) pairs, with the columns that any of them has."""
    trainings: dict[tuple[str, str], tuple[str, str, FinishedJob | ControlRecord, list[Epoch]]] = {}
    for label, job in jobs:
        trainings[label, job.train.name] = (label, "train", job, job.train.epochs)
        if job.finetune:
            trainings[label, job.finetune.name] = (label, "finetune", job, job.finetune.epochs)
        for control in job.controls:
            trainings["", control.name] = ("", control.stage, control, control.epochs)
    columns = dict.fromkeys(column for *_, history in trainings.values() for row in history for column in row)
    rows: list[Row] = [
        {
            "part": label,
            "stage": stage,
            "lambda": as_written(job.strength),
            "seed": job.seed,
            "ratio": None if stage == "train" else job.ratio,
            **{column: row.get(column) for column in columns},
        }
        for label, stage, job, history in trainings.values()
        for row in history
    ]
    return rows


def scales(train: TrainRecord, label: str = "") -> Iterator[Row]:
    """One row per γ of a trained network."""
    labels: Row = {"part": label, "lambda": as_written(train.strength), "seed": train.seed}
    for layer, values in train.scales.items():
        yield from ({**labels, "layer": layer, "channel": place, "scale": value} for place, value in enumerate(values))


def to_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV text: floats by `repr` (they read back to the same bits), None as an empty cell; "" without rows.

    The columns are those that any row has.
    """
    text, known = io.StringIO(), list(rows)
    columns = list(dict.fromkeys(itertools.chain.from_iterable(known)))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns] if columns else [])
    writer.writerows(map(cells.get, columns) for cells in known)
    return text.getvalue()

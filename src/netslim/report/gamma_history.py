"""|γ| over the epochs of a training, as its record has it: the histogram of every epoch, and its rows of a CSV."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from netslim.experiment.measurements import as_written
from netslim.experiment.records import TrainRecord
from netslim.method.scale_bins import EDGES
from netslim.report.table import Row

FILE = "gamma-history.csv"
ENDS = list(zip((0.0, *EDGES), (*EDGES, None), strict=True))  # of every bin; the last one is open


def has(train: TrainRecord) -> bool:
    return any(map(any, train.gamma_history))


def known(train: TrainRecord) -> tuple[list[int], np.ndarray]:
    """The epochs that have a histogram, and the γ per bin, shape (epochs, bins)."""
    pairs = zip(train.epochs, train.gamma_history, strict=True) if train.gamma_history else ()
    found = {int(epoch["epoch"]): counts for epoch, counts in pairs if any(counts)}
    return list(found), np.array(list(found.values())).reshape(-1, len(ENDS))


def rows(train: TrainRecord, label: str = "") -> Iterator[Row]:
    """One row per epoch and bin in which there is a γ."""
    labels: Row = {"part": label, "lambda": as_written(train.strength), "seed": train.seed}
    for epoch, counts in zip(*known(train), strict=True):
        for (start, end), count in zip(ENDS, counts.tolist(), strict=True):
            if count:
                yield {**labels, "epoch": epoch, "from": start, "under": end, "count": count}

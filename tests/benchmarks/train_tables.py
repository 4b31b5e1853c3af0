"""The rows of train_vs_plain.py and slim_speed.py as Markdown. Numbers come in, text goes out."""

from __future__ import annotations

import math
from typing import Any

Row = dict[str, Any]

TRAINING = (
    "network",
    "batch",
    "× faster",
    "s per epoch: plain",
    "netslim",
    "images/s: plain",
    "netslim",
    "GB: plain",
    "netslim",
    "outside: plain",
    "netslim",
    "penalty: plain",
    "netslim",
    "steps",
    "end of epoch s",
    "histograms",
)
SLIM = (
    "network",
    "removed",
    "γ",
    "round_to",
    "parameters ÷",
    "MACs ÷",
    "activations ÷",
    "training step ÷",
    "its multiply-adds ÷",
    "the rest ÷",
    "the rest: dense",
    "slim",
    "latency ÷, batch 1",
    "batch 256",
    "training step ms: dense",
    "slim",
    "latency ms, batch 1: dense",
    "slim",
    "batch 256: dense",
    "slim",
)
NOTES = """\
- × faster: seconds per step, plain over netslim, the median of {segments} pairs of segments. s per epoch: {epoch:,}
  images, extrapolated from the steps in the column of that name (plain + netslim), without the end of the epoch.
- outside: share of a step that is neither forward, backward nor optimiser; penalty: share of a step.
- end of epoch: netslim's γ histograms, curves and checkpoint; histograms: their share of the epoch.
- removed: share of the prunable channels asked for. γ: drawn at random, which thins all layers alike; trained: as many
  channels of every layer as in a network trained with the penalty. round_to: kept counts rounded up to multiples of
  it; ÷: dense over slim. activations: elements that a forward pass writes. multiply-adds: time in
  convolutions and matrix products, forward and backward; the rest: BatchNorm, ReLU, additions, selections, pooling,
  optimiser, and its share of a step."""


def markdown(top: str, rows: list[Row], slim_rows: list[Row], epoch: int, segments: int = 3) -> str:
    """Both tables, under `top`; one without rows is left out."""
    parts = [top]
    if rows:
        parts.append(table(TRAINING, [training_cells(row, epoch) for row in rows]))
    if slim_rows:
        parts.append(table(SLIM, [slim_cells(row) for row in slim_rows]))
    return "\n\n".join([*parts, NOTES.format(epoch=epoch, segments=segments)]) + "\n"


def table(head: tuple[str, ...], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def training_cells(row: Row, epoch: int) -> list[str]:
    first = [row["network"], str(row["batch"])]
    if "failed" in row:
        return [*first, row["failed"], *[""] * (len(TRAINING) - 3)]
    sides = [row["plain"], row["netslim"]]
    steps = math.ceil(epoch / row["batch"])
    return [
        *first,
        f"{row['faster']:.2f}",
        *(f"{side['seconds'] * steps:.1f}" for side in sides),
        *(f"{row['batch'] / side['seconds']:.0f}" for side in sides),
        *(f"{side['memory']:.2f}" for side in sides),
        *(f"{side['outside']:.1%}" for side in sides),
        *(f"{side['penalty']:.2%}" for side in sides),
        " + ".join(str(side["steps"]) for side in sides),
        f"{sides[1]['end of epoch']:.2f}",
        f"{sides[1]['histograms'] / (sides[1]['seconds'] * steps):.2%}",
    ]


def slim_cells(row: Row) -> list[str]:
    timed = [row["step"], row["latency 1"], row["latency 256"]]
    return [
        row["network"],
        f"{row['ratio']:.0%}",
        row["scales"],
        str(row["round_to"]),
        *(f"{row[what]:.2f}" for what in ("params", "macs", "activations")),
        f"{row['step']['faster']:.2f}",
        *(f"{row['split'][what]:.2f}" for what in ("multiply", "rest")),
        *(f"{row['split'][which]:.0%}" for which in ("dense", "slim")),
        *(f"{what['faster']:.2f}" for what in timed[1:]),
        *(f"{1000 * what[which]:.1f}" for what in timed for which in ("dense", "slim")),
    ]


def line(row: Row) -> str:
    """One row for a person who waits."""
    if "macs" in row:
        times = f"{row['step']['faster']:.2f} times as fast, MACs ÷ {row['macs']:.2f}"
        return f"{row['network']}, slim, {row['scales']} γ, round_to={row['round_to']}: {times}"
    done = row.get("failed") or f"{row['faster']:.2f} times as fast, outside {row['netslim']['outside']:.1%}"
    return f"{row['network']}, batch {row['batch']}: {done}"

"""The rows of slim_vs_torch_pruning.py as Markdown and CSV. Numbers come in, text goes out."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

Row = dict[str, Any]  # "network" and measurements "<what>_<tool>"; a text where the tool failed

TOOLS = ("keep", "group", "scatter", "torch_pruning")
HEADS = ("keep", "group", "scatter", "Torch-Pruning")
OURS, THEIRS = ("group", "keep", "scatter"), ("torch_pruning",)
RATIOS = (0.3, 0.5, 0.9)
TOLERANCE = 1e-9

RIGHT = (
    "network",
    "netslim s",
    "Torch-Pruning s",
    "× faster",
    "× less CPU",
    "equal: netslim",
    "Torch-Pruning",
    "step: netslim",
    "Torch-Pruning",
)
REMOVED = ("network", *(f"{100 * ratio:g} %: {tool}" for ratio in RATIOS for tool in HEADS))
LOST = ("network", *(f"{which}: {tool}" for which in ("live", "live, not constant", "removed") for tool in HEADS))
SPEED = ("network", *HEADS)
SHARES = {
    "removed": "Share of all BN channels removed",
    "params": "Share of the parameters removed",
    "macs": "Share of the multiply-adds removed",
}
NOTES = """\
- netslim s: `select_channels(coupling="group")` + `slim`; Torch-Pruning s: `BNScalePruner(...)` + `step()`; half of the
  channels, median, float32, batch of one. × less CPU: the same in processor time, which other work does not disturb.
- equal: the smaller network computes what the masked one does, in float64, to 1e-9 of the spread of the outputs; step:
  a forward and backward pass in train mode works, auxiliary heads included. netslim: with all three couplings.
- removed: `group` and Torch-Pruning remove whole channels of residual streams too; `keep`, netslim's default, takes the
  asked share of the channels that one BN layer writes alone, so a smaller share of all; `scatter` takes each layer's by
  itself, from all layers.
- live γ lost: half of the γ of every BN layer are 0, chosen independently, and half of the channels are asked for.
  Zeros of the layers that write one residual stream seldom meet, so whoever removes half of the coupled channels
  removes live ones. not constant: without the γ whose channel is constant anyway because of another layer's 0 (on the
  other side of a depthwise convolution). removed: what the slim network no longer has; in grouped convolutions, which
  need equally many channels per group, netslim rather carries a dead channel along than removes a live one."""


def markdown(rows: list[Row], top: str) -> str:
    """All tables, under `top`."""
    errors = [f"- {row['network']}, {key}: {row[key]}" for row in rows for key in row if is_error(row, key)]
    parts = [
        top,
        table(RIGHT, [right_cells(row) for row in rows]),
        summary(rows),
        *(text for what, title in SHARES.items() for text in (f"{title}, for the share asked:", removed(rows, what))),
        "Share of live γ lost, and of all BN channels removed, where half of the γ are 0:",
        table(LOST, [share_cells(row, ["live_lost", "mattering_lost", "gone"]) for row in rows]),
        "Times as fast as the dense network, half of the channels asked for, forward pass of three images:",
        table(SPEED, [[row["network"], *(number(row[f"speed_{tool}"], "{:.2f}") for tool in TOOLS)] for row in rows]),
        NOTES,
        *(["What failed:\n\n" + "\n".join(errors)] if errors else []),
    ]
    return "\n\n".join(parts) + "\n"


def csv_text(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def table(head: tuple[str, ...], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


def removed(rows: list[Row], what: str) -> str:
    return table(REMOVED, [share_cells(row, [f"{what}_{ratio}" for ratio in RATIOS]) for row in rows])


def right_cells(row: Row) -> list[str]:
    seconds = [number(row[f"seconds_{tool}"], "{:.2f}") for tool in ("group", "torch_pruning")]
    answers = [answer(worst(row, what, tools)) for what in ("deviation", "step") for tools in (OURS, THEIRS)]
    paces = [number(faster(row, clock), "{:.1f}") for clock in ("seconds", "cpu")]
    return [row["network"], *seconds, *paces, *answers]


def share_cells(row: Row, what: list[str]) -> list[str]:
    return [row["network"], *(number(row[f"{key}_{tool}"], "{:.1%}") for key in what for tool in TOOLS)]


def summary(rows: list[Row]) -> str:
    ours, theirs = (sum(right(row, tools) for row in rows) for tools in (OURS, THEIRS))
    text = f"Right (equal, and trains) on {ours} of {len(rows)} networks, Torch-Pruning on {theirs}"
    paces = [pace for pace in map(faster, rows) if isinstance(pace, float)]
    if paces:
        middle = statistics.median(paces)
        text += f"; {min(paces):.1f} to {max(paces):.1f} times as fast as Torch-Pruning, median {middle:.1f}"
    return text + "."


def right(row: Row, tools: tuple[str, ...]) -> bool:
    return all(good(worst(row, what, tools)) for what in ("deviation", "step"))


def worst(row: Row, what: str, tools: tuple[str, ...]) -> Any:
    """The first measurement that is not good, if there is one."""
    values = [row[f"{what}_{tool}"] for tool in tools]
    return next((value for value in values if not good(value)), values[0])


def good(value: Any) -> bool:
    """Is an answer yes, or a deviation small enough?"""
    return value is True or (isinstance(value, float) and value <= TOLERANCE)


def answer(value: Any) -> str:
    if good(value):
        return "yes"
    return f"no ({value.split(':')[0]})" if isinstance(value, str) else f"no ({value:.1g})"


def faster(row: Row, clock: str = "seconds") -> float | str:
    """How many times less time than Torch-Pruning."""
    ours, theirs = row[f"{clock}_group"], row[f"{clock}_torch_pruning"]
    return "–" if isinstance(ours, str) or isinstance(theirs, str) else theirs / ours


def number(value: Any, form: str) -> str:
    if isinstance(value, str):
        return "–" if value == "–" else "fails"
    return form.format(value)


def is_error(row: Row, key: str) -> bool:
    return isinstance(row[key], str) and key != "network"

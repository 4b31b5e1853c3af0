"""The section about sparsity training: accuracy, loss and dead γ over the epochs."""

from __future__ import annotations

from functools import partial

from netslim.experiment.records import TrainRecord
from netslim.report import formats
from netslim.report.figures import curves
from netslim.report.figures.curves import Panel
from netslim.report.render.document import Picture, Section, Table, Text
from netslim.report.results import Group, curve, curve_metric, mean_std

NOTHING = "Left out: the epochs of this task have neither a result nor a loss."
DEAD = "dead_share"  # logged by every training of the command


def accuracy_over_epochs(group: Group) -> list[Section]:
    trained = {strength: group.trained(strength) for strength in group.lambdas}
    every = [record for records in trained.values() for record in records]
    if not any(record.epochs for record in every):
        return []
    key = curve_metric(every)
    unit, (name, how) = formats.unit(group.metric), shown(key, group)
    panel = Panel("", f"{name}, %" if unit.percent else name, _curves(trained, key), unit.scale)
    last = unit.by_lambda({strength: values[-1] for strength, (_, values) in panel.curves.items() if values})
    panels = [panel, curves.last_quarter(panel)] if last else []
    for column, label, scale in (("train_loss", "training loss", 1.0), (DEAD, "dead γ, %", 100.0)):
        if all(column in epoch for record in every for epoch in record.epochs):
            panels.append(Panel("", label, _curves(trained, column), scale))
    text = (
        "Look for what the penalty costs while it acts: a curve of λ > 0 that stays close to λ = 0 pays little for its "
        "sparsity, one that falls behind pays for it here."
    )
    if group.trains_for_ratios:
        text += " Each ratio has a training of its own; this is the one that led to the smallest network."
    if last:
        text += f" At the last epoch the {name} is {last}."
    source = Text("In the paper: equation 1, and “Training with Sparsity” in section 4.3.", quiet=True)
    drawn = [found for found in panels if found]
    shows = _picture(group, drawn, how, f"{name}: {last}") if drawn else Text(NOTHING)
    heading = f"Sparsity Training {title(group)} over Epochs"
    return [Section(heading, [Text(text), source, shows, _ends(group, trained)])]


def _picture(group: Group, panels: list[Panel], how: str, last: str) -> Picture:
    return Picture(
        name=group.file("sparsity-training-accuracy"),
        draw=partial(curves.curves, panels, columns=2),
        alt=f"Line charts over epochs, one line per λ: {formats.listing([panel.ylabel for panel in panels])}. At the "
        f"last epoch, {last}.",
        caption=how,
        data="epochs.csv",
    )


def title(group: Group) -> str:
    name = formats.unit(group.metric).name
    return name[:1].upper() + name[1:]


def shown(key: str, group: Group) -> tuple[str, str]:
    """What curves of this column show, and what the caption has to say about it."""
    name = formats.unit(group.metric).name
    if key.startswith("val_"):
        how = "on the validation split after every epoch; the test set has no part in it."
        return f"validation {name}", f"{title(group)} {how}"
    how = "of every epoch: there is no validation split, and the test set waits for the last epoch."
    return f"training {name}", f"Training {name} {how}"


def _curves(trained: dict[float, list[TrainRecord]], column: str) -> dict[float, curves.Curve]:
    return {strength: curve(records, column) for strength, records in trained.items()}


def _ends(group: Group, trained: dict[float, list[TrainRecord]]) -> Table:
    """The last epoch of every λ."""
    unit = formats.unit(group.metric)
    rows = []
    for strength, records in trained.items():
        ends = [record.epochs[-1] for record in records if record.epochs]
        cells = [
            mean_std(end[key] for end in ends if key in end)
            for key in (f"train_{group.metric.name}", f"val_{group.metric.name}")
        ]
        cells.append(mean_std(record.test.score for record in records))
        rows.append([formats.strength(strength), *map(unit.cell, cells)])
    head = ["λ", "training", "validation", "test"]
    return Table(head, rows, "lrrr", f"{unit.axis.replace(', %', ' in %').capitalize()} at the last epoch.")

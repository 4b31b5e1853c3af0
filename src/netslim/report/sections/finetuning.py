"""The section about fine-tuning: accuracy and loss over its epochs, per ratio."""

from __future__ import annotations

from functools import partial

from netslim.report import formats
from netslim.report.figures import curves
from netslim.report.figures.curves import Panel
from netslim.report.render.document import Picture, Section, Text
from netslim.report.results import Group, curve, curve_metric
from netslim.report.sections.training import NOTHING, shown, title


def accuracy_over_epochs(group: Group) -> list[Section]:
    heading = f"Fine Tuning {title(group)} over Epochs"
    records = [job.finetune for job in group.jobs if job.finetune]
    if not records:
        return [Section(heading, [Text("Left out: this sweep was run without fine-tuning.")])]
    key, unit = curve_metric(records), formats.unit(group.metric)
    name, how = shown(key, group)
    panels = [panel for ratio in group.ratios for panel in _panels(group, ratio, key, name)]
    last = "; ".join(
        f"{panel.title}, {unit.by_lambda({s: values[-1] for s, (_, values) in panel.curves.items() if values})}"
        for panel in panels
        if panel.title
    )
    if not panels:
        return [Section(heading, [Text(NOTHING)])]
    text = (
        "Look for where each curve levels off: a narrow network that ends on the height of the wide one has lost "
        "nothing that this measure sees."
    )
    if last:
        text += f" The {name} at the last epoch: {last}."
    source = (
        "In the paper: “Fine-tuning” in section 4.3. The penalty is off: λ names the training the network came from."
    )
    picture = Picture(
        name=group.file("fine-tuning-accuracy"),
        draw=partial(curves.curves, panels, columns=2),
        alt=f"Line charts of {name} and training loss over the epochs of fine-tuning, one line per λ. {last}.",
        caption=how,
        data="epochs.csv",
    )
    return [Section(heading, [Text(text), Text(source, quiet=True), picture])]


def _panels(group: Group, ratio: float, key: str, name: str) -> list[Panel]:
    """Accuracy, and beside it the loss where it was recorded."""
    unit = formats.unit(group.metric)
    tuned = {strength: found for strength in group.lambdas if (found := group.finetunings(strength, ratio))}
    result, loss = ({s: curve(found, column) for s, found in tuned.items()} for column in (key, "train_loss"))
    heading = f"prune ratio {formats.ratio(ratio, group.of)}"
    panels = [
        Panel(heading, f"{name}, %" if unit.percent else name, result, unit.scale),
        Panel("", "training loss", loss),
    ]
    return [panel for panel in panels if panel.curves and all(epochs for epochs, _ in panel.curves.values())]

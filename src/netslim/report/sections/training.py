"""Sections about sparsity training: accuracy over the epochs, and where it leaves the scaling factors."""

from __future__ import annotations

from statistics import median

from netslim.experiment.records import TrainRecord
from netslim.report import figures, formats
from netslim.report.render.document import Picture, Section, Table, Text
from netslim.report.results import SMALL, Group, curve, curve_metric, mean_std, scales, share_under

# What the curves show, and what the caption has to say about it.
METRIC = {
    "val_accuracy": (
        "validation accuracy",
        "Accuracy on the validation split after every epoch; the test set has no part in it.",
    ),
    "train_accuracy": (
        "training accuracy",
        "Training accuracy of every epoch: there is no validation split, and the test set waits for the last epoch.",
    ),
}


def accuracy_over_epochs(group: Group) -> Section:
    trained = {strength: group.trained(strength) for strength in group.lambdas}
    metric = curve_metric([record for records in trained.values() for record in records])
    name, how = METRIC[metric]
    lines = {strength: curve(records, metric) for strength, records in trained.items()}
    last = formats.by_lambda({strength: values[-1] for strength, (_, values) in lines.items() if values})
    note = formats.seeds_note(len(records) for records in trained.values())
    text = (
        "Look for what the penalty costs while it acts: a curve of λ > 0 that stays close to λ = 0 pays little for its "
        f"sparsity, one that falls behind pays for it here. At the last epoch the {name} is {last}."
    )
    picture = Picture(
        name=group.file("sparsity-training-accuracy"),
        png=figures.curves({"": lines}, ylabel=f"{name}, %"),
        alt=f"Line chart of {name} over epochs, one line per λ. At the last epoch: {last}.",
        caption=f"{how} {note}",
    )
    table = Table(
        head=["λ", "training", "validation", "test", *(f"|γ| < {formats.strength(bound)}" for bound in SMALL), "n"],
        rows=[
            [formats.strength(strength), *_ends(records), str(len(records))] for strength, records in trained.items()
        ],
        align="lrrrrrrr",
        caption=f"At the last epoch, in %: accuracy, and the share of all |γ| under three bounds. {note}",
    )
    source = Text("In the paper: equation 1, and “Training with Sparsity” in section 4.3.", quiet=True)
    return Section("Sparsity Training Accuracy over Epochs", [Text(text), source, picture, table])


def _ends(records: list[TrainRecord]) -> list[str]:
    """Accuracies at the last epoch and shares of small |γ|, as cells of a table."""
    ends = [record.epochs[-1] for record in records]
    cells = [mean_std(end[key] for end in ends if key in end) for key in ("train_accuracy", "val_accuracy")]
    cells.append(mean_std(record.test.score for record in records))
    cells += [mean_std(share_under(record, bound) for record in records if scales(record)) for bound in SMALL]
    return [formats.percent(cell) for cell in cells]


def distribution(group: Group, strength: float) -> Section:
    """The histogram of one λ, on the bins and axes that all λ of the group share."""
    title = f"Scaling Factor Distribution of {formats.label(strength)}"
    records = group.trained(strength)
    if not all(scales(record) for record in records):
        return Section(title, [Text("Left out: no scaling factors are recorded for this training.")])
    every = {value: [scales(record) for record in group.trained(value)] for value in group.lambdas}
    edges = figures.bins([run for runs in every.values() for run in runs])
    highest = max(float(figures.counts(runs, edges).max()) for runs in every.values())
    thresholds = {
        ratio: value.mean
        for ratio in group.ratios
        if (value := mean_std(job.slim.threshold for job in group.at(strength, ratio)))
    }
    png = figures.histogram(
        figures.counts(every[strength], edges),
        edges,
        thresholds=thresholds,
        look=figures.style(group.lambdas.index(strength), len(group.lambdas)),
        top=max(2 * highest, 10.0),
    )
    said = _scales_said(group, strength)
    note = "One run (n = 1)."
    if len(records) > 1:
        note = f"Mean count over n = {len(records)} seeds, with ± one sample standard deviation."
    caption = (
        f"Channels per bin of |γ| over all BatchNorm layers; the same {len(edges) - 1} bins and axes for every λ, "
        f"counts on a logarithmic scale. The lines mark the largest |γ| that each ratio removes. {note}"
    )
    picture = Picture(
        group.file(f"scales-lambda-{formats.strength(strength)}"), png, f"Histogram of |γ|. {said}", caption
    )
    text = Text(
        f"Look for how much gathers at the left edge: the method rests on these channels being cheap to remove. {said}"
    )
    source = Text("In the paper: “Channel Sparsity Regularization” in section 5, figure 4.", quiet=True)
    return Section(title, [text, source, picture])


def _scales_said(group: Group, strength: float) -> str:
    """Number of γ, share near zero, median and largest, beside λ = 0 when the sweep has it."""
    records = group.trained(strength)
    runs = [[value for value in scales(record) if value == value] for record in records]
    middle, most = mean_std(median(run) for run in runs if run), mean_std(max(run) for run in runs if run)
    lost = sum(len(scales(record)) for record in records) - sum(len(run) for run in runs)
    if not middle or not most:
        return "Training diverged: no γ is a number."
    small = formats.percent(mean_std(share_under(record, 1e-2) for record in records if scales(record)))
    base = formats.percent(mean_std(share_under(record, 1e-2) for record in group.trained(0.0) if scales(record)))
    against = f" (λ = 0: {base} %)" if strength and 0.0 in group.lambdas else ""
    said = (
        f"Of the {formats.count(len(scales(records[0])))} |γ|, {small} % are under 1e-2{against}; the median is "
        f"{middle.mean:.3g} and the largest {most.mean:.3g}."
    )
    return f"{said} {lost} γ are not a number and are not drawn." if lost else said

"""The section about where sparsity training leaves the scaling factors γ, and what λ could do there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from statistics import median

import numpy as np

from netslim.experiment.records import TrainRecord
from netslim.method.scale_bins import bins_under
from netslim.report import formats, gamma_history
from netslim.report.figures import gamma
from netslim.report.figures.gamma_history import over_epochs
from netslim.report.gammas import scales, share_under
from netslim.report.render.document import Block, Picture, Points, Section, Table, Text
from netslim.report.results import SMALL, Group, mean_std

START = 0.5  # γ of a new network, in the paper
LAB = (1e-5, 1e-4)
MAPS = 6  # λ of which |γ| over the epochs is drawn
AUTHORS = 65987.0  # Σlr/(1 − momentum) of the authors' schedule: 160 epochs of 782 steps, lr 0.1, 0.01, 0.001
BUDGET = (
    "The shrinkage budget of a λ is λ·Σlr/(1 − momentum) over all optimiser steps: the distance that the penalty alone "
    "can move a γ. It makes runs of different length and learning rate comparable; the paper starts γ at 0.5."
)


def distributions(group: Group) -> list[Section]:
    trained = {strength: group.trained(strength) for strength in group.lambdas}
    known = {strength: records for strength, records in trained.items() if all(map(scales, records))}
    text = "Look for how much gathers at the left edge: the method rests on these channels being cheap to remove."
    source = Text("In the paper: “Channel Sparsity Regularization” in section 5, figure 4.", quiet=True)
    blocks: list[Block] = [Text(text), source]
    blocks += [
        Text(f"{formats.label(strength)}. Left out: no scaling factors are recorded for this training.")
        for strength in trained.keys() - known.keys()
    ]
    if known:
        blocks += [_picture(group, known), _shares(known)]
    blocks += _over_epochs(group, trained)
    blocks += [_budgets(group), *_advice(group)]
    return [Section(f"Scaling Factor Distribution of λ = {_names(group.lambdas)}", blocks)]


def _names(strengths: Sequence[float]) -> str:
    """All of a few, the ends of many."""
    words = [formats.strength(value) for value in strengths]
    return formats.listing(words) if len(words) <= 6 else f"{words[0]} to {words[-1]}"


def _picture(group: Group, known: dict[float, list[TrainRecord]]) -> Picture:
    runs = {strength: [scales(record) for record in records] for strength, records in known.items()}
    every = [run for found in runs.values() for run in found]
    linear, log = gamma.bins(every), gamma.log_bins(every)
    rows = [
        gamma.Row(strength, gamma.counts(found, linear), gamma.counts(found, log), _thresholds(group, strength))
        for strength, found in runs.items()
    ]
    return Picture(
        name=group.file("scaling-factors"),
        draw=partial(gamma.distributions, rows, linear, log),
        alt=f"Histograms of |γ|, a row per λ. {' '.join(_said(s, records) for s, records in known.items())}",
        caption=f"Channels per bin of |γ| over all BatchNorm layers, on the same {len(linear) - 1} bins and axes for "
        f"every λ; counts on a logarithmic scale. On the right |γ| under {gamma.SMALLEST:g} is in the first bin.",
        data="scales.csv",
    )


def _over_epochs(group: Group, trained: Mapping[float, Sequence[TrainRecord]]) -> list[Block]:
    """Heat maps of the first seed with a history: of every λ, or of MAPS of them, the first and the last included."""
    found = {s: record for s, records in trained.items() for record in reversed(records) if gamma_history.has(record)}
    if not found:
        return []
    names, last = list(found), len(found) - 1
    if len(found) > MAPS:
        names = [names[round(place * last / (MAPS - 1))] for place in range(MAPS)]
    maps = {strength: gamma_history.known(found[strength]) for strength in names}
    said = [f"{formats.label(strength)}: {_moved(*shown)}" for strength, shown in maps.items()]
    return [
        Picture(
            name=group.file("gamma-history"),
            draw=partial(over_epochs, maps),
            alt=f"Heat maps of |γ| over the epochs, a panel per λ. Share of |γ| under 1e-2. {' '.join(said)}",
            caption=f"|γ| over the epochs of the sparsity training with seed {_seeds(found.values())}: the deeper the "
            "colour, the more γ (on a logarithmic scale); the lowest row holds all under 1e-4.",
            data=gamma_history.FILE,
        )
    ]


def _seeds(records: Iterable[TrainRecord]) -> str:
    return formats.listing([str(seed) for seed in sorted({record.seed or 0 for record in records})])


def _moved(epochs: Sequence[int], counts: np.ndarray) -> str:
    shares = 100 * counts[:, : bins_under(1e-2)].sum(axis=1) / counts.sum(axis=1)
    return f"{shares[0]:.1f} % after epoch {epochs[0]}, {shares[-1]:.1f} % after epoch {epochs[-1]}."


def _thresholds(group: Group, strength: float) -> dict[float, float]:
    """The largest |γ| that each ratio removes; none where channels were ranked by something else."""
    jobs = {ratio: group.at(strength, ratio) for ratio in group.ratios}
    return {
        ratio: value.mean
        for ratio, found in jobs.items()
        if (value := mean_std(job.slim.threshold for job in found if job.slim and job.slim.unit == "|γ|"))
    }


def _said(strength: float, records: Sequence[TrainRecord]) -> str:
    share = formats.percent(mean_std(share_under(record, 1e-2) for record in records))
    return f"{formats.label(strength)}: {share} % are under 1e-2."


def _shares(known: dict[float, list[TrainRecord]]) -> Table:
    """Shares near zero, median and largest of every λ."""
    return Table(
        head=["λ", *(f"|γ| < {formats.strength(bound)}" for bound in SMALL), "median", "largest"],
        rows=[[formats.strength(strength), *_row(records)] for strength, records in known.items()],
        align="lrrrrr",
        caption=_counted(known),
    )


def _row(records: Sequence[TrainRecord]) -> list[str]:
    runs = [run for record in records if (run := _finite(record))]
    shares = [formats.percent(mean_std(share_under(record, bound) for record in records)) for bound in SMALL]
    if not runs:
        return [*shares, formats.NONE, formats.NONE]
    ends = [sum(of(run) for run in runs) / len(runs) for of in (median, max)]
    return [*shares, *(f"{value:.3g}" for value in ends)]


def _finite(record: TrainRecord) -> list[float]:
    return [value for value in scales(record) if value == value]


def _counted(known: dict[float, list[TrainRecord]]) -> str:
    """How many γ there are, and how many are no number."""
    records = [record for found in known.values() for record in found]
    lost = sum(len(scales(record)) - len(_finite(record)) for record in records)
    said = f"Share of the {formats.count(len(scales(records[0])))} |γ| under three bounds, in %."
    if lost == sum(len(scales(record)) for record in records):
        return f"{said} Training diverged: no γ is a number."
    return f"{said} {lost} γ are not a number and are not drawn." if lost else said


def _budgets(group: Group) -> Table:
    """Every λ with its budget and the λ that has the same budget in the authors' schedule."""
    found = {job.strength: job.train.budget for job in group.jobs}
    return Table(
        head=["λ", "shrinkage budget", "λ of the same budget in the authors’ schedule"],
        rows=[[formats.strength(strength), *_budget(budget)] for strength, budget in found.items()],
        align="lrr",
        caption=BUDGET,
    )


def _budget(budget: float | None) -> list[str]:
    """Nothing is known of a penalty other than L1 that does not say it."""
    return [formats.NONE, formats.NONE] if budget is None else [f"{budget:.3g}", _rounded(budget / AUTHORS)]


def _rounded(strength: float) -> str:
    """λ with two digits."""
    return formats.strength(float(f"{strength:.2g}"))


def _advice(group: Group) -> list[Block]:
    """The lab's λ in this schedule, and which λ are too small to matter."""
    known = {job.strength: job.train.budget or 0.0 for job in group.jobs}
    found = {strength: budget for strength, budget in known.items() if strength > 0 and budget > 0}
    if not found:
        return []
    per = max(found.values()) / max(found, key=lambda strength: found[strength])
    same = formats.listing([f"{formats.label(lab)} is λ = {_rounded(lab * AUTHORS / per)} here" for lab in LAB])
    items = [f"At the same shrinkage budget the lab’s {same}."]
    items += [
        f"{formats.label(strength)} is too small to make channels sparse: its budget of {budget:.2g} cannot bring a γ "
        f"from {START:g} to 0."
        for strength, budget in sorted(found.items())
        if budget < START
    ]
    return [Points(items)]

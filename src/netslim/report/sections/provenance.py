"""The section about how it was run: command, versions, hardware, shrinkage budgets, wall-clock of every stage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netslim.experiment.records import FinishedJob, Run, StageRecord, SweepRecord
from netslim.report import formats, unfinished
from netslim.report.render.document import Lines, Section, Table, Text
from netslim.report.results import Group, Trained

Stage = tuple[str, StageRecord, FinishedJob, Run]  # kind, record, a job that uses it, when and how long

BUDGET = (
    "The shrinkage budget of a λ is λ·Σlr/(1 − momentum) over all optimiser steps: the distance that the penalty alone "
    "can move a γ. It makes runs of different length and learning rate comparable; the paper starts γ at 0.5."
)


def distinct(values: Iterable[str]) -> list[str]:
    """Every value once, in the order of its first appearance."""
    return list(dict.fromkeys(values))


def how_it_was_run(groups: Sequence[Group], sweep: SweepRecord | None) -> Section:
    jobs = [job for group in groups for job in group.jobs]
    commands = distinct(command.command for command in unfinished.asked(sweep) or jobs)
    stages = _stages(jobs)
    runs = [run for *_, run in stages]
    versions = [", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in runs]
    tuned = [job.finetune for job in jobs if job.finetune]
    facts = {
        "network": distinct(group.network for group in groups),
        "data set": distinct(group.data for group in groups),
        "seed": [formats.listing([str(seed) for seed in sorted({job.seed for job in jobs})])],
        "training": distinct(_schedule(job.train) for job in jobs),
        "fine-tuning": distinct(map(_schedule, tuned)) or ["not run"],
        "hardware": distinct(run.hardware for run in runs),
        "versions": distinct(versions),
        "wall-clock": [f"{formats.duration(sum(run.seconds for run in runs))}, the sum over all stages"],
    }
    table = Table(["", ""], [[name, "; ".join(values)] for name, values in facts.items()], "lw", "")
    return Section("How It Was Run", [Lines(commands), table, Text(BUDGET), _budgets(groups), _clock(stages)])


def _schedule(record: Trained) -> str:
    epochs = record.epochs
    rates = [epoch["lr"] for epoch in epochs if "lr" in epoch]
    return f"{len(epochs)} epochs" + (f", learning rate {rates[0]:g} at first, {rates[-1]:g} at last" if rates else "")


def _budgets(groups: Sequence[Group]) -> Table:
    jobs = [(group.label, job) for group in groups for job in group.jobs]
    numbers = {(label, job.strength, job.train.budget) for label, job in jobs}
    ordered = sorted(numbers, key=lambda row: (row[0], row[1], row[2] or 0.0))
    found = [(label, strength, formats.NONE if value is None else f"{value:.3g}") for label, strength, value in ordered]
    if len(groups) > 1:
        rows = [[label, formats.strength(strength), budget] for label, strength, budget in found]
        return Table(["part", "λ", "shrinkage budget"], rows, "llr", "In units of γ.")
    rows = [[formats.strength(strength), budget] for _, strength, budget in found]
    return Table(["λ", "shrinkage budget"], rows, "lr", "In units of γ.")


def _stages(jobs: Sequence[FinishedJob]) -> list[Stage]:
    """Every record once though jobs share trainings."""
    found: dict[str, Stage] = {}
    for kind in ("train", "slim", "finetune", "more"):
        for job in jobs:
            of_kind = getattr(job, kind) or []
            for record in of_kind if isinstance(of_kind, list) else [of_kind]:
                if record.run:
                    found.setdefault(record.name, (record.stage or kind, record, job, record.run))
    return list(found.values())


def _clock(stages: Sequence[Stage]) -> Table:
    rows = []
    for stage, record, job, run in stages:
        ratio = formats.NONE if stage == "train" else formats.ratio(job.ratio)
        epochs = str(len(record.epochs)) if isinstance(record, Trained) else formats.NONE
        cells = [stage, formats.strength(job.strength), ratio, str(job.seed), epochs]
        rows.append([*cells, formats.duration(run.seconds), run.started.replace("T", " ")])
    return Table(
        head=["stage", "λ", "ratio", "seed", "epochs", "wall-clock", "started"],
        rows=rows,
        align="llrrrrr",
        caption="Jobs of one λ and seed share their training.",
        folded=f"Wall-clock of all {len(rows)} stages" if len(rows) > 20 else "",
        grouped=True,
    )

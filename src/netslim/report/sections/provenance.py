"""The section about how it was run: commands, versions, hardware, wall-clock of every stage."""

from __future__ import annotations

from collections.abc import Sequence

from netslim.experiment.records import FinishedJob, Run, StageRecord
from netslim.experiment.sweep_record import SweepRecord
from netslim.report import formats, unfinished
from netslim.report.render.document import Fold, Lines, Section, Table
from netslim.report.results import Group, Trained

Stage = tuple[str, StageRecord, FinishedJob, Run]  # kind, record, a job that uses it, when and how long


def how_it_was_run(groups: Sequence[Group], sweeps: Sequence[SweepRecord]) -> Section:
    jobs = [job for group in groups for job in group.jobs]
    asked = [command for sweep in sweeps for command in unfinished.asked(sweep)]
    commands = formats.distinct(command.command for command in asked or jobs)
    stages = _stages(jobs)
    runs = [run for *_, run in stages]
    versions = [", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in runs]
    tuned = [job.finetune for job in jobs if job.finetune]
    facts = {
        "network": formats.distinct(group.network for group in groups),
        "data set": formats.distinct(group.data for group in groups),
        "seed": [formats.listing([str(seed) for seed in sorted({job.seed for job in jobs})])],
        "training": formats.distinct(_schedule(job.train) for job in jobs),
        "fine-tuning": formats.distinct(map(_schedule, tuned)) or ["not run"],
        "hardware": formats.distinct(run.hardware for run in runs),
        "versions": formats.distinct(versions),
        "wall-clock": [f"{formats.duration(sum(run.seconds for run in runs))}, the sum over all stages"],
    }
    table = Table(["", ""], [[name, "; ".join(values)] for name, values in facts.items()], "lw", "")
    return Section("How It Was Run", [Fold("Commands, versions and times", [Lines(commands), table, _clock(stages)])])


def _schedule(record: Trained) -> str:
    epochs = record.epochs
    rates = [epoch["lr"] for epoch in epochs if "lr" in epoch]
    return f"{len(epochs)} epochs" + (f", learning rate {rates[0]:g} at first, {rates[-1]:g} at last" if rates else "")


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
        ratio = formats.NONE if stage == "train" else formats.ratio(job.ratio, job.of)
        epochs = str(len(record.epochs)) if isinstance(record, Trained) else formats.NONE
        cells = [stage, formats.strength(job.strength), ratio, str(job.seed), epochs]
        rows.append([*cells, formats.duration(run.seconds), run.started.replace("T", " ")])
    return Table(
        head=["stage", "λ", "ratio", "seed", "epochs", "wall-clock", "started"],
        rows=rows,
        align="llrrrrr",
        caption="Jobs of one λ and seed share their training.",
        grouped=True,
    )

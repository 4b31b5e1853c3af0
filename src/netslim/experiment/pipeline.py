"""The pipeline of the paper's figure 2: train with sparsity, slim, fine-tune, record.

    train(λ, seed) ──► slim(ratio) ──► fine-tune(λ = 0) ──► controls and stages of one's own ──► record of the job
    L1 on γ beside      threshold,       same recipe,
    the loss            emit, measure    slim network

Other schedules go through slim several times, with sparsity training between the rounds (retrain), or make the network
smaller inside the training, where there is no slim stage.

Each arrow is a stage with a folder under ``outputs/``: written once, skipped when finished, shared by all jobs that
need it (three λ and two ratios train three times), resumed at the last whole epoch when it was killed. With several
processes (``trainer=ddp``) both trainings are shared by all of them; rank 0 alone slims and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from netslim.data import identity, scan
from netslim.experiment import exporting, paths, records, shrinking
from netslim.experiment.findings import BESIDE, ExportRecord
from netslim.experiment.job import Job
from netslim.experiment.measurements import as_written
from netslim.experiment.plan import plan_of
from netslim.experiment.records import ControlRecord, JobRecord, SlimRecord, TrainRecord
from netslim.experiment.scanning import scanning
from netslim.experiment.stage import Finished, Stage, finish
from netslim.experiment.stages import finetune, retrain, slim, train
from netslim.files import write_json
from netslim.method.auto_strength import check_auto
from netslim.method.schedules import OneShot, sparse_epochs
from netslim.training import distributed
from netslim.training.loggers import log_final


def check(job: Job) -> None:
    """Refuse what can be known to be wrong before anything is computed.

    Raises:
        ValueError: a ratio, a schedule, a control, or a distillation, that cannot be.
    """
    job.slimming(**job.amount, network="network", split="test")
    stages_of(job)
    exporting.check(job)
    if job.scan and job.shrinks:
        raise ValueError("scan=true looks at a trained network before its cut, and this schedule cuts in the training")
    if job.shrinks:
        shrinking.check(job)
    if job.distillation is not None and not job.finetune_epochs:
        raise ValueError(
            "finetune.distill: there is no fine-tuning that could learn from the dense network (finetune.epochs=0); "
            "set it to 0, or give finetune.epochs"
        )
    if job.auto:
        _check_auto(job)


def _check_auto(job: Job) -> None:
    """Refuse what a training that finds its λ cannot serve."""
    if job.ratio is None:
        raise ValueError(f"lambda=auto brings γ to 0 for a ratio, and there is {', '.join(job.target)}; give a ratio")
    if not isinstance(job.schedule, OneShot):
        name = type(job.schedule).__name__
        raise ValueError(f"lambda=auto finds λ for one cut after the training; with {name} give λ as a number")
    if job.epochs < 2:
        raise ValueError(f"epochs={job.epochs}: lambda=auto follows γ from epoch to epoch; give 2 or more")
    check_auto(job.ratio)


def stages_of(job: Job) -> list[Stage]:
    """Everything that the job does, in order; a stage's name tells its folder before it is done."""
    stages, rounds = [train(job)], job.rounds()
    for number, amount in enumerate(rounds, start=1):
        stages.append(slim(job, amount, after=stages))
        if number < len(rounds) and sparse_epochs(job.schedule, job.epochs):
            stages.append(retrain(job, amount, after=stages))
        elif job.finetune_epochs:
            stages.append(finetune(job, amount, after=stages))
    if job.shrinks and job.finetune_epochs:
        stages.append(finetune(job, job.amount, after=stages))
    beside = [exporting.exporting(job, tuple(stages))] if job.export else []
    for make in (*job.controls, *job.stages):
        stages.append(make(job, tuple(stages)))
    before = [scanning(job, stages)] if job.scan else []
    return [stages[0], *before, *stages[1:], *beside]


@scan.once()
def run(sweep: Path, job: Job) -> JobRecord:
    """Do the job's stages, those that are not finished, in the folder of a sweep; write its record.

    Raises:
        ValueError: what is asked for cannot be; it is refused before the first training as far as it can be known.
    """
    check(job)
    runner = job.trainer(logger=False, callbacks=[], enable_checkpointing=False)
    processes = distributed.launch(runner, job.asked(), sweep)
    job = identified(sweep, job, processes)
    job = replace(job, plans=(plan_of(sweep, stages_of(job)), *job.plans))
    stages, done = stages_of(job), dict[str, Finished]()
    for stage in stages:
        if stage.record is ExportRecord:  # if it fails, the job is done all the same
            distributed.on_rank_zero(lambda: write(sweep, job, done))
        done[stage.name] = finish(sweep, stage, done)
    return distributed.on_rank_zero(lambda: write(sweep, job, done))


def identified(sweep: Path, job: Job, processes: int) -> Job:
    """The job with what else determines its stages: how many processes train, and the content of files."""
    # Batches are per process: with another number of them it is another training.
    job = job.of(processes=processes) if processes > 1 else job
    memory = sweep.parent / ".identity"
    known = distributed.agreed("the content", lambda: identity.of(job.places, job.settings["train"], memory))
    return job.of(identity=known) if known else job


def write(sweep: Path, job: Job, done: Mapping[str, Finished]) -> JobRecord:
    """Write which stages the job consists of, and log its final numbers."""
    main: dict[str, Any] = {finished.record.stage: finished.record for finished in done.values()}
    stages: dict[str, Any] = {kind: main[kind].name if kind in main else None for kind in ("train", "slim", "finetune")}
    controls = [name for name, finished in done.items() if isinstance(finished.record, ControlRecord)]
    beside = [name for name in done if name.partition("_")[0] in BESIDE]
    more = [name for name in done if name not in (*stages.values(), *controls, *beside)]
    labels = {"lambda": job.strength, **job.amount, "seed": job.seed}
    folder = paths.job_folder(sweep, stages | ({"more": more} if more else {}), **labels)
    earlier = _earlier(folder / "record.json")
    known = earlier.controls if earlier else []
    also = earlier.beside if earlier else []
    if earlier and set(controls) <= set(known) and set(beside) <= set(also):
        return earlier
    asked = {"lambda": job.strength, "ratio": job.ratio, "target": dict(job.target), "seed": job.seed}
    others = {"more": more, "controls": list(dict.fromkeys([*known, *controls])), "method": job.method}
    others["beside"] = list(dict.fromkeys([*also, *beside]))
    record = msgspec.convert({**asked, **stages, **others, "command": job.command}, JobRecord)
    if not earlier:
        _log(job, sweep, main)
    write_json(folder / "record.json", records.plain(record))
    return record


def _earlier(path: Path) -> JobRecord | None:
    """The record of a job that was done before, perhaps with other controls."""
    return records.read(path, JobRecord) if path.exists() else None


def _log(job: Job, sweep: Path, main: Mapping[str, Any]) -> None:
    """λ, ratio and seed beside what they led to, for every logger, in the folder of the job's last stage."""
    train, slim, tuned, name = main["train"], main.get("slim"), main.get("finetune"), main["train"].metric.name
    small = records.cut_of(train, slim).small
    final = {
        **(_after_slimming(train, slim, name) if slim else {f"final/{name}": train.test.score}),
        **({f"final/fine-tuned {name}": tuned.test.score} if tuned else {}),
        "final/parameters": small.params,
        "final/MACs": small.macs,
    }
    last = tuned or slim or train
    for make in job.loggers:
        logger = make(sweep / last.name, len(getattr(last, "epochs", ())))  # after its curves
        log_final(logger, {"λ": as_written(job.strength), **job.amount, "seed": job.seed}, final)


def _after_slimming(train: TrainRecord, slim: SlimRecord, name: str) -> dict[str, float]:
    return {
        f"final/dense {name}": train.test.score,
        f"final/pruned {name}": slim.small.test.score,
        f"final/recalibrated {name}": slim.recalibrated.test.score,
    }

"""Every path and file format under ``outputs/``.

    outputs/<sweep>/
        sweep.json                                  the jobs that were asked for
        train_lambda=0.0001_seed=0_<digest>/        a stage: record.json, weights.pt, scales.json, TensorBoard events
        slim_lambda=0.0001_ratio=0.5_..._<digest>/  a stage: record.json, slim.pt
        finetune_..._<digest>/                      a stage: record.json, slim.pt, TensorBoard events
        job_lambda=0.0001_ratio=0.5_seed=0_<digest>/  which stages a job consists of, its TensorBoard hparams
        report/                                     index.html, report.md, results.csv, figures/

A stage is named by what a reader wants to know and by a digest of everything that determines its result; a changed
setting is another stage. ``record.json`` is written last: where it exists, the stage is finished. Every file appears
whole or not at all. Nothing here is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from netslim.experiment import records
from netslim.files import Record, read_json, write_json
from netslim.measure.environment import updated

log = logging.getLogger("netslim")
AnyStage = TypeVar("AnyStage", bound=records.StageRecord)

# Settings that cannot change a result: they make no other stage, and no other job. Of the devices only their total
# matters; pipeline.run adds it.
WITHOUT_EFFECT = {"outputs", "name", "threads", "data.cache_dir", "data.eval_batch_size"}
WITHOUT_EFFECT |= {f"trainer.{key}" for key in ("accelerator", "strategy", "devices", "num_nodes")}
WITHOUT_EFFECT |= {"trainer.enable_progress_bar", "trainer.enable_model_summary"}


def digest(settings: Mapping[str, Any]) -> str:
    """Eight hex digits that change whenever a setting does, whatever the order of the keys.

    >>> digest({"a": 1, "b": [2.0]}) == digest({"b": [2.0], "a": 1}) != digest({"a": 1, "b": [2.5]})
    True
    """
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def label(**parts: float | int) -> str:
    """The readable half of a folder's name.

    >>> label(lambda_=1e-4, ratio=0.5, seed=0)
    'lambda=0.0001_ratio=0.5_seed=0'
    """
    short = {key.rstrip("_"): f"{value:g}" for key, value in parts.items()}
    exact = {key.rstrip("_"): repr(value) for key, value in parts.items()}
    return "_".join(f"{key}={text if float(text) == float(exact[key]) else exact[key]}" for key, text in short.items())


def sweep_folder(outputs: str, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        ValueError: ``name`` leads out of ``outputs``.

    >>> sweep_folder("outputs", "lab4").as_posix()
    'outputs/lab4'
    """
    folder = Path(outputs) / name
    if folder.resolve() == Path(outputs).resolve() or not folder.resolve().is_relative_to(Path(outputs).resolve()):
        raise ValueError(f"name={name} is no folder inside outputs={outputs}; choose a plain name, such as name=lab4")
    return folder


def stage(
    sweep: Path, kind: str, settings: Mapping[str, Any], work: Callable[[Path], Record], **labels: float
) -> Record:
    """Do ``work`` in the stage's folder unless it is finished; return its record either way.

    One process at a time works on a stage; others that need it wait at its lock and find it finished. ``work`` gets the
    folder, may find there what an interrupted attempt left, and returns the record (JSON-able).

    Raises:
        ValueError: a record belongs to other settings than its folder's name says (the folder was copied or edited).
    """
    from netslim.training import distributed  # here: the command and the report read records without torch

    folder = sweep / f"{kind}_{label(**labels)}_{digest(settings)}"
    # The kernel releases the lock of a process that dies, so a killed job leaves no stale lock behind.
    lock = FileLock(folder / ".lock", mode=0o666)
    try:
        done = distributed.on_rank_zero(lambda: _begin(folder, lock, settings))
        if done is None:
            told = distributed.on_all_ranks(lambda: work(folder))
            head = {"stage": kind, "name": folder.name, **{k.rstrip("_"): v for k, v in labels.items()}}
            done = distributed.on_rank_zero(lambda: _finish(folder, {**head, **told}))
    finally:
        lock.release()
    if done.get("name") != folder.name:
        raise ValueError(f"{folder}/record.json is the record of {done.get('name')}; remove the folder and start again")
    return done


def _begin(folder: Path, lock: FileLock, settings: Mapping[str, Any]) -> Record | None:
    """Wait until no other process is at the stage; its record if that finished it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder.name}: another job is at it; waiting", flush=True)
        lock.acquire()
    done = finished(folder)
    if done is None:
        for scrap in folder.glob(".*.*"):  # a write that was cut off
            scrap.unlink()
        write_json(folder / "settings.json", dict(settings))
    elif changes := updated(done.get("run", {}).get("versions", {})):
        log.warning("%s: reused, it was made with %s (to make it anew, remove the folder)", folder.name, changes)
    return done


def _finish(folder: Path, record: Record) -> Record:
    write_json(folder / "record.json", record)
    (folder / "last.ckpt").unlink(missing_ok=True)
    return record


def finished(folder: Path) -> Record | None:
    """The record of a finished stage or job, None where there is none yet."""
    path = folder / "record.json"
    if not path.exists():
        return None
    record: Record = read_json(path)
    if not isinstance(record, dict):
        raise records.schema_error(path, f"it is {record!r:.40}")
    return record


def made(folder: Path, name: str) -> Path:
    """A file of a finished stage.

    Raises:
        ValueError: it is not there any more.
    """
    if not (folder / name).exists():
        raise ValueError(f"{folder / name} is missing; remove the folder {folder} and give the command again")
    return folder / name


# Sweeps and jobs.


def write_sweep(sweep: Path, command: str, jobs: list[list[str]], earlier: Sequence[records.Asked] = ()) -> None:
    """Remember what was asked for: the command, the overrides of every job; the same of earlier commands."""
    asked = records.SweepRecord(command=command, jobs=jobs, earlier=list(earlier))
    write_json(sweep / "sweep.json", records.plain(asked))


def load_sweep(sweep: Path) -> records.SweepRecord | None:
    path = sweep / "sweep.json"
    return records.read(path, records.SweepRecord) if path.exists() else None


def job_folder(sweep: Path, stages: Mapping[str, str | None], **labels: float) -> Path:
    """Where the record of a job is; other stages (another network, other settings) are another job."""
    return sweep / f"job_{label(**labels)}_{digest(stages)}"


def load_jobs(sweep: Path) -> list[records.FinishedJob]:
    """The finished jobs of a sweep, by λ, ratio and seed, with the records of their stages in place of the names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a record is damaged, or a job names a stage that is not there.
    """
    if not sweep.is_dir():
        raise FileNotFoundError(f"no folder {sweep}; give the folder of a sweep, such as outputs/lab4_digits")
    jobs = [_load_job(sweep, path) for path in sorted(sweep.glob("job_*/record.json"))]
    return sorted(jobs, key=lambda job: (job.strength, job.ratio, job.seed))


def _load_job(sweep: Path, path: Path) -> records.FinishedJob:
    job = records.read(path, records.JobRecord)
    return records.FinishedJob(
        strength=job.strength,
        ratio=job.ratio,
        seed=job.seed,
        train=load_stage(sweep / job.train, records.TrainRecord),
        slim=load_stage(sweep / job.slim, records.SlimRecord),
        finetune=load_stage(sweep / job.finetune, records.FinetuneRecord) if job.finetune else None,
        more=[load_stage(sweep / name, records.StageRecord) for name in job.more],
        command=job.command,
    )


def load_stage(folder: Path, kind: type[AnyStage]) -> AnyStage:
    """The record of a finished stage, with its settings and the γ that it left, where there are files of them.

    Raises:
        ValueError: there is no record, or it is damaged.
    """
    if not (folder / "record.json").exists():
        raise ValueError(f"{folder} has no record.json although a job names it; run the sweep's command again")
    record = records.read(folder / "record.json", kind)
    if (settings := folder / "settings.json").exists():
        record.settings = records.read(settings, dict[str, Any])
    if isinstance(record, records.TrainRecord) and (scales := folder / "scales.json").exists():
        record.scales = records.read(scales, dict[str, list[float]])
    return record

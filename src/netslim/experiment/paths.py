"""Every path and file format under ``outputs/``.

    outputs/<sweep>/
        sweep.json                                  the jobs that were asked for
        train_lambda=0.0001_seed=0_<digest>/        a stage: record.json, weights.pt, scales.json, TensorBoard events
        slim_lambda=0.0001_ratio=0.5_..._<digest>/  a stage: record.json, slim.pt
        finetune_..._<digest>/                      a stage: record.json, slim.pt, TensorBoard events
        scratch_..._<digest>/, dense_..._<digest>/  controls, stages too: record.json, slim.pt or weights.pt, events
        job_lambda=0.0001_ratio=0.5_seed=0_<digest>/  which stages a job consists of
        report/                                     index.html, report.md, results.csv, figures/

A stage is named by what a reader wants to know and by a digest of everything that determines its result; a changed
setting is another stage. ``record.json`` is written last: where it exists, the stage is finished. Every file appears
whole or not at all. Nothing here is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from netslim.experiment import records
from netslim.experiment.findings import BESIDE
from netslim.experiment.measurements import AUTO
from netslim.experiment.sweep_record import Asked, SweepRecord
from netslim.files import write_json

AnyStage = TypeVar("AnyStage", bound=records.StageRecord)
Read = Callable[..., Any]  # `stage_record`

# Settings that cannot change a result: they make no other stage, and no other job. Of the devices only their total
# matters; pipeline.run adds it.
WITHOUT_EFFECT = {"outputs", "name", "threads", "quiet", "data.cache_dir", "data.eval_batch_size"}
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
    return "_".join(f"{key.rstrip('_')}={_number(value)}" for key, value in parts.items())


def _number(value: float) -> str:
    """Short where that is exact."""
    if value == AUTO:
        return "auto"
    short, exact = f"{value:g}", repr(value)
    return short if float(short) == float(exact) else exact


def title(folder: Path) -> str:
    """The name of a stage or job for people: without its digest.

    >>> title(Path("outputs/lab4/train_lambda=0.001_seed=0_5d41402a"))
    'train_lambda=0.001_seed=0'
    """
    return folder.name.rsplit("_", 1)[0]


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


def stage_record(folder: Path, kind: type[AnyStage]) -> AnyStage:
    """The record of a finished stage, with its settings and the γ that it left, where there are files of them.

    Raises:
        ValueError: there is no record, it is damaged, or it was made in another folder.
    """
    path = folder / "record.json"
    if not path.exists():
        raise ValueError(f"{folder} has no record.json although a job names it; run the sweep's command again")
    record = records.read(path, kind)
    if record.name != folder.name:
        raise ValueError(f"{path} is the record of {record.name}; remove the folder and start again")
    if (settings := folder / "settings.json").exists():
        record.settings = records.read(settings, dict[str, Any])
    if isinstance(record, records.TrainRecord) and (scales := folder / "scales.json").exists():
        record.scales = records.read(scales, dict[str, list[float]])
    return record


# Sweeps and jobs.


def write_sweep(sweep: Path, command: str, jobs: list[list[str]], earlier: Sequence[Asked] = ()) -> None:
    """Remember what was asked for: the command, the overrides of every job; the same of earlier commands."""
    asked = SweepRecord(command=command, jobs=jobs, earlier=list(earlier))
    write_json(sweep / "sweep.json", records.plain(asked))


def load_sweep(sweep: Path) -> SweepRecord | None:
    path = sweep / "sweep.json"
    return records.read(path, SweepRecord) if path.exists() else None


def job_folder(sweep: Path, stages: Mapping[str, Any], **labels: float) -> Path:
    """Where the record of a job is; other stages (another network, other settings) are another job."""
    return sweep / f"job_{label(**labels)}_{digest(stages)}"


def load_jobs(sweep: Path) -> list[records.FinishedJob]:
    """The finished jobs of a sweep, by λ, ratio and seed, with the records of their stages in place of the names.

    Jobs that share a stage share its record.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a record is damaged, or a job names a stage that is not there.
    """
    if not sweep.is_dir():
        raise FileNotFoundError(f"no folder {sweep}; give the folder of a sweep, such as outputs/lab4_digits")
    once: Read = cache(stage_record)
    jobs = [_load_job(sweep, path, once) for path in sorted(sweep.glob("job_*/record.json"))]
    return sorted(jobs, key=lambda job: (job.strength, job.ratio, job.seed))


def _load_job(sweep: Path, path: Path, read: Read) -> records.FinishedJob:
    job = records.read(path, records.JobRecord)
    train = read(sweep / job.train, records.TrainRecord)
    slim = read(sweep / job.slim, records.SlimRecord) if job.slim else None
    return records.FinishedJob(
        strength=job.strength,
        ratio=records.cut_of(train, slim).to_remove(job.target) if job.ratio is None else job.ratio,
        target=job.target,
        seed=job.seed,
        train=train,
        slim=slim,
        finetune=read(sweep / job.finetune, records.FinetuneRecord) if job.finetune else None,
        more=[read(sweep / name, _kind(name)) for name in job.more],
        beside=[read(sweep / name, _kind(name)) for name in job.beside],
        controls=[read(sweep / name, records.ControlRecord) for name in job.controls],
        method=job.method,
        command=job.command,
    )


def _kind(name: str) -> type[records.StageRecord]:
    """What the record of a stage beside the last round is: earlier rounds have those of the last one."""
    kind = name.partition("_")[0]
    return BESIDE.get(kind) or records.ROUNDS.get(kind, records.StageRecord)

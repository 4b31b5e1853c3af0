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
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

Record = dict[str, Any]


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


def stage(
    sweep: Path, kind: str, settings: Mapping[str, Any], work: Callable[[Path], Record], **labels: float
) -> Record:
    """Do ``work`` in the stage's folder unless it is finished; return its record either way.

    One process at a time works on a stage; others that need it wait at its lock and find it finished. ``work`` gets the
    folder, may find there what an interrupted attempt left, and returns the record (JSON-able).

    Raises:
        ValueError: a record belongs to other settings than its folder's name says (the folder was copied or edited).
    """
    folder = sweep / f"{kind}_{label(**labels)}_{digest(settings)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusive(folder):
        done = finished(folder)
        if done is None:
            write_json(folder / "settings.json", dict(settings))
            record = {"stage": kind, "name": folder.name, **{k.rstrip("_"): v for k, v in labels.items()}}
            done = {**record, **work(folder)}
            write_json(folder / "record.json", done)
            (folder / "last.ckpt").unlink(missing_ok=True)
    if done["name"] != folder.name:
        raise ValueError(f"{folder}/record.json is the record of {done['name']}; remove the folder and start again")
    return done


def finished(folder: Path) -> Record | None:
    """The record of a finished stage or job, None where there is none yet."""
    path = folder / "record.json"
    return read_json(path) if path.exists() else None


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    # The kernel releases the lock of a process that dies, so a killed job leaves no stale lock behind.
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder.name}: another job is at it; waiting", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# Files: whole or not at all.


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, force it to disk, then move it there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file; a file that is not whole is named in the error (ValueError)."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); remove it and run the command again") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    write_bytes(path, buffer.getvalue())


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


# Sweeps and jobs.


def write_sweep(sweep: Path, command: str, jobs: list[list[str]]) -> None:
    """Remember what was asked for: the command, and the overrides of every job."""
    write_json(sweep / "sweep.json", {"command": command, "jobs": jobs})


def load_sweep(sweep: Path) -> Record | None:
    path = sweep / "sweep.json"
    return read_json(path) if path.exists() else None


def job_folder(sweep: Path, stages: Mapping[str, str | None], **labels: float) -> Path:
    """Where the record of a job is; other stages (another network, other settings) are another job."""
    return sweep / f"job_{label(**labels)}_{digest(stages)}"


def load_jobs(sweep: Path) -> list[Record]:
    """The finished jobs of a sweep, by λ, ratio and seed, with the records of their stages in place of the names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a record is damaged, or a job names a stage that is not there.
    """
    if not sweep.is_dir():
        raise FileNotFoundError(f"no folder {sweep}; give the folder of a sweep, such as outputs/lab4_digits")
    jobs = [read_json(path) for path in sorted(sweep.glob("job_*/record.json"))]
    for job in jobs:
        for kind in ("train", "slim", "finetune"):
            if job[kind] is not None:
                job[kind] = _stage_record(sweep, job[kind])
    return sorted(jobs, key=lambda job: (job["lambda"], job["ratio"], job["seed"]))


def _stage_record(sweep: Path, name: str) -> Record:
    record = finished(sweep / name)
    if record is None:
        raise ValueError(f"{sweep / name} has no record.json although a job names it; run the sweep's command again")
    scales = sweep / name / "scales.json"
    return {**record, "scales": read_json(scales)} if scales.exists() else record

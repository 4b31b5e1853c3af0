"""The door ``Stage``: a piece of work with a folder of its own, done once, whoever needs it.

A stage is named by what a reader wants to know and by a digest of everything that determines its result; a changed
setting is another stage. ``record.json`` is written last: where it exists, the stage is finished.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from netslim.experiment import paths, records
from netslim.experiment.records import StageRecord
from netslim.files import write_json
from netslim.measure.environment import updated
from netslim.training.distributed import on_all_ranks, on_rank_zero

log = logging.getLogger("netslim")


@dataclass(frozen=True)
class Finished:
    """A stage that is done: its folder with the files that it left, and its record."""

    folder: Path
    record: StageRecord


@dataclass(frozen=True)
class Stage:
    """A piece of work in a folder ``<kind>_<labels>_<digest of the settings>``.

    Args:
        kind: a word, such as "train".
        after: the names of the stages whose folders and records the work gets.
        settings: plain data, all that determines the result; what the work reads of another stage stands for itself
            by that stage's name.
        work: does it, in the stage's folder, where an interrupted attempt may have left something; gives the record.
        labels: what a reader wants to know, "lambda", "ratio" or a target, "seed"; in the name and in the record.
        record: the type that the record is read as.
        shared: all processes of a data-parallel job do it together, as a training; default: rank 0 alone.

    >>> Stage("count", (), {"a": 1}, lambda folder, done: StageRecord(), {"seed": 0}).name
    'count_seed=0_f9d86028'
    """

    kind: str
    after: tuple[str, ...]
    settings: Mapping[str, Any]
    work: Callable[[Path, Mapping[str, Finished]], StageRecord]
    labels: Mapping[str, float] = field(default_factory=dict)
    record: type[StageRecord] = StageRecord
    shared: bool = False

    @property
    def name(self) -> str:
        return "_".join(
            [self.kind, *filter(None, [paths.label(**self.labels)]), paths.digest(determining(self.settings))]
        )

    @property
    def epochs(self) -> int:
        """How many it trains."""
        return int(self.settings.get("epochs", 0))


def determining(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with what stands in "identity" in place of where it is.

    >>> determining({"data": {"root": "/scratch/x", "flip": True}, "identity": {"data.root": "5d41"}})
    {'data': {'root': '5d41', 'flip': True}}
    """
    found = {key: value for key, value in settings.items() if key != "identity"}
    for key, identity in settings.get("identity", {}).items():
        *above, last = key.split(".")
        inner = found
        for step in above:
            inner[step] = dict(inner[step])
            inner = inner[step]
        inner[last] = identity
    return found


def finish(sweep: Path, stage: Stage, done: Mapping[str, Finished]) -> Finished:
    """Do the stage's work unless it is finished. The one place where rank 0 decides for all processes of a job.

    One process at a time works on a stage; others that need it wait at its lock and find it finished.

    Raises:
        ValueError: the record belongs to other settings than its folder's name says (the folder was copied or edited).
    """
    folder = sweep / stage.name
    # The kernel releases the lock of a process that dies, so a killed job leaves no stale lock behind.
    lock = FileLock(folder / ".lock", mode=0o666)
    needed = {name: done[name] for name in stage.after}
    together = on_all_ranks if stage.shared else on_rank_zero
    try:
        record = on_rank_zero(lambda: _begin(folder, lock, stage))
        if record is None:
            left = together(lambda: stage.work(folder, needed))
            record = on_rank_zero(lambda: _write(folder, stage, left))
    finally:
        lock.release()
    return Finished(folder, record)


def _begin(folder: Path, lock: FileLock, stage: Stage) -> StageRecord | None:
    """Wait until no other process is at the stage; its record if that finished it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s | another job is at it; waiting", paths.title(folder))
        lock.acquire()
    if not (folder / "record.json").exists():
        for scrap in folder.glob(".*.*"):  # a write that was cut off
            scrap.unlink()
        write_json(folder / "settings.json", dict(stage.settings))
        return None
    record = paths.stage_record(folder, stage.record)
    if record.run and (changes := updated(record.run.versions)):
        log.warning("%s: reused, it was made with %s (to make it anew, remove the folder)", folder.name, changes)
    return record


def _write(folder: Path, stage: Stage, record: StageRecord) -> StageRecord:
    labels = {{"lambda": "strength"}.get(key, key): value for key, value in stage.labels.items()}
    target = {key: labels.pop(key) for key in records.TARGETS if key in labels}
    whole = msgspec.structs.replace(record, stage=stage.kind, name=folder.name, target=target, **labels)
    write_json(folder / "record.json", records.plain(whole))
    (folder / "last.ckpt").unlink(missing_ok=True)
    return whole

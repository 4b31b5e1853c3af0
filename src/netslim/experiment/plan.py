"""What a job and a sweep will train: the folder of every stage, and for how many epochs. What of it is left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from netslim.experiment.stage import Stage

Plan = Mapping[str, int]  # folder of a stage -> the epochs that it trains, 0 for one that trains none


def plan_of(sweep: Path, stages: Iterable[Stage]) -> dict[str, int]:
    return {str(sweep / stage.name): stage.epochs for stage in stages}


def unfinished(plan: Plan) -> dict[str, int]:
    """The part of a plan that is still to be done."""
    return {folder: epochs for folder, epochs in plan.items() if not (Path(folder) / "record.json").exists()}


def epochs_after(plan: Plan, current: Path) -> int:
    """How many epochs are left beside those of the stage that is at work."""
    return sum(epochs for folder, epochs in unfinished(plan).items() if Path(folder) != current)

"""Whether the ranks of a data-parallel job were started for the same job: same settings and versions, one folder."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from netslim.measure.environment import versions
from netslim.training.rendezvous import Patience


def facts(settings: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """What must be the same on all ranks: the settings, where the job writes, the packages that compute."""
    where = {} if folder is None else {"the folder": str(folder.resolve())}
    return {**flat(settings), **where, **{f"the version of {name}": version for name, version in versions().items()}}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names.

    >>> flat({"seed": 0, "net": {"name": "vgg19"}})
    {'seed': 0, 'net.name': 'vgg19'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def check(ranks: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Compare the facts of every rank (host, facts) with those of rank 0.

    Raises:
        ValueError: they differ; the message names what differs, and where.
    """
    (host, first), *others = ranks
    for rank, (elsewhere, other) in enumerate(others, 1):
        differing = [key for key in sorted({*first, *other}) if first.get(key, ...) != other.get(key, ...)]
        if differing:
            key = min(differing, key=lambda name: (name.startswith("the "), len(name)))  # what was typed comes first
            raise ValueError(
                f"the processes of this job differ: {key} is {first.get(key, 'not set')} on rank 0 ({host}) and "
                f"{other.get(key, 'not set')} on rank {rank} ({elsewhere}); start all of them alike"
            )


def touch(folder: Path) -> Path:
    """Write a file in ``folder`` for the other ranks to see."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / f".seen_by_all_ranks.{os.getpid()}"
    path.touch()
    return path


def see(path: Path, rank: int) -> None:
    """Wait until this rank sees the file.

    Raises:
        TimeoutError: it never does.
    """
    patience = Patience()
    while not path.exists():
        patience.check(f"rank {rank} on {platform.node()} does not see {path.parent}, where rank 0 writes")
        time.sleep(0.2)

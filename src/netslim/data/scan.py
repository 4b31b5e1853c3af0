"""The files below a folder. A command lists a folder once, for its identity and for every stage that reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

Stamp = tuple[int, int]  # size in bytes, modification time in ns
Listing = dict[str, Stamp]

_KEPT: ContextVar[dict[Path, Listing] | None] = ContextVar("kept", default=None)


def listing(folder: Path) -> Listing:
    """The files below ``folder`` by their path in it, in order; links are followed, hidden files do not count.

    Raises:
        OSError: something cannot be read; it is named.
    """
    kept, place = _KEPT.get(), folder.resolve()
    if kept is None:
        return dict(sorted(_below(folder)))
    if place not in kept:
        kept[place] = dict(sorted(_below(folder)))
    return kept[place]


@contextmanager
def once() -> Iterator[None]:
    """Inside, each folder is listed the first time only: what it was then holds to the end."""
    if _KEPT.get() is not None:
        yield
        return
    before = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(before)


def _below(folder: Path | str, above: str = "") -> Iterator[tuple[str, Stamp]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _below(entry.path, f"{above}{entry.name}/")
            elif entry.is_file():
                status = entry.stat()
                yield f"{above}{entry.name}", (status.st_size, status.st_mtime_ns)

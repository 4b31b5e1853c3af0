"""The record of a sweep, ``sweep.json``: what was asked for in its folder."""

from __future__ import annotations

from msgspec import Struct


class Asked(Struct, kw_only=True):
    """A command, and the overrides of each of its jobs."""

    command: str
    jobs: list[list[str]]


class SweepRecord(Asked, kw_only=True, omit_defaults=True):
    """What was asked for in a folder: by the last command, and by ``earlier`` ones besides."""

    earlier: list[Asked] = []

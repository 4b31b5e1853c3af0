"""Times that were measured on this machine, in a file of its cache folder, so that each is measured once."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from netslim import files
from netslim.measure.environment import processor
from netslim.measure.formats.format import Run
from netslim.measure.latency import fastest

log = logging.getLogger("netslim")


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/netslim/latency``, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netslim" / "latency"


class MeasuredTimes:
    """What runs, by name -> milliseconds, as ``fastest``.

    Args:
        runtime: with its version. Another one, another processor or number of threads has a file of its own.

    Raises:
        ValueError: the file is not what was written.
    """

    def __init__(self, runtime: str) -> None:
        self.of = {"runtime": runtime, "processor": processor(), "threads": torch.get_num_threads(), "dtype": "float32"}
        name = re.sub(r"[^\w.]+", "-", " ".join(map(str, self.of.values())))
        self.file = cache_folder() / f"{name}.json"
        self.known, self._measured = self._read(), set[str]()

    def __call__(self, name: str, open_it: Callable[[], Run], x: Any, seconds: float) -> float:
        """What is known, or what is measured now."""
        if name not in self.known:
            if not self._measured:
                log.info("measuring layers in %s, each once on this machine (%s)", self.of["runtime"], self.file)
            with torch.random.fork_rng(devices=[]):  # weights are drawn
                self.known[name] = fastest(open_it(), x, seconds)
            self._measured.add(name)
        return self.known[name]

    def save(self) -> None:
        """Beside what others have measured meanwhile; of two that write at once, one may have to measure again."""
        found = self._read()
        if self._measured - found.keys():
            files.write_json(self.file, {**self.of, "milliseconds": found | self.known})

    def _read(self) -> dict[str, float]:
        if not self.file.exists():
            return {}
        found = files.read_json(self.file)
        if not isinstance(found, dict) or not isinstance(found.get("milliseconds"), dict):
            raise ValueError(f"{self.file} holds no latencies; remove it and run the command again")
        times: dict[str, float] = found["milliseconds"]
        return times

"""The command as a test calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from netslim.launch import app, ending

SMALL = [
    "data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8", "net.layers=[8,M,12]",
    "net.in_channels=3", "epochs=1", "finetune.epochs=1", "lambda=1e-2", "name=lab", "logger=none",
]  # fmt: skip


def small(outputs: Path, *words: str) -> None:
    """``netslim WORDS`` on a small network, an epoch of made-up images unless they say otherwise; into outputs/lab."""
    call(*SMALL, f"outputs={outputs}", *words)


def call(*words: str) -> None:
    """``netslim WORDS``: one job in this process, a sweep in a process of its own.

    A sweep forks, and this process may have run backward passes, whose threads do not fork.

    Raises:
        SystemExit: it ended with another code than 0.
    """
    if "-m" in words:
        if code := subprocess.run([sys.executable, "-m", "netslim", *words]).returncode:
            raise SystemExit(code)
        return
    GlobalHydra.instance().clear()
    ending.started.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["netslim", *words])
        app.main()

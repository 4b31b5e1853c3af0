"""The command as a test calls it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from netslim.launch import app, ending


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

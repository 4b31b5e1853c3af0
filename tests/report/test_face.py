"""A report costs no torch. Oracle: Python's own list of what a fresh process imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_command_imports_no_torch(sweep: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "netslim.report", str(sweep)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout == f"{sweep}/report/index.html\n"
    assert "matplotlib" in modules  # the list is one
    assert not modules & {"torch", "torchvision", "lightning", "pytorch_lightning", "hydra"}

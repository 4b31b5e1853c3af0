"""What the command loads. Oracle: `sys.modules` of a fresh process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "lightning", "hydra"}


@pytest.mark.parametrize(
    "code",
    [
        "import netslim.report, netslim.report.render.pdf, netslim.report.paper",
        "from netslim.report.__main__ import main; main(['no such folder'])",
    ],
)
def test_a_report_needs_no_torch(code: str) -> None:
    check = f"import sys; loaded = sorted({HEAVY!r} & sys.modules.keys()); assert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

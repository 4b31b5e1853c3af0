"""What the library loads. Oracle: `sys.modules` of a fresh process."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("lightning", "torchvision", "matplotlib", "hydra", "omegaconf", "sklearn", "torchmetrics")
USE = """
import netslim.engine, netslim, torch
from torch import nn
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
x = torch.randn(1, 3, 8, 8)
small = netslim.slim(model, netslim.select_channels(model, 0.5, x), x)
netslim.recalibrate(small, [x]), netslim.count(small, x), netslim.mask(model, {})
netslim.save(small, "FILE"), netslim.load("FILE", model)
netslim.penalize(torch.optim.SGD(model.parameters(), lr=0.1), model, 1e-4)
"""


def loaded(code: str) -> set[str]:
    tell = f"import sys; print(' '.join(sorted({set(HEAVY)!r} & sys.modules.keys())))"
    return set(
        subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_engine_loads_nothing_heavier_than_torch(tmp_path) -> None:
    assert loaded(USE.replace("FILE", str(tmp_path / "slim.pt"))) == set()


def test_the_callbacks_load_lightning() -> None:
    """So the test above can fail."""
    assert "lightning" in loaded("import netslim; netslim.Slimming\n")


def test_the_face_alone_does_not_load_torch() -> None:
    code = "import netslim, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"

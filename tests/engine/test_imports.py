"""The engine alone loads torch and nothing heavier."""

import os
import subprocess
import sys

import pytest

HEAVY = ("lightning", "torchvision", "matplotlib", "hydra", "tensorboard")
SLIM = """
import torch, netslim
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
x = torch.randn(1, 3, 4, 4)
netslim.slim(model, netslim.select_channels(model, 0.5, x), x)
"""


@pytest.mark.parametrize("code", ["import netslim.engine", SLIM])
def test_a_fresh_process(code):
    show = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, env=os.environ)
    assert (result.stdout.strip(), result.returncode) == ("[]", 0), result.stderr

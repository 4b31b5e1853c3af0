"""Two real processes over gloo in float64. Oracle: one process with the same global batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch


def fit(
    out: Path, devices: int, accumulate: int, clip: float, scale: float = 0, how: str = ""
) -> list[dict[str, torch.Tensor]]:
    script = Path(__file__).with_name("ddp_fit.py")
    command = [sys.executable, str(script), str(out), str(devices), str(accumulate), str(clip), str(scale), how]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return [torch.load(f"{out}.rank{rank}", weights_only=True) for rank in range(devices)]


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "clip"), [(1, 0.0), (1, 0.3), (2, 0.0), (2, 0.3)])
def test_two_processes_equal_one(tmp_path, accumulate, clip):
    (one,) = fit(tmp_path / "one", 1, accumulate, clip)
    first, second = fit(tmp_path / "two", 2, accumulate, clip)
    assert len(one["slim network.1.weight"]) == 2  # of 4: both processes removed the channels that one removes
    for name, expected in one.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - expected).abs().max() < 1e-10 if expected.is_floating_point() else True


@pytest.mark.slow
def test_scaled_gradients_of_two_processes_step_like_plain_ones_of_one(tmp_path):
    """fp16's loss scale, which grows on the way, in float64: the penalty is scaled and unscaled with the gradients."""
    (one,) = fit(tmp_path / "one", 1, 2, 0.3)
    for scaled in fit(tmp_path / "two", 2, 2, 0.3, scale=1024.0):
        for name, tensor in scaled.items():
            assert (tensor - one[name]).abs().max() < 1e-10 if tensor.is_floating_point() else True


@pytest.mark.slow
def test_a_network_that_shrinks_is_the_same_on_two_processes(tmp_path):
    """Both cut alike, and the gradients of what is left are averaged again."""
    (one,) = fit(tmp_path / "one", 1, 1, 0.3, how="gradual")
    first, second = fit(tmp_path / "two", 2, 1, 0.3, how="gradual")
    assert len(one["1.weight"]) == 2
    for name, expected in one.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - expected).abs().max() < 1e-10 if expected.is_floating_point() else True


@pytest.mark.slow
def test_lambda_that_finds_itself_is_the_same_on_two_processes(tmp_path):
    """Both hold the same γ at 0, and the others are those of one process."""
    (one,) = fit(tmp_path / "one", 1, 1, 0.0, how="auto")
    first, second = fit(tmp_path / "two", 2, 1, 0.0, how="auto")
    assert int((one["1.weight"] == 0).sum()) == 2
    for name, expected in one.items():
        assert torch.equal(first[name], second[name])
        assert (first[name] - expected).abs().max() < 1e-10 if expected.is_floating_point() else True

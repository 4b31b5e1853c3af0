"""A real kill -9 in the middle of a real sweep, the same command again. Oracle: the sweep that nobody interrupted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from netslim.files import read_tensors

SWEEP = ["-m", "experiment=lab4_digits", "method=paper", "epochs=5", "finetune.epochs=3", "lambda=0,1e-2"]
SWEEP += ["net.layers=[16,16,M,32,32,M,64,64]"]


def start(outputs: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "netslim", *SWEEP, *more, f"outputs={outputs}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def kill_when(outputs: Path, pattern: str, seconds: float) -> None:
    """Start the sweep and kill -9 its process group some seconds after a file of this pattern has appeared."""
    process, patience = start(outputs), time.monotonic() + 120
    while not list(outputs.glob(pattern)):
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < patience, f"no {pattern} after two minutes"
        time.sleep(0.01)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def weights(outputs: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Every tensor of every stage, by the stage's name."""
    return {path.parent.name: read_tensors(path) for path in sorted(outputs.glob("*/train_*/weights.pt"))}


@pytest.mark.slow
def test_a_killed_sweep_ends_with_the_bits_of_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(whole))
    kill_when(killed, "lab4_digits/train_lambda=0.01*/last.ckpt", 0.25)
    assert not list(killed.glob("lab4_digits/train_lambda=0.01*/record.json"))
    kill_when(killed, "lab4_digits/finetune_lambda=0.01*/last.ckpt", 0.05)
    assert "going on from last.ckpt" in finish(start(killed))

    report = "lab4_digits/report/results.csv"
    assert (whole / report).read_bytes() == (killed / report).read_bytes()
    assert len((whole / report).read_text().splitlines()) == 1 + 4
    for (name, expected), (same, found) in zip(weights(whole).items(), weights(killed).items(), strict=True):
        assert name == same
        assert all(torch.equal(expected[key], found[key]) for key in expected)

    again = finish(start(killed))  # a finished sweep only renders its report
    assert "| epoch" not in again
    assert "Report:" in again
    assert (whole / report).read_bytes() == (killed / report).read_bytes()


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(0)
    longer = ["epochs=8", "finetune.epochs=6"]
    finish(start(whole, *longer))
    hits = 0
    for _ in range(10):
        process = start(killed, *longer)
        for line in process.stdout:  # imports and the like are behind it
            if line.startswith("Launching"):
                break
        time.sleep(moments.uniform(0, 3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
    assert hits > 5  # of the others the sweep had ended before
    finish(start(killed, *longer))

    assert len(everything(whole)) == 4 + 2 * 4 + 4 * (3 + 3) + 4  # four jobs, four tables
    assert everything(whole) == everything(killed)


def everything(outputs: Path) -> dict[str, object]:
    """Records, scales, settings, weights and the tables, by file; without when, where and how long."""
    found: dict[str, object] = {}
    for path in sorted([*outputs.glob("*/*/*.json"), *outputs.glob("*/*/*.pt"), *outputs.glob("*/report/*.csv")]):
        name = str(path.relative_to(outputs))
        found[name] = path.read_bytes()
        if path.name == "record.json":
            found[name] = {key: v for key, v in json.loads(path.read_text()).items() if key not in ("run", "command")}
        if path.suffix == ".pt":
            tensors = read_tensors(path)
            flat = {**tensors, **tensors.get("state", {})}
            found[name] = {
                key: v.tolist() if isinstance(v, torch.Tensor) else v for key, v in flat.items() if key != "state"
            }
    return found


@pytest.mark.slow
def test_sigterm_ends_with_its_exit_code_and_the_run_goes_on(tmp_path):
    process = start(tmp_path)
    while not list(tmp_path.glob("lab4_digits/train_*/last.ckpt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "stopped by SIGTERM" in output
    assert "Report:" in finish(start(tmp_path))

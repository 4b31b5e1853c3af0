"""Processor time of commands that start no job, beside that of ``import torch``: ``python tests/benchmarks/face.py``.

Each is run in turns, in processes of their own; the medians are printed, user and system time together.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 5
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "netslim --help": ["-m", "netslim", "--help"],
    "netslim --version": ["-m", "netslim", "--version"],
    "netslim --cfg job": ["-m", "netslim", "--cfg", "job"],
    "netslim lamda=1": ["-m", "netslim", "lamda=1"],
}


def seconds(command: list[str], folder: str) -> float:
    """User and system time of one process and what it started."""
    before = os.times()
    subprocess.run([sys.executable, *command], cwd=folder, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name, command in COMMANDS.items():
                taken[name].append(seconds(command, folder))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:20s} {median:5.2f} s   {median / medians['import torch']:4.2f} × import torch")


if __name__ == "__main__":
    main()

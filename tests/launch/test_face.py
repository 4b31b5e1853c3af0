"""What starts no job costs no torch. Oracle: Python's own list of what a fresh process imported."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "lightning", "pytorch_lightning"}


def imported(module: str, *words: str, cwd: Path, code: int) -> tuple[str, set[str]]:
    """What ``python -m module words`` says, and the names of all modules that it imports."""
    command = [sys.executable, "-X", "importtime", "-m", module, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    lines = done.stderr.splitlines()
    said = "\n".join([done.stdout, *(line for line in lines if not line.startswith("import time:"))])
    assert done.returncode == code, said
    return said, {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["--help"], 0, "netslim -m experiment=lab4_digits"),
        (["--settings"], 0, "lab4, lab4_digits, lab4_small"),
        (["--version"], 0, f"netslim {version('netslim')}"),
        (["--cfg", "job"], 0, "channels_last: true"),
        (["-m", "--cfg", "job"], 2, ""),
        (["lamda=1"], 2, "netslim: error: there is no setting 'lamda', perhaps lambda"),
        (["-m", "lamda=0,1"], 2, "netslim: error: there is no setting 'lamda', perhaps lambda"),
        (["net=vgg99"], 2, "netslim: error: net=vgg99 does not exist"),
        (["finetune.epoch=1"], 2, "there is no setting 'finetune.epoch'"),
    ],
)
def test_a_command_that_starts_no_job_imports_no_torch(words: list[str], code: int, line: str, tmp_path: Path) -> None:
    said, modules = imported("netslim", *words, cwd=tmp_path, code=code)
    assert line in said
    assert "hydra" in modules  # the list is one
    assert not modules & HEAVY
    assert not list(tmp_path.iterdir())


def test_help_may_be_cut_off_by_its_reader(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netslim", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.close()  # before it has anything to say
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (141, "")

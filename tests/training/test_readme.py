"""The examples of training/README.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import netslim

README = Path(netslim.__file__).parent / "training" / "README.md"


def blocks(kind: str) -> list[str]:
    """The fenced blocks of the README that begin with ```kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's, of a run on a small machine
def test_the_examples_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    for block in [*blocks("python"), *blocks("python file=mine.py")]:
        exec(compile(block, str(README), "exec"), names)
    assert "Conv2d(3, 8, " in capsys.readouterr().out  # as the comment says: 8 of 16 channels are kept
    assert names["module"].body[0].out_channels == 4  # of the network that got smaller while it trained
    assert names["slimming"].slimmed.body[0].out_channels == 8
    assert names["Segmentation"].metric.name == "mIoU"


def test_links_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert (README.parent / link).exists(), link

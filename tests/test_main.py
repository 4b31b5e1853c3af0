"""Wrong input as a user meets it: one line on stderr that names it, exit code 2, nothing trained."""

import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from netslim import __main__ as application
from netslim import sweep

SMALL = [
    "epochs=1", "finetune.epochs=0", "data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8",
    "net.layers=[4,M,4]", "net.in_channels=3",
]  # fmt: skip

WRONG = {
    "epoch=3": "epoch",
    "net=vgg99": "vgg19",  # what there is
    "net._target_=netslim.nets.NoSuch": "netslim.nets.NoSuch",
    "+net.colour=3": "colour",
    "+data.colour=3": "colour",
    "+optimizer.colour=3": "colour",
    "+scheduler.colour=3": "colour",
    "+trainer.colour=3": "colour",
    "ratio=half": "ratio=half is not a number",
    "ratio=1.5": "1.5 is outside 0 ≤ ratio < 1",
    "ratio=0.9": "highest reachable ratio is 0.75",  # of 4 + 4 channels two must stay
    "ratio=-0.1": "-0.1 is outside 0 ≤ ratio < 1",
    "lambda=abc": "lambda=abc is not a number",
    "lambda=-1": "it must be 0 (no penalty) or positive",
    "optimizer.lr=abc": "optimizer.lr=abc is not a number",
    "epochs=1.5": "epochs=1.5 is not a whole number",
    "epochs=0": "epochs=0 is too small; give 1 or more",
    "epochs=-1": "epochs=-1 is too small; give 1 or more",  # Lightning would train for ever
    "finetune.epochs=-1": "finetune.epochs=-1 is too small; give 0 or more",
    "channels_last=2": "channels_last=2 is neither true nor false",
    "compile=quickly": "compile=quickly: Unrecognized mode=quickly",
    "+compile.colour=3": "compile",
    "threads=0": "threads=0 is too small; give 1 or more",
    "seed=-1": "seed=-1 is too small; give 0 or more",
    "net.in_channels=1": "set net.in_channels=3",
    "name=../elsewhere": "name=../elsewhere is no folder inside outputs=",
    "name=/tmp/elsewhere": "name=/tmp/elsewhere is no folder inside outputs=",
    "name=.": "name=. is no folder inside outputs=",
    "data.val_size=9999": "val_size=9999 of 64 training images",
}


def refused(monkeypatch, capsys, arguments: list[str]) -> str:
    """The line on stderr of a command that ends with exit code 2."""
    GlobalHydra.instance().clear()
    sweep.started.clear()
    monkeypatch.setattr(sys, "argv", ["netslim", *arguments])
    with pytest.raises(SystemExit) as stop:
        application.main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("netslim: error: ")
    return line


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_line(wrong, tmp_path, monkeypatch, capsys):
    assert WRONG[wrong] in refused(monkeypatch, capsys, [*SMALL, f"outputs={tmp_path}", wrong])
    assert not list(tmp_path.glob("*/*/record.json"))


def test_the_remedy_for_a_network_of_torchvision_is_another_data_set(tmp_path, monkeypatch, capsys):
    line = refused(monkeypatch, capsys, ["net=resnet18", "data=digits", f"outputs={tmp_path}"])
    assert line.endswith("8×8) has 1; choose another data set or another network")


@pytest.mark.parametrize(("root", "named"), [(["data.root=nowhere"], "nowhere/train"), ([], "data.root")])
def test_a_missing_folder_is_named(root, named, tmp_path, monkeypatch, capsys):
    assert named in refused(monkeypatch, capsys, ["data=image_folder", *root, f"outputs={tmp_path}"])

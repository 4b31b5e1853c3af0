"""What people type wrong: one line that says what to type instead, nothing of Hydra's grammar, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from netslim.launch import app, ending

MISTAKES = {
    ("-m", "lambda=0,", "1e-3"): "no space after a comma; write lambda=0,1e-3",
    ("lambda=0,", "1e-3"): "no space after a comma; write lambda=0,1e-3",
    ("--epochs=1",): "--epochs: settings have no dashes; write epochs=1",
    ("--epochs", "1"): "--epochs: settings have no dashes; write epochs=…",
    ("-e", "1"): "-e: settings have no dashes; write e=…",
    ("lambda", "1e-4"): "lambda has no value; write lambda=1e-4",
    ("lambda",): "lambda has no value; write lambda=…",
    ("train",): "there is no command 'train'; settings are given as key=value, as in lambda=1e-3 ratio=0.5",
    ("1e-3",): "there is no command '1e-3'; settings are given as key=value",
    ("lambda=0,1e-3",): "several values need -m; write netslim -m lambda=0,1e-3",
    ("lambda=0,1e-3", "epochs=1"): "several values need -m; write netslim -m lambda=0,1e-3 epochs=1",
    ("experiment=lab4,lab4_small",): "several values need -m",
    ("experiment=lab4_digits",): "is a sweep over ratio and method and lambda; write netslim -m experiment=lab4_digits",
    ("lr=0.1",): "there is no setting 'lr', perhaps optimizer.lr or finetune.lr",
    ("+lr=0.1",): "there is no setting 'lr', perhaps optimizer.lr or finetune.lr",
    ("batch_size=32",): "there is no setting 'batch_size', perhaps data.batch_size",
    ("optimizer.momentun=0.1",): "there is no setting 'optimizer.momentun', perhaps optimizer.momentum",
    ("data.root=FOLDER",): "there is no setting 'data.root' here; write data=image_folder data.root=FOLDER",
    ("trainer.max_epochs=3",): "there is no setting 'trainer.max_epochs' here; write epochs=…",
    ("slimming.ratio=0.5",): "there is no setting 'slimming.ratio' here; write ratio=…",
    ("net=vgg99",): "net=vgg99 does not exist, perhaps vgg19; there are densenet40, own, preresnet164",
    ("net=resnet34",): "any network of torchvision: net=torchvision net.name=NAME",
    ("data=imagenet",): "a folder of images: data=image_folder data.root=FOLDER",
    ("-m", "hydra/launcher=slurm", "lambda=0,1"): "hydra/launcher=slurm does not exist, perhaps submitit_slurm",
    ("-m", "hydra/sweeper=bayes", "lambda=0,1"): "hydra/sweeper=bayes does not exist, perhaps basic; there are basic",
    ("finetune=0",): "finetune=0 names no setting; write finetune.epochs=… or finetune.lr=…",
    ("data.root=/a(b",): "cannot read 'data.root=/a(b'; if the value is a text, quote it twice: 'data.root=\"/a(b\"'",
    ("data.mean=[0.5",): "cannot read 'data.mean=[0.5'",
    ("trainer.accelerator=gpu",): "trainer.accelerator=gpu trainer.devices=1 is not to be had on this machine (No supp",
    ("trainer.accelerator=tpu",): "trainer.accelerator=tpu trainer.devices=1 is not to be had on this machine (",
    (
        "trainer.devices=4",
        "trainer.accelerator=cpu",
    ): "trainer.devices=4 needs trainer=ddp, which shares a training",
    ("-m", "hydra/sweeper=optuna", "lambda=0,1"): "is not installed: pip install 'netslim[optuna]'",
    ("trainer.devices=abc",): "`devices` selected with",
}


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    GlobalHydra.instance().clear()
    ending.started.clear()
    monkeypatch.setattr(sys, "argv", ["netslim", *words])
    try:
        app.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("words", MISTAKES, ids=" ".join)
def test_a_mistake_is_answered_with_what_to_type(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if "hydra/sweeper=optuna" in words and find_spec("hydra_plugins.hydra_optuna_sweeper"):
        pytest.skip("it is installed")
    if "trainer.accelerator=gpu" in words and torch.cuda.is_available():
        pytest.skip("there is one")
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, *words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("netslim: error: ")
    assert MISTAKES[words] in line
    for word in ("https:", "Exception", "expecting", "struct", "override", "config group", "ConfigStore"):
        assert word not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["deep/train/a", "deep/test/a"], "is one folder too high; give data.root="),
        (["train/a", "val/a"], "rename it to test"),
        (["test/a"], "train"),
    ],
)
def test_a_folder_of_images_in_another_order(
    folders: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(folders):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / name / "1.png")
    words = ["data=image_folder", f"data.root={tmp_path / 'images'}", "net=vgg_small", f"outputs={tmp_path / 'o'}"]
    assert call(monkeypatch, "-m", "lambda=0,1e-3", *words) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not (tmp_path / "o").exists()


def test_the_remedies_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-m where it was typed, a text quoted twice, one value of each axis of an experiment."""
    small = ["data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8", "net.layers=[4,M,4]"]
    small += ["net.in_channels=3", "epochs=1", "finetune.epochs=0", f"outputs={tmp_path}"]
    # A process of its own: jobs are forked, and this one may have run backward passes, whose threads do not fork.
    subprocess.run([sys.executable, "-m", "netslim", "lambda=0", "name=a", "-m", *small], check=True)
    assert call(monkeypatch, 'name="a(b"', *small) == 0
    assert call(monkeypatch, "experiment=lab4_digits", "ratio=0.5", "lambda=0", "name=c", *small) == 0
    assert {path.parent.parent.name for path in tmp_path.glob("*/report/index.html")} == {"a", "a(b", "c"}


def test_netslim_alone_says_what_one_could_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch) == 0
    assert "netslim -m experiment=lab4_digits" in capfd.readouterr().out
    assert not list(tmp_path.iterdir())

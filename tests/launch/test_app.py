"""Wrong input as a user meets it: one line on stderr that names it, exit code 2, nothing trained."""

import importlib
import json
import shutil
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from netslim.launch import app as application
from netslim.launch import ending, export
from netslim.training.progress import History

SMALL = [
    "epochs=1", "finetune.epochs=0", "data=synthetic", "data.source.size=8", "data.source.train=64", "data.val_size=8",
    "net.layers=[4,M,4]", "net.in_channels=3",
]  # fmt: skip

WRONG = {
    "epoch=3": "there is no setting 'epoch', perhaps epochs",
    "lamda=1": "there is no setting 'lamda', perhaps lambda",
    "+lamda=1": "there is no setting 'lamda', perhaps lambda",
    "+batch_size=32": "there is no setting 'batch_size'",
    "+finetune.epoch=3": "there is no setting 'finetune.epoch'",
    "+trainer.max_epochs=9": "trainer.max_epochs is set by netslim itself; use epochs=",
    "+trainer.callbacks=[]": "trainer.callbacks is set by netslim itself",
    "+slimming.colour=3": "colour",
    "scheduler.at=0.5": "scheduler.at=0.5 is no list of shares",
    "finetune.epoch=3": "there is no setting 'finetune.epoch'",
    "finetune.lr=-0.1": "finetune.lr=-0.1 is negative",
    "finetune.temperature=2": "finetune.temperature=2 has no effect: there is no fine-tuning; give finetune.epochs",
    "finetune.lr=0": "finetune.lr=0 trains nothing; give a positive rate",
    "optimizer.lr=0": "optimizer.lr=0 trains nothing; give a positive rate",
    "penalty=l7": "l1",  # what there is
    "scheduler=multistep_": "one_cycle",  # what there is
    "callbacks=[{_target_: netslim.GammaHistogram, every_n_epochs: 0}]": "every_n_epochs is 0",
    "lambda=inf": "lambda=inf is not a number",
    "data.std=[0,1,1]": "standard deviations must be positive",
    "optimizer.momentum=1": "optimizer.momentum=1 must be at least 0 and under 1",
    "scheduler._target_=torch.optim.lr_scheduler.StepLR": "a schedule is made by a function of (optimizer, epochs)",
    "scheduler.factor=abc": "scheduler.factor=abc is not a number",
    "slimming.recalibration_batches=many": "recalibration_batches is many; it must be at least 1",
    "data.crop_padding=-1": "crop_padding=-1 is too small",
    "data.mean=0.5": "give a list with a number per channel",
    "data.val_size=1.5": "val_size=1.5 of 64 training images",
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
    "epochs=0": "epochs=0 is too small; give 1 or more, or weights=FILE of a network that is trained",
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
    "name=null": "name=None is no name of a folder",
    "name=": "name= is no name of a folder",
    "name=true": "name=True is no name of a folder",
    "name=[a]": "name=['a'] is no name of a folder",
    "outputs=null": "outputs=None is no name of a folder",
    "+trainer.limit_train_batches=0": "trainer.limit_train_batches=0 cannot be; give a number over 0",
    "+trainer.limit_train_batches=0.0": "trainer.limit_train_batches=0.0 cannot be; give a number over 0",
    "+trainer.limit_train_batches=abc": "trainer.limit_train_batches=abc cannot be; give a number over 0",
    "+trainer.limit_test_batches=0": "trainer.limit_test_batches=0 cannot be; give a number over 0",
    "+trainer.overfit_batches=2": "trainer.overfit_batches=2 cannot be; write +trainer.limit_train_batches=",
    "+trainer.fast_dev_run=true": "trainer.fast_dev_run=True cannot be; write epochs=1",
    "+trainer.max_steps=5": "trainer.max_steps=5 cannot be; write epochs=",
    "+trainer.max_time=00:00:00:10": "trainer.max_time=00:00:00:10 cannot be; stop it when you like",
    "+trainer.barebones=true": "trainer.barebones=True cannot be",
    "+trainer.enable_checkpointing=false": "trainer.enable_checkpointing=False cannot be",
    "+trainer.check_val_every_n_epoch=0": "trainer.check_val_every_n_epoch=0 cannot be; give 1 or more",
    "+trainer.val_check_interval=0": "trainer.val_check_interval=0 cannot be; give a number over 0",
    "trainer.accumulate_grad_batches=0": "trainer.accumulate_grad_batches=0 cannot be; give 1 or more",
    "trainer.log_every_n_steps=abc": "trainer.log_every_n_steps=abc cannot be; give 0 or more",
    "trainer.gradient_clip_val=abc": "should be an int or a float. Got abc",
    "trainer.precision=99": "Precision 99 is invalid",
    "trainer.accelerator=foo": "accelerator='foo'",
    "debug=2": "debug=2 is neither true nor false",
    "quiet=2": "quiet=2 is neither true nor false",
    "data.val_size=9999": "val_size=9999 of 64 training images",
}


def refused(monkeypatch, capsys, arguments: list[str]) -> str:
    """The line on stderr of a command that ends with exit code 2."""
    GlobalHydra.instance().clear()
    ending.started.clear()
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
    assert list(tmp_path.glob("*/*/settings.json")) or not list(tmp_path.glob("*/sweep.json"))  # no report waits for it


@pytest.mark.parametrize(("words", "folder"), [(["name=2026"], "outputs/2026"), (["outputs=5", "name=x"], "5/x")])
def test_a_number_is_a_name_too(words, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, *SMALL, *words)
    assert (tmp_path / folder / "report" / "index.html").exists()


def test_the_remedy_for_a_network_of_torchvision_is_another_data_set(tmp_path, monkeypatch, capsys):
    line = refused(monkeypatch, capsys, ["net=resnet18", "data=digits", f"outputs={tmp_path}"])
    assert line.endswith("8×8) has 1; choose another data set or another network")


@pytest.mark.parametrize(("root", "named"), [(["data.root=nowhere"], "nowhere/train"), ([], "data.root")])
def test_a_missing_folder_is_named(root, named, tmp_path, monkeypatch, capsys):
    assert named in refused(monkeypatch, capsys, ["data=image_folder", *root, f"outputs={tmp_path}"])


def test_a_network_of_ones_own_by_its_name_alone(tmp_path, monkeypatch):
    """As the README has it."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, width=8):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(width, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    GlobalHydra.instance().clear()
    ending.started.clear()
    small = [word for word in SMALL if not word.startswith("net.")]
    words = ["net=own", "net._target_=mine.net", "+net.width=6", f"outputs={tmp_path}", "name=own", *small]
    monkeypatch.setattr(sys, "argv", ["netslim", *words])
    application.main()
    (record,) = (tmp_path / "own").glob("train_*/record.json")
    assert json.loads(record.read_text())["network"] == "net"
    (slimmed,) = (tmp_path / "own").glob("slim_*/record.json")
    assert json.loads(slimmed.read_text())["removed"] == 3


def run(monkeypatch, *words: str) -> None:
    GlobalHydra.instance().clear()
    ending.started.clear()
    monkeypatch.setattr(sys, "argv", ["netslim", *words])
    application.main()


@pytest.mark.parametrize("scheduler", ["cosine", "warmup_cosine", "one_cycle"])
def test_other_optimisers_and_schedules_and_no_logger(scheduler, tmp_path, monkeypatch):
    words = ["optimizer=adamw", f"scheduler={scheduler}", "logger=none", "lambda=1e-3", "ratio=0.5", "name=a"]
    run(monkeypatch, *SMALL, *words, f"outputs={tmp_path}", "epochs=2")
    (trained,) = (tmp_path / "a").glob("train_*/record.json")
    record = json.loads(trained.read_text())
    assert record["budget"] is None  # Adam rescales gradients: λ·Σlr says nothing of it
    assert record["epochs"][0]["lr"] != record["epochs"][1]["lr"]
    assert not list(tmp_path.glob("**/events*"))


def test_ctrl_c_in_a_training_has_its_exit_code_and_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "on_train_epoch_end", stop)
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *SMALL, f"outputs={tmp_path}")
    assert end.value.code == 130
    assert "interrupted; the same command goes on" in capsys.readouterr().err


MINE = """
from torch import nn
class Net(nn.Module):  # its classifier comes first
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear({width}, num_classes)
        self.conv, self.norm = nn.Conv2d(3, {width}, 3), nn.BatchNorm2d({width})
    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))
"""


def test_a_network_whose_classifier_comes_first_and_whose_code_changes(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "changing.py").write_text(MINE.format(width=8))
    small = [word for word in SMALL if not word.startswith("net.")]
    words = ["net=own", "net._target_=changing.Net", f"outputs={tmp_path}", "name=own", *small]
    run(monkeypatch, *words, "epochs=3", "+trainer.check_val_every_n_epoch=2", "data.val_size=16")
    (record,) = (tmp_path / "own").glob("train_*/record.json")
    rows = json.loads(record.read_text())["epochs"]
    assert [row["epoch"] for row in rows if "val_accuracy" in row] == [2]  # a score is that of its own epoch
    (job,) = (tmp_path / "own").glob("job_*")
    dense, small_network, _, _ = export.rebuild(job, trust=["changing.Net"])
    assert (dense.head.out_features, small_network.conv.out_channels) == (4, 4)

    (tmp_path / "changing.py").write_text(MINE.format(width=10))
    del sys.modules["changing"]
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
    again = [*words, "epochs=3", "+trainer.check_val_every_n_epoch=2", "data.val_size=16", "ratio=0.25"]
    assert "does not fit Net, whose code has changed since it was trained" in refused(monkeypatch, capsys, again)

"""A task and a penalty of one's own, through the command line, without touching a file of the package.

The module is that of training/README.md. Oracles: mean IoU counted by hand, a training that was not interrupted, a
plain loop with the penalty in its loss.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import netslim
from netslim.files import read_tensors

README = Path(netslim.__file__).parent / "training" / "README.md"
DATA = '''
import os
import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def net(num_classes, width=8):
    layers = []
    for channels in (3, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, num_classes, 1))


def squares(count, seed):
    """Bright squares on noise (count, 3, 12, 12), and which pixels are theirs (count, 12, 12)."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 12, 12, dtype=torch.long)
    for mask, (y, x) in zip(masks, torch.randint(0, 7, (count, 2), generator=generator).tolist()):
        mask[y : y + 5, x : x + 5] = 1
    return 0.5 * torch.randn(count, 3, 12, 12, generator=generator) + masks[:, None], masks


class Shapes(LightningDataModule):
    title, num_classes, in_channels, image_shape = "squares", 2, 3, (3, 12, 12)

    def __init__(self, seed=0):
        super().__init__()

    def train_dataloader(self):
        return DataLoader(TensorDataset(*squares(128, 1)), 16)

    def val_dataloader(self):
        return DataLoader(TensorDataset(*squares(32, 2)), 16)

    def test_dataloader(self):
        return DataLoader(TensorDataset(*squares(40, 3)), 16)

    def on_after_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training and self.trainer.current_epoch == int(os.environ.get("DIES_IN_EPOCH", -1)):
            os._exit(9)
        return batch
'''
JOB = [
    "net=own", "net._target_=mine.net", "task=segmentation", "data=shapes", "epochs=3", "finetune.epochs=2",
    "ratio=0.5", "name=door", "logger=csv", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the user's module and configuration."""
    folder = tmp_path_factory.mktemp("home")
    code = re.findall(r"^```python file=mine.py\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    (folder / "mine.py").write_text("\n".join([*code, DATA]))
    yaml = {
        "task/segmentation": "_target_: mine.Segmentation\n_partial_: true\nclasses: 2\n",
        "penalty/squares": "_target_: mine.Squares\n",
        "data/shapes": "_target_: mine.Shapes\n",
    }
    for name, text in yaml.items():
        (folder / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "conf" / f"{name}.yaml").write_text(text)
    return folder


def run(home: Path, *words: str, code: int = 0, **environment: str) -> str:
    paths = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "netslim", "--config-dir", "conf", *JOB, *words],
        cwd=home, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": paths, **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def records(sweep: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(sweep.glob("*_*/record.json"))}


def of(kind: str, sweep: Path) -> tuple[Path, dict]:
    (folder,) = sweep.glob(f"{kind}_*")
    return folder, json.loads((folder / "record.json").read_text())


@pytest.fixture(scope="module")
def job(home) -> Path:
    printed = run(home, "penalty=squares", "lambda=1e-2", "outputs=out")
    assert re.search(r"epoch 3/3 \| loss 0\.\d+, val \d+\.\d%, dead γ", printed)
    assert "Test set: mIoU: " in printed
    return home / "out" / "door"


def mean_iou(network: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> float:
    with torch.no_grad():
        found = network.eval()(images).argmax(1)
    shares = [((found == c) & (masks == c)).sum() / ((found == c) | (masks == c)).sum() for c in (0, 1)]
    return float(sum(shares) / 2)


@pytest.mark.slow
def test_the_records_hold_the_tasks_metric(home, job, monkeypatch):
    monkeypatch.syspath_prepend(str(home))
    import mine

    folder, trained = of("train", job)
    assert trained["metric"] == {"name": "mIoU", "direction": "max", "format": ".1%"}
    assert set(trained["epochs"][0]) == {
        "epoch", "lr", "train_loss", "val_mIoU", "dead_share",
    }  # fmt: skip
    dense = mine.net(num_classes=2)
    dense.load_state_dict(read_tensors(folder / "weights.pt"))
    test = mine.squares(40, 3)
    assert trained["test"]["value"] == pytest.approx(mean_iou(dense, *test), abs=1e-6)
    assert trained["epochs"][-1]["val_mIoU"] == pytest.approx(mean_iou(dense, *mine.squares(32, 2)), abs=1e-6)
    folder, slimmed = of("slim", job)
    assert slimmed["dense"]["test"] == trained["test"]
    small = netslim.load(folder / "slim.pt", mine.net(num_classes=2))
    masked = netslim.mask(dense, netslim.select_channels(dense, ratio=0.5, example_input=test[0][:1]))
    assert slimmed["removed"] == 8
    assert slimmed["slim"]["test"]["value"] == pytest.approx(mean_iou(masked, *test), abs=1e-6)
    assert slimmed["recalibrated"]["test"]["value"] == pytest.approx(mean_iou(small, *test), abs=1e-6)
    folder, tuned = of("finetune", job)
    small = netslim.load(folder / "slim.pt", mine.net(num_classes=2))
    assert tuned["test"]["value"] == pytest.approx(mean_iou(small, *test), abs=1e-6)


@pytest.mark.slow
def test_the_penalty_is_in_every_step_of_the_training(home, job, monkeypatch):
    monkeypatch.syspath_prepend(str(home))
    import lightning
    import mine

    lightning.seed_everything(0, verbose=False)
    net = mine.net(num_classes=2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images, masks = mine.squares(128, 1)
    for epoch in range(3):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.1**epoch  # at 50 % and 75 % of three epochs: after one and two
        for first in range(0, 128, 16):
            optimizer.zero_grad()
            penalty = 1e-2 * sum(net[index].weight.square().sum() for index in (1, 4))
            loss = F.cross_entropy(net(images[first : first + 16]), masks[first : first + 16])
            (loss + penalty).backward()
            optimizer.step()
    trained = read_tensors(of("train", job)[0] / "weights.pt")
    for name, value in net.state_dict().items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-5)
    assert (job / of("train", job)[0] / "csv" / "0" / "metrics.csv").read_text().count("penalty/squares") == 1


@pytest.mark.slow
def test_the_same_command_trains_nothing_again_and_another_penalty_is_another_training(home, job):
    before = {path: path.stat().st_mtime_ns for path in job.glob("*_*/record.json")}
    run(home, "penalty=squares", "lambda=1e-2", "outputs=out")
    assert {path: path.stat().st_mtime_ns for path in job.glob("*_*/record.json")} == before
    run(home, "penalty=l1", "lambda=1e-2", "outputs=out", "epochs=1", "finetune.epochs=0", "name=other")
    run(home, "penalty=squares", "lambda=1e-2", "outputs=out", "epochs=1", "finetune.epochs=0", "name=other")
    assert len(list((home / "out" / "other").glob("train_*/record.json"))) == 2


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_numbers(home, job):
    words = ("penalty=squares", "lambda=1e-2", "outputs=resumed")
    run(home, *words, code=9, DIES_IN_EPOCH="2")
    assert "going on from last.ckpt" in run(home, *words)
    for kind, name in (("train", "weights.pt"), ("finetune", "slim.pt")):
        (folder, record), (other, again) = of(kind, job), of(kind, home / "resumed" / "door")
        assert (record["epochs"], record["test"]) == (again["epochs"], again["test"])
        assert folder.name == other.name
        assert equal(read_tensors(folder / name), read_tensors(other / name))


def equal(one: object, other: object) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.slow
def test_the_report_names_the_metric(job):
    page = (job / "report" / "report.md").read_text()
    assert "mIoU" in page
    assert "ccuracy" not in re.sub(r"\(.*?\)|#\S+", "", page)  # names of files apart

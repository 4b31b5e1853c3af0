"""The checkpoint that a training goes on from: it fits, or the error says what does not."""

import os
import signal
import threading
import warnings
from functools import partial
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from netslim import files
from netslim.data import InMemoryData, synthetic
from netslim.launch.quiet import NOISE
from netslim.training import checkpoint
from netslim.training.auto_sparsity import AutoSparsity
from netslim.training.classification import SlimmingTask
from netslim.training.fit import LAST, fit
from netslim.training.gradual import GradualSlimming
from netslim.training.training_cost import TrainingCost

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
write_tensors = files.write_tensors


def saved(path, module, **changes):
    content = {"epoch": 4, "state_dict": module.state_dict(), "callbacks": {}, "optimizer_states": []}
    checkpoint.AtomicCheckpointIO().save_checkpoint({**content, **changes}, path)
    return path


def test_epochs_are_counted_from_one(tmp_path):
    assert checkpoint.epochs_done(saved(tmp_path / "last.ckpt", nn.Linear(2, 3)), nn.Linear(2, 3)) == 5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Linear(2, 4), r"weight is \(3, 2\) there, \(4, 2\) here"),
        (nn.Linear(2, 3, bias=False), r"bias is \(3,\) there, missing here"),
        (nn.Sequential(nn.Linear(2, 3)), r"weight is \(3, 2\) there, missing here"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, other, said):
    with pytest.raises(ValueError, match=said):
        checkpoint.epochs_done(saved(tmp_path / "last.ckpt", nn.Linear(2, 3)), other)


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path):
    path = saved(tmp_path / "last.ckpt", nn.Linear(2, 3))
    with pytest.raises(AttributeError):
        saved(path, nn.Linear(2, 3), callbacks=lambda: None)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(files.read_tensors(path)["state_dict"]["weight"].isfinite(), torch.ones(3, 2, dtype=bool))


class Stop(Exception):
    """What ends a training early."""


class StopIn(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            raise Stop


def train(folder, *callbacks, epochs=5, **settings):
    """The weights after so many epochs of the pipeline's fit: dropout, momentum, a schedule."""
    torch.manual_seed(7)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    source = partial(synthetic, train=32, test=8, size=4)
    data = InMemoryData(source, title="a set", mean=[0.5] * 3, std=[0.25] * 3, batch_size=16)
    sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
    schedule = lambda optimizer, epochs: torch.optim.lr_scheduler.StepLR(optimizer, 2)  # noqa: E731
    task = SlimmingTask(net, optimizer=sgd, scheduler=schedule, strength=1e-3)
    trainer = partial(Trainer, **QUIET)
    fit(
        folder,
        task,
        data,
        trainer=trainer,
        command="",
        seed=0,
        epochs=epochs,
        loggers=(),
        callbacks=callbacks,
        **settings,
    )
    return net.state_dict()


@pytest.fixture
def written(monkeypatch):
    """The epochs that the checkpoints written have behind them."""
    epochs = []
    monkeypatch.setattr(
        files,
        "write_tensors",
        lambda path, content: epochs.append(content["epoch"] + 1) or write_tensors(path, content),
    )
    return epochs


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"every_epochs": 2}, [2, 4, 5]),
        ({"every_epochs": 9}, [5]),
        ({"every_seconds": 10}, [2, 4, 5]),
        ({"every_seconds": 20}, [4, 5]),
        ({"every_epochs": 3, "every_seconds": 10}, [3, 5]),
    ],
)
def test_when_checkpoints_are_written(tmp_path, monkeypatch, written, settings, expected, threaded):
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: Smallest.seconds))
    trainer = Trainer(
        max_epochs=5, logger=False, callbacks=[checkpoint.LastCheckpoint(tmp_path / LAST, **settings)], **QUIET
    )
    trainer.strategy.checkpoint_io = checkpoint.AtomicCheckpointIO(threaded)
    data = torch.utils.data.DataLoader(torch.zeros(2, 1), 1)
    trainer.fit(Smallest(), data)
    assert written == expected
    assert files.read_tensors(tmp_path / LAST)["epoch"] == 4


@pytest.mark.parametrize("settings", [{}, {"every_epochs": 2}, {"every_epochs": 2, "threaded": True}], ids=str)
def test_a_training_goes_on_from_the_last_one_with_the_same_bits(tmp_path, written, settings):
    expected = train(tmp_path / "whole")
    with pytest.raises(Stop):
        train(tmp_path / "cut", StopIn(epoch=3), **settings)
    left = files.read_tensors(tmp_path / "cut" / LAST)["epoch"] + 1
    assert left == (2 if settings else 3)
    found = train(tmp_path / "cut", **settings)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def as_before(path):
    """The checkpoint as earlier code wrote it: by Lightning's callback, without costs and histograms of γ."""
    content = files.read_tensors(path)
    states = content["callbacks"]
    del states["TrainingCost"], states["History"]["gammas"]
    writer = ModelCheckpoint(path.parent, "last", every_n_epochs=1)
    states[writer.state_key] = writer.state_dict()
    write_tensors(path, content)


@pytest.mark.parametrize("settings", [{}, {"every_epochs": 2, "threaded": True}], ids=str)
def test_a_training_goes_on_from_a_checkpoint_of_earlier_code(tmp_path, settings, caplog):
    for message in NOISE:  # as the command does
        warnings.filterwarnings("ignore", message)
    expected, cost = train(tmp_path / "whole"), TrainingCost()
    with pytest.raises(Stop):
        train(tmp_path / "cut", StopIn(epoch=3), TrainingCost())
    as_before(tmp_path / "cut" / LAST)
    found = train(tmp_path / "cut", cost, **settings)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert [epoch["macs"] for epoch in cost.epochs] == [None, None, None, 416, 416]  # 48·8 + 8·4
    assert cost.train_macs is None
    assert "the multiply-adds of the first 3 epochs are not known" in caplog.text


def test_a_state_that_lacks_what_is_needed_is_refused():
    states = [GradualSlimming(ratio=0.5).state_dict(), AutoSparsity(ratio=0.5).state_dict()]
    for callback, state in zip([GradualSlimming(ratio=0.5), AutoSparsity(ratio=0.5)], states, strict=True):
        callback.load_state_dict(state)
        name, lacking = type(callback).__name__, list(state)[:2]
        old = {key: value for key, value in state.items() if key not in lacking}
        said = f"the checkpoint is of an earlier netslim, whose {name} kept no {', '.join(sorted(lacking))}; remove it"
        with pytest.raises(ValueError, match=said):
            callback.load_state_dict(old)


def test_the_thread_writes_what_was_there_when_it_was_told_to(tmp_path, monkeypatch):
    begin, net, rows = threading.Event(), nn.Linear(2, 3), [{"epoch": 1}]
    monkeypatch.setattr(files, "write_tensors", lambda *given: begin.wait(60) and write_tensors(*given))
    writer = checkpoint.AtomicCheckpointIO(threaded=True)
    before = net.weight.detach().clone()
    writer.save_checkpoint({"state_dict": net.state_dict(), "rows": rows}, tmp_path / LAST)
    net.weight.data.zero_()
    rows.append({"epoch": 2})
    writer.finish(wait=False)
    assert not (tmp_path / LAST).exists()
    begin.set()
    writer.finish()
    saved = files.read_tensors(tmp_path / LAST)
    assert torch.equal(saved["state_dict"]["weight"], before)
    assert saved["rows"] == [{"epoch": 1}]


@pytest.mark.parametrize("epoch", [2, 5])
def test_a_write_that_fails_in_the_thread_ends_the_training(tmp_path, monkeypatch, epoch):
    def failing(path, content):
        if content["epoch"] + 1 == epoch:
            raise OSError(28, "No space left on device", str(path))
        write_tensors(path, content)

    monkeypatch.setattr(files, "write_tensors", failing)
    with pytest.raises(OSError, match=f"No space left on device.*{LAST}"):
        train(tmp_path, threaded=True)
    assert files.read_tensors(tmp_path / LAST)["epoch"] + 1 == epoch - 1


def test_another_error_is_not_covered_by_that_of_the_thread(tmp_path, monkeypatch, caplog):
    def failing(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_tensors", failing)
    with pytest.raises(Stop):
        train(tmp_path, StopIn(epoch=1), threaded=True)
    assert "the last checkpoint was not written: [Errno 28] No space left on device" in caplog.text


def test_killed_in_the_middle_of_a_write_the_one_before_is_left(tmp_path):
    context = get_context("fork")
    reached = context.Event()

    def die():
        writer = checkpoint.AtomicCheckpointIO(threaded=True)
        writer.save_checkpoint({"epoch": 1}, tmp_path / LAST)
        writer.finish()
        os.fsync = lambda _: reached.set() or threading.Event().wait()  # the second one is never forced to disk
        writer.save_checkpoint({"epoch": 2}, tmp_path / LAST)
        writer.finish()

    process = context.Process(target=die)
    process.start()
    assert reached.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert files.read_tensors(tmp_path / LAST) == {"epoch": 1}


class Smallest(SlimmingTask):
    """A training of no images; an epoch of two batches takes six seconds."""

    seconds = 0.0

    def __init__(self):
        super().__init__(nn.Linear(1, 1), optimizer=partial(torch.optim.SGD, lr=0.1))

    def training_step(self, batch, batch_idx):
        self._seen = 1
        Smallest.seconds += 3
        return self.network(batch).sum()

"""One training: from the last whole epoch or from the start, to the test after the last epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from netslim.files import Record
from netslim.measure.environment import describe_run
from netslim.training import checkpoint, distributed
from netslim.training.gamma_histogram import GammaHistogram
from netslim.training.gradual import GradualSlimming
from netslim.training.loggers import close, tensorboard
from netslim.training.progress import EpochSeed, History, Progress
from netslim.training.task import Metric, metric_of, record_of_test, score

log = logging.getLogger("netslim")

LAST = "last.ckpt"


def fit(
    folder: Path, module: LightningModule, data: LightningDataModule, *, trainer: Callable[..., Trainer], command: str,
    seed: int, epochs: int, loggers: Sequence[Callable[..., Logger]] = (tensorboard,),
    callbacks: Sequence[Callback] = (), every_epochs: int = 1, every_seconds: float = 0.0, threaded: bool = False,
    epochs_after: Callable[[], Sequence[int]] = tuple,
) -> tuple[History, Record]:  # fmt: skip
    """Train for ``epochs`` from the last checkpoint in ``folder`` or from the start; then test, once.

    Args:
        epochs: 0 tests the module as it is.
        module: a task (training/task.py).
        loggers: make loggers from the folder (training/loggers.py).
        callbacks: beside netslim's own.
        every_epochs, every_seconds, threaded: of the checkpoints (training/checkpoint.py).
        epochs_after: how many epochs are to be trained after these: of the job, and of the sweep that it is part of.
    """
    told, history, done = describe_run(command), History(metric_of(module)), _epochs_done(folder, module, callbacks)
    title = folder.name.rsplit("_", 1)[0]  # without its digest
    last = checkpoint.LastCheckpoint(folder / LAST, every_epochs, every_seconds)
    own = [EpochSeed(seed), GammaHistogram(), history, Progress(title, history, epochs_after), last]
    runner: Trainer = trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        logger=[make(folder, done) for make in loggers],
        callbacks=[*own, *callbacks],
    )
    runner.strategy.checkpoint_io = checkpoint.AtomicCheckpointIO(threaded)
    if done is not None:
        log.info("%s | going on from %s", title, LAST)
    if epochs:
        runner.fit(module, data, ckpt_path=None if done is None else str(folder / LAST), weights_only=True)
    test = _tested(runner, module, data, history.metric)
    log.info("%s | Test set: %s", title, told_of_test(test, history.metric))
    return history, {"epochs": history.rows, "test": test, "run": told(earlier=history.earlier)}


def _epochs_done(folder: Path, module: LightningModule, callbacks: Sequence[Callback]) -> int | None:
    """How many epochs an earlier attempt left in the folder; None for none."""
    path, shrinks = folder / LAST, any(isinstance(callback, GradualSlimming) for callback in callbacks)
    return distributed.on_rank_zero(lambda: checkpoint.epochs_done(path, module, shrinks) if path.exists() else None)


def _tested(runner: Trainer, module: LightningModule, data: LightningDataModule, metric: Metric) -> dict[str, float]:
    runner.test(module, data, verbose=False)
    close(runner.loggers)
    return record_of_test(runner.callback_metrics, metric)


def told_of_test(test: Mapping[str, float], metric: Metric) -> str:
    """A test in words.

    >>> told_of_test({"correct": 9, "total": 10}, Metric("accuracy")), told_of_test({"value": 0.75}, Metric("mIoU"))
    ('Accuracy: 9/10 (90.0%)', 'mIoU: 75.0%')
    """
    shown = metric.shown(score(test))
    if "total" not in test:
        return f"{metric.name}: {shown}"
    return f"{metric.name.capitalize()}: {test['correct']}/{test['total']} ({shown})"

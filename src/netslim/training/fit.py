"""One training: from the last whole epoch or from the start, to the test after the last epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger

from netslim.files import Record
from netslim.measure.environment import describe_run
from netslim.training import checkpoint, distributed
from netslim.training.gamma_histogram import GammaHistogram
from netslim.training.loggers import close, tensorboard
from netslim.training.progress import EpochSeed, History, Progress
from netslim.training.task import Metric, metric_of, record_of_test, score

log = logging.getLogger("netslim")


def fit(
    folder: Path, module: LightningModule, data: LightningDataModule, *, trainer: Callable[..., Trainer], command: str,
    seed: int, epochs: int, loggers: Sequence[Callable[..., Logger]] = (tensorboard,),
    callbacks: Sequence[Callback] = (),
) -> tuple[History, Record]:  # fmt: skip
    """Train for ``epochs`` from the last checkpoint in ``folder`` or from the start; then test, once.

    Args:
        module: a task (training/task.py).
        loggers: make loggers from the folder (training/loggers.py).
        callbacks: beside netslim's own.
    """
    told, metric = describe_run(command), metric_of(module)
    history, last = History(metric), folder / "last.ckpt"
    done = distributed.on_rank_zero(lambda: checkpoint.epochs_done(last, module) if last.exists() else None)
    runner: Trainer = trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        logger=[make(folder, done) for make in loggers],
        callbacks=[
            EpochSeed(seed),
            GammaHistogram(),
            history,
            Progress(folder.name.rsplit("_", 1)[0], history),
            ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            *callbacks,
        ],
    )
    runner.strategy.checkpoint_io = checkpoint.AtomicCheckpointIO()
    if done is not None:
        log.info("%s | going on from %s", folder.name, last.name)
    runner.fit(module, data, ckpt_path=None if done is None else str(last), weights_only=True)
    runner.test(module, data, verbose=False)
    close(runner.loggers)
    test = record_of_test(runner.callback_metrics, metric)
    log.info("%s | Test set: %s", folder.name, told_of_test(test, metric))
    return history, {"epochs": history.rows, "test": test, "run": told(earlier=history.earlier)}


def told_of_test(test: Mapping[str, float], metric: Metric) -> str:
    """A test in words.

    >>> told_of_test({"correct": 9, "total": 10}, Metric("accuracy")), told_of_test({"value": 0.75}, Metric("mIoU"))
    ('Accuracy: 9/10 (90.0%)', 'mIoU: 75.0%')
    """
    shown = metric.shown(score(test))
    if "total" not in test:
        return f"{metric.name}: {shown}"
    return f"{metric.name.capitalize()}: {test['correct']}/{test['total']} ({shown})"

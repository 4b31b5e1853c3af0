"""One training: from the last whole epoch or from the start, to the test after the last epoch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from netslim.files import Record
from netslim.measure.environment import describe_run
from netslim.training import checkpoint, distributed
from netslim.training.classification import SlimmingTask
from netslim.training.gamma_histogram import GammaHistogram
from netslim.training.progress import EpochSeed, History, Progress

log = logging.getLogger("netslim")


def fit(
    folder: Path, module: SlimmingTask, data: LightningDataModule, *, trainer: Callable[..., Trainer], command: str,
    seed: int, epochs: int,
) -> tuple[History, Record]:  # fmt: skip
    """Train for ``epochs`` from the last checkpoint in ``folder`` or from the start; then test, once."""
    told = describe_run(command)
    history, last = History(), folder / "last.ckpt"
    done = distributed.on_rank_zero(lambda: checkpoint.epochs_done(last, module) if last.exists() else None)
    runner: Trainer = trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        logger=TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False, purge_step=done),
        callbacks=[
            EpochSeed(seed),
            GammaHistogram(),
            history,
            Progress(folder.name.rsplit("_", 1)[0], history),
            ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            distributed.StopTogether(),
        ],
    )
    runner.strategy.checkpoint_io = checkpoint.AtomicCheckpointIO()
    if done is not None:
        log.info("%s | going on from %s", folder.name, last.name)
    runner.fit(module, data, ckpt_path=None if done is None else str(last), weights_only=True)
    runner.test(module, data, verbose=False)
    test = with_test_counts({"metrics": runner.callback_metrics})["test"]
    log.info(
        "%s | Test set: Accuracy: %d/%d (%.1f%%)", folder.name, test["correct"], test["total"], 100 * accuracy(test)
    )
    return history, {"epochs": history.rows, "test": test, "run": told(earlier=history.earlier)}


def with_test_counts(value: Any) -> Any:
    """Replace the metrics that SlimmingTask's test loop logs by {"correct", "total", "loss"}."""
    if not isinstance(value, dict) or "metrics" not in value:
        return value
    metrics = {key: float(metric) for key, metric in value["metrics"].items()}
    test = {
        "correct": round(metrics["test/correct"]),
        "total": round(metrics["test/total"]),
        "loss": metrics["loss/test"],
    }
    return {**{key: v for key, v in value.items() if key != "metrics"}, "test": test}


def accuracy(test: Mapping[str, float]) -> float:
    return test["correct"] / test["total"]

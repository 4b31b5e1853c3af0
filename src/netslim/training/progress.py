"""What a stage leaves per epoch (History), what a person sees meanwhile (Progress), and the seed of each epoch."""

from __future__ import annotations

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from tqdm import tqdm

from netslim.data.order import epoch_seed
from netslim.method.scales import all_scales, histogram
from netslim.training.task import ACCURACY, Metric

log = logging.getLogger("netslim")


def columns(metric: Metric) -> dict[str, str]:
    """What of the logged numbers makes a row, and under which name.

    >>> list(columns(Metric("mIoU")).items())[:2]
    [('loss/train', 'train_loss'), ('mIoU/train', 'train_mIoU')]
    """
    scores = [(split, what) for split in ("train", "val") for what in ("loss", metric.name)]
    return {**{f"{what}/{split}": f"{split}_{what}" for split, what in scores}, "dead_gamma/share": "dead_share"}


def about(seconds: float) -> str:
    """A time for people, no more exact than an estimate is.

    >>> about(12.3), about(200), about(5000)
    ('12 s', '3 min', '1 h 23 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


class History(Callback):
    """One row of numbers per epoch, kept in the checkpoint, so that a resumed run has the curves of the whole.

    A row holds what the task logs of loss and metric, and the share of dead γ. ``gammas`` has for every
    epoch the histogram of |γ|, [] for one of a checkpoint that has none. ``rates`` adds up the learning rate of every
    optimiser step, for the shrinkage budget; ``earlier`` are the seconds that earlier attempts took, as far as their
    epochs count.
    """

    def __init__(self, metric: Metric = ACCURACY) -> None:
        self.metric = metric
        self.rows: list[dict[str, float]] = []
        self.gammas: list[list[int]] = []
        self.rates = self._rate = self.earlier = 0.0
        self._validated = -1  # the epoch of the last validation
        self._started = time.monotonic()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # At an epoch's end the scheduler has already set the next epoch's rate.
        self._rate = optimizer.param_groups[0]["lr"]
        self.rates += self._rate

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = dict(trainer.callback_metrics)
        if self._validated != trainer.current_epoch:  # what is there is of an earlier epoch
            metrics = {name: value for name, value in metrics.items() if not name.endswith("/val")}
        row = {column: float(metrics[name]) for name, column in columns(self.metric).items() if name in metrics}
        wrong = [column for column, value in row.items() if not math.isfinite(value)]
        if wrong:
            raise FloatingPointError(
                f"epoch {trainer.current_epoch + 1}: {', '.join(wrong)} is not a finite number; training diverged, "
                "lower optimizer.lr or lambda"
            )
        self.rows.append({"epoch": trainer.current_epoch + 1, "lr": self._rate, **row})
        self.gammas.append(histogram(all_scales(pl_module)))
        pl_module.log("learning_rate", self._rate, sync_dist=True)

    def state_dict(self) -> dict[str, Any]:
        seconds = self.earlier + time.monotonic() - self._started
        return {"rows": self.rows, "gammas": self.gammas, "rates": self.rates, "seconds": seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.rates, self.earlier = state_dict["rows"], state_dict["rates"], state_dict["seconds"]
        self.gammas = state_dict.get("gammas", [[] for _ in self.rows])


class EpochSeed(Callback):
    """Seed torch's generators anew at each epoch's first batch: a resumed epoch draws what the uninterrupted one drew.

    Order and augmentation of the data have generators of their own; this is for dropout and the like, which differs
    from process to process.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0:
            torch.manual_seed(epoch_seed(self.seed, trainer.current_epoch) + trainer.global_rank)


class Progress(Callback):
    """A bar over the batches of all epochs on a terminal (not with TQDM_DISABLE=1), one line per epoch elsewhere.

    Shows epoch, loss, the task's metric, the share of dead γ, and the time left. Numbers come from epoch ends:
    none is fetched from the device in between.

    Args:
        epochs_after: how many epochs are to be trained after these: of the job, and of the sweep that it is part of.
    """

    def __init__(self, title: str, history: History, epochs_after: Callable[[], Sequence[int]] = tuple) -> None:
        self.title, self.history, self.epochs_after = title, history, epochs_after
        self._bar: tqdm | None = None
        self._since = self._started = 0.0
        self._done = 0  # epochs of this attempt

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = self._started = time.monotonic()
        if sys.stderr.isatty() and not os.environ.get("TQDM_DISABLE") and trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches) * trainer.accumulate_grad_batches
            done = trainer.current_epoch * int(trainer.num_training_batches)
            self._bar = tqdm(total=total, initial=done, desc=self.title, unit="batch", dynamic_ncols=True, leave=True)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        row = self.history.rows[-1]
        epoch, scores = f"epoch {row['epoch']:.0f}/{trainer.max_epochs}", self._scores(row)
        self._done += 1
        left = self._left(int(trainer.max_epochs or 0) - int(row["epoch"]))
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join([epoch, *scores, left]))
        elif trainer.is_global_zero:
            seconds, self._since = time.monotonic() - self._since, time.monotonic()
            log.info("%s | %s | %s | %.1f s | %s", self.title, epoch, ", ".join(scores), seconds, left)

    def _left(self, epochs: int) -> str:
        """How long what is left takes where every epoch takes as long as those so far."""
        each = (time.monotonic() - self._started) / self._done
        after = dict(zip(("job", "sweep"), self.epochs_after(), strict=False)) or {"training": 0}
        return "left: " + ", ".join(f"{what} {about(each * (epochs + more))}" for what, more in after.items())

    def _scores(self, row: Mapping[str, float]) -> list[str]:
        metric = self.history.metric
        shown = {
            "train_loss": ("loss", ".3f"),
            f"train_{metric.name}": (metric.name, metric.format),
            f"val_{metric.name}": ("val", metric.format),
            "dead_share": ("dead γ", ".0%"),
        }
        return [f"{word} {row[column]:{spec}}" for column, (word, spec) in shown.items() if column in row]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

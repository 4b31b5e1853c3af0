"""Where the curves of a training go. A logger of one's own is a function ``(folder, resumed) -> Logger`` like these.

``folder`` is the stage's; ``resumed`` how many epochs of it stand in the log already, None for none.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor

from netslim.training.distributed import is_rank_zero

log = logging.getLogger("netslim")


class EventFiles(TensorBoardLogger):
    """Curves whose tags begin with the kind of the stage: "finetune/loss/val" is not drawn over "loss/val"."""

    LOGGER_JOIN_CHAR = "/"

    def tag(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def tensorboard(folder: Path, resumed: int | None = None, **settings: Any) -> Logger:
    """Event files in the stage's folder; an epoch that was cut off is replaced. Tags of all but the sparsity training
    begin with the kind of the stage."""
    where: dict[str, Any] = {"save_dir": folder.parent, "name": "", "version": folder.name}
    kind, labelled, _ = folder.name.partition("_")
    prefix = kind if labelled and kind != "train" else ""
    if resumed is not None and is_rank_zero():
        _read_first(sorted(folder.glob("events.out.tfevents.*")))
    return EventFiles(**where, default_hp_metric=False, purge_step=resumed, **{"prefix": prefix, **settings})


def _read_first(written: Sequence[Path]) -> None:
    """Event files are read in the order of the seconds in their names: those of a clock that was ahead of this one's
    get numbers instead, or the new file would be read before them."""
    if not written or written[-1].name.split(".")[3] < f"{int(time.time()):010d}":
        return
    for place, path in enumerate(written):
        *begin, _, writer = path.name.split(".", 4)
        path.rename(path.with_name(".".join([*begin, f"{place:010d}", writer])))


def csv(folder: Path, resumed: int | None = None, **settings: Any) -> Logger:
    """``csv/<epochs done before>/metrics.csv`` in the stage's folder: one for each attempt, of the epochs it added."""
    attempt = str(resumed or 0)
    if is_rank_zero():
        shutil.rmtree(folder / "csv" / attempt, ignore_errors=True)  # of one that was cut off before its first epoch
    return CSVLogger(folder, name="csv", version=attempt, **settings)


def wandb(folder: Path, resumed: int | None = None, *, project: str = "netslim", **settings: Any) -> Logger:
    """A run of Weights & Biases with the name of the stage; a resumed training goes on in it."""
    run = {"name": folder.name, "id": f"{folder.parent.name}-{folder.name}".replace("=", "-"), "resume": "allow"}
    return _installed("wandb", lambda: WandbLogger(save_dir=folder, project=project, **{**run, **settings}))


def mlflow(folder: Path, resumed: int | None = None, *, experiment_name: str = "netslim", **settings: Any) -> Logger:
    """A run of MLflow with the name of the stage, in ``mlruns`` beside the sweeps or where ``tracking_uri`` says."""
    where = {"run_name": folder.name, "tracking_uri": f"file:{folder.absolute().parents[1] / 'mlruns'}"}
    return _installed("mlflow", lambda: MLFlowLogger(experiment_name=experiment_name, **{**where, **settings}))


def _installed(package: str, make: Any) -> Logger:
    try:
        made: Logger = make()
    except ModuleNotFoundError as error:
        raise ValueError(
            f"logger={package} needs a package that is not installed ({error}): pip install {package}, or choose "
            "another logger"
        ) from None
    return made


def log_histograms(loggers: Iterable[Logger], values: Mapping[str, Tensor], step: int) -> None:
    """Log how each tensor's numbers are distributed, wherever that can be shown; say once where it cannot."""
    for logger in loggers:
        events: Any = getattr(logger, "experiment", None)
        if isinstance(logger, WandbLogger):
            histogram = import_module("wandb").Histogram
            logger.log_metrics({name: histogram(tensor.float().cpu().numpy()) for name, tensor in values.items()}, step)
        elif hasattr(events, "add_histogram"):  # TensorBoard's, and what is like it
            for name, tensor in values.items():
                tag = logger.tag(name) if isinstance(logger, EventFiles) else name
                events.add_histogram(tag, tensor.float().cpu(), step)
        else:
            _say_once(f"{type(logger).__name__} shows no histograms: the distribution of γ is not in it")


@cache
def _say_once(message: str) -> None:
    log.info(message)


def log_final(logger: Logger, settings: Mapping[str, Any], final: Mapping[str, float]) -> None:
    """What a job ended with, as the logger's hyper-parameters and metrics."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_hparams(dict(settings), dict(final), run_name=".")
    else:
        logger.log_hyperparams(dict(settings))
        logger.log_metrics(dict(final))
    logger.finalize("success")
    close([logger])


def close(loggers: Iterable[Logger]) -> None:
    """End the runs of Weights & Biases, or the next stage would go on in this one's."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and is_rank_zero():
            logger.experiment.finish()

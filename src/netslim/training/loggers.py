"""Where the curves of a training go. A logger of one's own is a function ``(folder, resumed) -> Logger`` like these.

``folder`` is the stage's; ``resumed`` how many epochs of it stand in the log already, None for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger


def tensorboard(folder: Path, resumed: int | None = None, **settings: Any) -> Logger:
    """Event files in the stage's folder; an epoch that was cut off is replaced."""
    where: dict[str, Any] = {"save_dir": folder.parent, "name": "", "version": folder.name}
    return TensorBoardLogger(**where, default_hp_metric=False, purge_step=resumed, **settings)


def csv(folder: Path, resumed: int | None = None, **settings: Any) -> Logger:
    """``csv/<first epoch>/metrics.csv`` in the stage's folder, one for each attempt."""
    return CSVLogger(folder, name="csv", version=str(resumed or 0), **settings)


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
        raise ValueError(f"logger={package} needs a package that is not installed: pip install {package}") from error
    return made


def log_final(logger: Logger, settings: Mapping[str, Any], final: Mapping[str, float]) -> None:
    """What a job ended with, as the logger's hyper-parameters and metrics."""
    if isinstance(logger, TensorBoardLogger):
        logger.log_hyperparams(dict(settings), dict(final))
    else:
        logger.log_hyperparams(dict(settings))
        logger.log_metrics(dict(final))
    logger.finalize("success")

"""The Hydra application ``netslim``: configuration in, objects out, pipeline started. Config stops at this door."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from netslim import artifacts, pipeline
from netslim.task import SlimmingTask

log = logging.getLogger("netslim")

PACKAGED = Path(__file__).parent / "conf"
CONF = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2] / "conf"

# Settings that cannot change a result do not make another stage.
WITHOUT_EFFECT = {"data": ("cache_dir", "download"), "trainer": ("enable_progress_bar", "enable_model_summary")}

NOISE = (  # true, and nothing the reader could do about
    r".*does not have many workers.*",  # batches come from memory
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*srun.*command is available.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # that is what resuming means
)


def main() -> None:
    """Entry point: errors a user can mend are one line and exit code 2; others keep their traceback and exit code 1."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's own shortening exits the process; we shorten below
    try:
        app()
    except (HydraException, OmegaConfBaseException, ValueError, FileNotFoundError, FloatingPointError) as error:
        if "NETSLIM_TRACEBACK" in os.environ:
            raise
        print(f"netslim: error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(cfg: DictConfig) -> float:
    """One job. Returns its final test accuracy, for Hydra's optimising sweepers."""
    _quiet()
    position = _position(cfg)
    log.info("job %s | λ = %g, prune ratio %g %%, seed %d", position, cfg["lambda"], 100 * cfg.ratio, cfg.seed)
    sweep = Path(cfg.outputs) / cfg.name
    job = pipeline.run(sweep, **_arguments(cfg), command=_command())
    last = artifacts.finished(sweep / (job["finetune"] or job["slim"])) or {}
    test = last["test"] if job["finetune"] else last["recalibrated"]["test"]
    return float(test["correct"] / test["total"])


def _arguments(cfg: DictConfig) -> dict[str, Any]:
    """The keyword arguments of ``pipeline.run``: plain numbers, and factories made by Hydra."""
    optimizer, scheduler = instantiate(cfg.optimizer), instantiate(cfg.scheduler)
    task = partial(SlimmingTask, scheduler=scheduler, label_smoothing=cfg.label_smoothing)
    return {
        "strength": float(cfg["lambda"]),
        "ratio": float(cfg.ratio),
        "seed": int(cfg.seed),
        "epochs": int(cfg.epochs),
        "finetune_epochs": int(cfg.finetune.epochs),
        "network": instantiate(cfg.net, _partial_=True),
        "data": instantiate(cfg.data, _partial_=True),
        "task": partial(task, optimizer=optimizer),
        "finetune_task": partial(task, optimizer=partial(optimizer, lr=float(cfg.finetune.lr))),
        "trainer": instantiate(cfg.trainer),
        "slimming": instantiate(cfg.slimming),
        "settings": _settings(cfg),
    }


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What determines each stage beside λ, ratio, seed and epochs."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    for group, keys in WITHOUT_EFFECT.items():
        plain[group] = {key: value for key, value in plain[group].items() if key not in keys}
    recipe = {key: plain[key] for key in ("net", "data", "optimizer", "scheduler", "trainer", "label_smoothing")}
    return {
        "train": recipe,
        "slim": {"slimming": plain["slimming"]},
        "finetune": {**recipe, "lr": plain["finetune"]["lr"]},
    }


def _command() -> str:
    """The command that repeats just this job."""
    return shlex.join(["netslim", *HydraConfig.get().overrides.task])


def _position(cfg: DictConfig) -> str:
    number, sweep = HydraConfig.get().job.get("num"), artifacts.load_sweep(Path(cfg.outputs) / cfg.name)
    return f"{number + 1} of {len(sweep['jobs'])}" if number is not None and sweep else "1 of 1"


def _quiet() -> None:
    """Lightning's lines once, through Hydra's logging, warnings and worse only; no warnings without a remedy."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)


def _one_line(error: BaseException) -> str:
    """The message of an error and of what caused it, on one line."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = " ".join(dict.fromkeys(" ".join(str(cause).split()) for cause in causes))
    return text or type(error).__name__


if __name__ == "__main__":
    main()

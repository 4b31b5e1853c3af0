"""The Hydra application ``netslim``: configuration in, objects out, pipeline started. Config stops at this door."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from netslim.experiment import paths, pipeline
from netslim.launch import command_line, config, gpu_lease, job_process, sweep
from netslim.launch.command_line import CONF
from netslim.training import allocator, distributed

log = logging.getLogger("netslim")

RELAUNCHES = 3  # how often a sweep goes on by itself after a worker of its launcher was killed

NOISE = (  # true, and nothing the reader could do about
    r".*does not have many workers.*",  # batches come from memory
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*Total length of `list` across ranks is zero.*",  # no validation split, as asked
    r".*srun.*command is available.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # that is what resuming means
    r".*It is recommended to use `self.log.*sync_dist=True",  # rank 0 measures the slim network alone
)


# What a user can mend: one line, exit code 2. Anything else is ours and keeps its traceback.
MENDABLE = (
    HydraException,
    OmegaConfBaseException,
    MisconfigurationException,
    ValueError,
    OSError,  # no such file, no permission, no space: the message names it
    FloatingPointError,
)


def main() -> None:
    """Entry point of the command ``netslim``. Exit codes: 1 a job of a sweep failed, 2 a mistake, 143 SIGTERM."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra shortens errors itself, and exits with 1
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # "is there a GPU?" must not start CUDA before a fork
    warnings.filterwarnings("error", "Callback .* raised")  # else Hydra goes on
    failure: BaseException | None = None
    failed = False
    try:
        _launch()
    except (job_process.JobFailed, BrokenProcessPool):
        failed = True  # the summary says which, and why
    except MENDABLE as error:
        failure = error
    except UserWarning as warning:  # Hydra's, about an error in on_run_start or on_multirun_start
        failure = warning.__context__
        if not isinstance(failure, MENDABLE):
            raise
    except SIGTERMException:  # a SystemExit without a code: the shell would take it for success
        print(distributed.STOPPED, file=sys.stderr)
        sys.exit(job_process.TERMINATED)
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning's, in a training
            _interrupted()
        raise
    try:
        sweep.report_all()
    except MENDABLE as error:
        failure = failure or error
    failed = sweep.summary() > 0 or failed
    if failure is not None:
        sweep.withdraw()
        _exit_with(failure)
    if failed:
        sys.exit(1)


def _launch() -> None:
    """Run the application; a sweep goes on with the jobs that have not ended when its launcher's processes died."""
    for _ in range(RELAUNCHES):
        try:
            return app()
        except BrokenProcessPool:  # joblib ends all its workers when one is killed
            print("netslim: a worker process was killed; going on with the jobs that have not ended", file=sys.stderr)
            GlobalHydra.instance().clear()
    return app()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def app(cfg: DictConfig) -> float:
    """One job. Returns its validation accuracy, for Hydra's optimising sweepers."""
    _quiet()
    if _hydra().mode == RunMode.MULTIRUN:  # the sweep's other jobs go on; Hydra raises the error at its end
        if (known := sweep.failure(paths.sweep_folder(cfg.outputs, cfg.name), _hydra().overrides.task)) is not None:
            raise job_process.JobFailed(known)
        return job_process.run(partial(_job, cfg, _position(cfg)), _mendable, command_line.repeat(_hydra()))
    try:
        return _job(cfg, "1 of 1")
    except MENDABLE as error:
        sweep.withdraw()
        _exit_with(error)


def _hydra() -> DictConfig:
    """Hydra's own part of the configuration."""
    return cast(DictConfig, HydraConfig.get())


def _job(cfg: DictConfig, position: str) -> float:
    allocator.keep_freed_memory()
    if cfg.threads is not None:
        torch.set_num_threads(config.number(cfg, "threads", int, least=1))
    arguments = config.arguments(cfg)
    strength, ratio, seed = (arguments[key] for key in ("strength", "ratio", "seed"))
    log.info("job %s | λ = %g, prune ratio %g %%, seed %d", position, strength, 100 * ratio, seed)
    folder = paths.sweep_folder(cfg.outputs, cfg.name)
    with ExitStack() as leases:
        if _hydra().mode == RunMode.MULTIRUN:
            if _hydra().runtime.choices["hydra/launcher"] != "basic":
                os.environ["TQDM_DISABLE"] = "1"  # bars of jobs side by side would overwrite each other
            _check_launcher(arguments["trainer"])
            _lease(cfg, arguments, leases)
        job = pipeline.run(folder, **arguments, command=command_line.repeat(_hydra()))
    return _score(folder, job)


def _score(folder: Path, job: paths.Record) -> float:
    """Validation accuracy at the end of fine-tuning: what a search may look at; nan where there is none."""
    tuned = paths.finished(folder / job["finetune"]) if job["finetune"] else None
    return float(tuned["epochs"][-1].get("val_accuracy", "nan")) if tuned else math.nan


def _check_launcher(trainer: Callable[..., Trainer]) -> None:
    """Refuse what would hang: Lightning starts a job's other processes itself only where no scheduler does."""
    launcher = _hydra().runtime.choices["hydra/launcher"]
    devices = trainer(logger=False, enable_checkpointing=False).world_size
    if launcher not in ("basic", "joblib") and devices > 1 and not distributed.started_elsewhere():
        raise ValueError(
            f"{devices} devices per job under hydra/launcher={launcher}, whose processes cannot start others; use "
            f"hydra/launcher=basic or joblib, hydra/launcher=submitit_slurm with tasks_per_node "
            "as many as trainer.devices, or one device per job (trainer=default)"
        )


def _lease(cfg: DictConfig, arguments: dict[str, Any], leases: ExitStack) -> None:
    """Give the job its own GPUs, where jobs share a machine's and nobody else hands them out, as Slurm and Ray do."""
    gpus = gpu_lease.visible()
    if _hydra().runtime.choices["hydra/launcher"] in ("submitit_slurm", "ray"):
        return
    if not gpus or not job_process.possible() or cfg.trainer.accelerator not in ("auto", "gpu", "cuda"):
        return
    if cfg.trainer.devices == 1:  # with the first data, so that a job which waits for another's stage holds none
        arguments["data"] = gpu_lease.before(arguments["data"], 1, leases)
    elif isinstance(cfg.trainer.devices, (int, str)):  # before the job's other processes start; a list is a choice
        count = int(cfg.trainer.devices) if str(cfg.trainer.devices).isdigit() else len(gpus)
        gpu_lease.take(count, leases)


def _position(cfg: DictConfig) -> str:
    asked = paths.load_sweep(Path(cfg.outputs) / cfg.name)
    number = _hydra().job.num + 1
    return f"{number} of {len(asked.jobs)}" if asked and asked.jobs else f"{number}"


def _quiet() -> None:
    """Lightning's lines once, through Hydra's logging, warnings and worse only; no warnings without a remedy."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    if not distributed.is_rank_zero():
        log.setLevel(logging.WARNING)  # rank 0 says it
    for message in NOISE:
        warnings.filterwarnings("ignore", message)


def _interrupted() -> NoReturn:
    print("netslim: interrupted; the same command goes on from the last whole epoch", file=sys.stderr)
    sys.exit(128 + signal.SIGINT)


def _exit_with(error: BaseException) -> NoReturn:
    """One line; the traceback only when NETSLIM_TRACEBACK is set."""
    if "NETSLIM_TRACEBACK" in os.environ:
        raise error
    print(f"netslim: error: {_line(error)}", file=sys.stderr)
    sys.exit(2)


def _mendable(error: BaseException) -> str | None:
    return _line(error) if isinstance(error, MENDABLE) and "NETSLIM_TRACEBACK" not in os.environ else None


def _line(error: BaseException) -> str:
    """The message of an error and of what caused it on one line."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    words = dict.fromkeys(" ".join(str(link).split()) for link in chain)
    said = [text for text in words if not any(text in other for other in words if other != text)]
    text = " ".join(said) or type(error).__name__
    text = text.replace(", set env var HYDRA_FULL_ERROR=1 to see chained exception.", ".")
    # Hydra would have it added with +, and then nobody would read it.
    text = re.sub(r"Missing mandatory value: \S+ full_key: (\S+).*", r"\1 has no value; give \1=…", text)
    return re.sub(r"Could not override '(\w+|finetune\.\w+)'.*", lambda found: config.unknown(found[1]), text)


if __name__ == "__main__":
    main()

"""The Hydra application ``netslim``. Config stops at this door: ``job.py`` turns it into objects and runs them.

Nothing here loads torch: ``--help``, ``--version``, ``--cfg job`` and a mistyped setting cost a fraction of its import.
"""

from __future__ import annotations

import os
import sys
import warnings
from concurrent.futures.process import BrokenProcessPool

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from netslim.launch import command_line, ending, errors, resolvers

RELAUNCHES = 3  # how often a sweep goes on by itself after a worker of its launcher was killed

resolvers.register()  # here: a launcher's processes import this module too


def main() -> None:
    """Entry point of the command ``netslim``; its exit codes are in errors.py."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # else Hydra shortens errors itself, and exits with 1
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # "is there a GPU?" must not start CUDA before a fork
    warnings.filterwarnings("error", "Callback .* raised")  # else Hydra goes on
    # conf/hydra/launcher/ overrides the plugins' defaults under the plugins' names; that they validate it is welcome.
    warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against ConfigStore schema")
    ended = ending.end(errors.attempt(_launch))
    if ended.code:
        errors.leave(ended)


def _launch() -> None:
    """Run the application; a sweep goes on with the jobs that have not ended when its launcher's processes died."""
    command_line.answer()
    for _ in range(RELAUNCHES):
        try:
            return app()
        except BrokenProcessPool:  # joblib ends all its workers when one is killed
            print("netslim: a worker process was killed; going on with the jobs that have not ended", file=sys.stderr)
            GlobalHydra.instance().clear()
    return app()


@hydra.main(version_base="1.3", config_path=str(command_line.CONF), config_name="config")
def app(cfg: DictConfig) -> float:
    """One job. Returns its validation accuracy, for Hydra's optimising sweepers."""
    from netslim.launch import job  # here: a job needs torch and Lightning, a mistyped setting does not

    return job.run(cfg)


if __name__ == "__main__":
    main()

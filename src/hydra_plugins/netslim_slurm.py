"""Where Hydra looks for launchers: it accepts only classes of this namespace. The work is in netslim.slurm."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from hydra.core.utils import JobReturn

if find_spec("hydra_plugins.hydra_submitit_launcher"):  # pip install 'netslim[slurm]'
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    class Launcher(SlurmLauncher):
        """hydra/launcher=submitit_slurm, with a wait that ends."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            from netslim.launch import slurm  # Hydra imports this module at every start

            return slurm.launch(self, job_overrides, initial_job_idx)

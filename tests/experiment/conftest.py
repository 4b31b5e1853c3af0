"""A small job, as the command makes it of its words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment.job import Job
from netslim.launch import config, quiet
from netslim.launch.command_line import CONF

SMALL = ["net=vgg_digits", "net.layers=[8,M,8,4]", "epochs=2", "finetune.epochs=1", "ratio=0.5", "lambda=1e-3"]


@pytest.fixture(scope="session")
def job_of() -> Callable[..., Job]:
    def made(*words: str) -> Job:
        quiet.quiet()
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", [*SMALL, "logger=none", *words], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]
        return config.job(cfg, command="netslim")

    return made

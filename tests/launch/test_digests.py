"""The names of the stages of the shipped experiments never change: finished sweeps would train again.

Oracle: digests.json, written before the code was rearranged, by the code that made outputs/published.

MEANT lists the one experiment that was changed on purpose since: lab4_digits has a wider network, because 90 % of the
old one's channels left a single channel in four of six layers, and nothing could be learnt from that; and it trains for
fewer epochs, so that it still takes minutes. With the old widths and epochs its stages still have the old names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment import paths
from netslim.experiment.pipeline import stages_of
from netslim.launch import config
from netslim.launch.command_line import CONF

EXPECTED: Mapping[str, Mapping[str, list[str]]] = json.loads(Path(__file__).with_name("digests.json").read_text())

MEANT = {"lab4_digits": ["net.layers=[16,16,M,32,32,M,64,64]", "epochs=60", "finetune.epochs=30"]}


def stage_names(overrides: list[str]) -> list[str]:
    """The folders of a job's stages and of the job, without running any."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    job = config.job(cfg, command="")
    names = {stage.kind: stage.name for stage in stages_of(job)}
    folder = paths.job_folder(Path(), names, **{"lambda": job.strength, "ratio": job.ratio, "seed": job.seed})
    return [*names.values(), folder.name]


@pytest.mark.parametrize(
    ("experiment", "overrides"), [(name, words) for name, jobs in EXPECTED.items() for words in jobs]
)
def test_names_of_stages(experiment: str, overrides: str) -> None:
    more = ["data.root=FOLDER"] if experiment == "lab4_small" else []
    names = stage_names([f"experiment={experiment}", *more, *MEANT.get(experiment, []), *overrides.split()])
    assert names == EXPECTED[experiment][overrides]

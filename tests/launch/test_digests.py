"""The names of the stages of the shipped experiments never change: finished sweeps would train again.

Oracle: digests.json, written before the code was rearranged, by the code that made outputs/published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment import paths, pipeline
from netslim.launch import config
from netslim.launch.command_line import CONF

EXPECTED: Mapping[str, Mapping[str, list[str]]] = json.loads(Path(__file__).with_name("digests.json").read_text())


def stage_names(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of a job's stages and of the job, without running any."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    names = []

    def stage(_: Path, kind: str, settings: Mapping[str, Any], __: Any, **labels: float) -> dict[str, Any]:
        names.append(f"{kind}_{paths.label(**labels)}_{paths.digest(settings)}")
        return {"name": names[-1], **labels}

    def record(_: Path, train: Any, slim: Any, tuned: Any, *, command: str) -> None:
        stages = {"train": train["name"], "slim": slim["name"], "finetune": tuned["name"]}
        labels = {key: slim[key] for key in ("lambda_", "ratio", "seed")}
        names.append(paths.job_folder(Path(), stages, **labels).name)

    monkeypatch.setattr(paths, "stage", stage)
    monkeypatch.setattr(pipeline, "record", record)
    pipeline.run(Path(), **config.arguments(cfg), command="")
    return names


@pytest.mark.parametrize(
    ("experiment", "overrides"), [(name, words) for name, jobs in EXPECTED.items() for words in jobs]
)
def test_names_of_stages(experiment: str, overrides: str, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["data.root=FOLDER"] if experiment == "lab4_small" else []
    names = stage_names([f"experiment={experiment}", *more, *overrides.split()], monkeypatch)
    assert names == EXPECTED[experiment][overrides]

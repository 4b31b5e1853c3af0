"""lambda=auto through the command. Oracle: the γ in the records, counted by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from netslim.experiment import paths, pipeline
from netslim.experiment.job import Job
from netslim.experiment.measurements import AUTO
from netslim.experiment.sweep_record import SweepRecord
from netslim.launch import config
from netslim.launch.command_line import CONF
from netslim.report.unfinished import unfinished
from tests.launch.test_shipped_doors import run


def job(*words: str) -> Job:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["net=vgg_digits", "data=digits", "lambda=auto", *words], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return config.job(cfg, command="")


def test_a_training_that_finds_its_lambda_is_of_one_ratio():
    names = [stage.name for ratio in ("0.5", "0.9") for stage in pipeline.stages_of(job(f"ratio={ratio}"))[:1]]
    assert [name.rpartition("_")[0] for name in names] == [
        "train_lambda=auto_ratio=0.5_seed=0",
        "train_lambda=auto_ratio=0.9_seed=0",
    ]
    assert names[0][-8:] != names[1][-8:]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ratio=0.0"], "lambda=auto brings a share of the γ to 0, and the ratio is 0.0; give 0 < ratio < 1"),
        (["target_macs=0.5"], "lambda=auto brings γ to 0 for a ratio, and there is target_macs; give a ratio"),
        (["ratio=0.5", "schedule=gradual"], "lambda=auto finds λ for one cut after the training; with Gradual give λ"),
        (["ratio=0.5", "epochs=1"], "epochs=1: lambda=auto follows γ from epoch to epoch; give 2 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(words, line):
    with pytest.raises(ValueError, match=line):
        pipeline.check(job(*words))


@pytest.mark.slow
def test_the_share_is_at_zero_in_the_record_and_slimming_removes_it(tmp_path: Path):
    run(tmp_path, "lambda=auto", "ratio=0.5", "epochs=4")
    (found,) = paths.load_jobs(tmp_path / "s")
    assert found.strength == found.train.strength == AUTO
    assert found.train.budget is None
    gammas = [abs(gamma) for layer in found.train.scales.values() for gamma in layer]
    assert sum(gamma == 0 for gamma in gammas) == 112 == found.slim.removed
    assert found.slim.threshold == 0
    assert found.train.epochs[-1]["dead_share"] == pytest.approx(0.5, abs=0.02)
    (folder,) = (tmp_path / "s").glob("job_lambda=auto_ratio=0.5_seed=0_*")
    assert json.loads((folder / "record.json").read_text())["lambda"] == "auto"
    report = tmp_path / "s" / "report"
    assert "λ = auto" in (report / "report.md").read_text()
    (row,) = csv.DictReader((report / "results.csv").read_text().splitlines())
    assert row["lambda"] == "auto"
    asked = [["lambda=auto", "ratio=0.5"], ["lambda=auto", "ratio=0.7"]]
    sweep = SweepRecord(command="netslim -m", jobs=asked)
    assert unfinished(sweep, [found]) == ["netslim lambda=auto ratio=0.7"]

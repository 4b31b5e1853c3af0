"""A setting that no job of a command uses is refused. Oracle: what each job does, written beside it."""

from __future__ import annotations

import copy

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from netslim.experiment.job import Job
from netslim.launch import config, unused
from netslim.launch.command_line import CONF


def made(*words: str) -> tuple[DictConfig, Job]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", ["epochs=4", *words], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    settings = copy.deepcopy(cfg)
    with open_dict(settings):
        del settings["hydra"]
    return cfg, config.job(settings, command="")


def check(*commands: tuple[str, ...]) -> None:
    configs, jobs = zip(*(made(*words) for words in commands), strict=True)
    unused.check(configs, jobs)


IGNORED = {
    ("finetune.lr=0.5", "finetune.epochs=0"): "finetune.lr=0.5 has no effect: there is no fine-tuning; give",
    ("finetune.lr=0.5", "schedule=gradual"): "finetune.lr=0.5 has no effect: there is no fine-tuning; give",
    ("finetune.scheduler=cosine", "schedule=gradual"): "finetune.scheduler=cosine has no effect: there is no fine-",
    ("finetune.temperature=2",): "finetune.temperature=2 has no effect: no network teaches; give finetune.distill",
    ("slimming.recalibration_batches=5", "schedule=gradual"): "slimming.recalibration_batches=5 has no effect: the sch",
}
USED = [
    ("finetune.lr=0.5",),
    ("finetune.lr=0.5", "schedule=gradual", "finetune.epochs=1"),
    ("finetune.lr=0.5", "finetune.epochs=0", "schedule=passes", "controls=[random]"),  # which is fine-tuned
    ("finetune.scheduler=cosine", "finetune.distill=0.5", "finetune.temperature=2"),
    ("slimming.recalibration_batches=5", "schedule=passes"),
    ("experiment=lab4_digits", "schedule=gradual"),  # what an experiment sets is for all of its jobs
]


@pytest.mark.parametrize("words", IGNORED, ids=" ".join)
def test_what_has_no_effect_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="has no effect") as caught:
        check(words)
    assert IGNORED[words] in str(caught.value)


@pytest.mark.parametrize("words", USED, ids=" ".join)
def test_what_is_used_is_not(words: tuple[str, ...]) -> None:
    check(words)


def test_one_job_of_a_sweep_that_uses_it_is_enough() -> None:
    both = "finetune.temperature=2", "finetune.lr=0.5"
    check(("finetune.distill=0", *both), ("finetune.distill=0.7", *both))
    check(("schedule=gradual", "finetune.lr=0.5"), ("schedule=one_shot", "finetune.lr=0.5"))
    with pytest.raises(ValueError, match=r"finetune\.temperature=2 has no effect"):
        check(("ratio=0.5", *both), ("ratio=0.9", *both))

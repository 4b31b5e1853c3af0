"""Settings that a command gives and none of its jobs uses: they would be ignored, so they are refused."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from netslim.experiment.job import Job
from netslim.experiment.pipeline import stages_of

TUNING = ("finetune.lr", "finetune.scheduler", "finetune.temperature")


def check(configs: Sequence[DictConfig], jobs: Sequence[Job]) -> None:
    """Refuse them; of a sweep it is enough that one job uses a setting.

    Raises:
        ValueError: it names the setting, why it has no effect, and the remedy.
    """
    ignored = [_given(config, unused(job)) for config, job in zip(configs, jobs, strict=True)]
    for key, why in ignored[0].items():
        if all(key in each for each in ignored):
            raise ValueError(f"{key}={OmegaConf.select(configs[0], key)} has no effect: {why}")


def unused(job: Job) -> dict[str, str]:
    """The settings that a job has no use for: why, and what to do."""
    found = {}
    if job.shrinks:
        found["slimming.recalibration_batches"] = "the schedule cuts inside the training, which goes on; leave it out"
    if job.distillation is None:
        found["finetune.temperature"] = "no network teaches; give finetune.distill too, or leave it out"
    if not any("lr" in stage.settings for stage in stages_of(job)):  # of the recipe of fine-tuning
        found |= dict.fromkeys(TUNING, "there is no fine-tuning; give finetune.epochs, or leave it out")
    return found


def _given(config: DictConfig, settings: dict[str, str]) -> dict[str, str]:
    """Those of the settings that stand in the command."""
    words = [word.lstrip("+") for word in config.hydra.overrides.task]
    return {key: why for key, why in settings.items() if any(word.startswith((f"{key}=", f"{key}.")) for word in words)}

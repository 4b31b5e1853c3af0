"""One job, as numbers and as factories of objects: all that determines its stages, made by ``launch/config.py``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from netslim.experiment.measurements import AUTO, as_written
from netslim.method.schedules import OneShot, Schedule, check_schedule

if TYPE_CHECKING:
    from lightning import Callback, LightningModule, Trainer
    from lightning.pytorch.loggers import Logger
    from torch import nn

    from netslim.experiment.stage import Stage
    from netslim.method.penalties import Penalty
    from netslim.method.scores import Score
    from netslim.training.distillation import Distillation
    from netslim.training.slimming import Slimming

Settings = Mapping[str, Any]
SOME = 0.5  # a share to ask a schedule about where a target says how much is removed
Amount = Mapping[str, float]  # {"ratio": 0.5}, {"target_macs": 0.5}


@dataclass(frozen=True)
class Job:
    """One λ, one ratio, one seed.

    Args:
        strength: λ of equation 1; ``AUTO`` where the training finds it.
        ratio: share of the prunable channels to remove, 0 ≤ ratio < 1; None where there is a target.
        seed: of initialisation, order, augmentation and dropout.
        epochs, finetune_epochs: lengths of the trainings; ``finetune_epochs=0`` leaves fine-tuning out.
        network, data: make the dense network from ``num_classes`` and the data module from ``seed``.
        network_name: what the report calls the network.
        task: makes the task (training/task.py) from a network, and from those of optimizer, scheduler, strength and
            penalty that it takes.
        optimizer, finetune_optimizer, scheduler: of the trainings, each from what PyTorch's take.
        finetune_scheduler: of fine-tuning; None: the same.
        distillation: makes what fine-tuning learns from besides the labels, from the dense network; None: nothing.
        trainer: makes a Trainer from ``max_epochs, callbacks, logger, ...``.
        slimming: makes the Slimming callback from ``ratio``.
        settings: plain data under the keys "train", "slim", "finetune": all that determines each stage beside λ, ratio
            and seed. A stage with other settings is another stage.
        places: the settings that say where files are, by dotted name, and the paths that they mean.
        command: repeats just this job; it is recorded.
        weights: the file of a trained network's weights, from which the training starts; None: new ones.
        target: instead of a ratio, what may be left: {"target_macs": 0.5} or {"target_params": 0.5}, as for
            ``select_channels``.
        penalty, score: what λ is the strength of, and what ranks the channels; None: Σ|γ| and |γ|.
        schedule: how much is removed when.
        method: what the command calls this combination of score, schedule and slimming; "" where it has no name.
        callbacks, loggers: made anew for each training; a logger from the stage's folder.
        checkpoint: when checkpoints are written and by whom: ``every_epochs``, ``every_seconds``, ``threaded``.
        plans: of the job, and of the sweep that it is part of (experiment/plan.py); for the time that is left.
        scan: whether the ratios are scanned before the cut (measure/scan.py).
        export: formats in which the small network is written at the end (measure/export.py).
        controls, stages: make further stages from the job and the stages before them.
    """

    strength: float
    ratio: float | None
    seed: int
    epochs: int
    finetune_epochs: int
    network: Callable[..., nn.Module]
    network_name: str
    data: Callable[..., Any]
    task: Callable[..., LightningModule]
    optimizer: Callable[..., Any]
    finetune_optimizer: Callable[..., Any]
    scheduler: Callable[..., Any]
    trainer: Callable[..., Trainer]
    slimming: Callable[..., Slimming]
    settings: Mapping[str, Settings]
    command: str
    places: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    target: Mapping[str, float] = field(default_factory=dict)
    finetune_scheduler: Callable[..., Any] | None = None
    distillation: Callable[[nn.Module], Distillation] | None = None
    penalty: Penalty | None = None
    score: Score | None = None
    schedule: Schedule = OneShot()  # noqa: RUF009 (it has no state)
    method: str = ""
    callbacks: tuple[Callable[[], Callback], ...] = ()
    loggers: tuple[Callable[..., Logger], ...] = ()
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    scan: bool = False
    export: tuple[str, ...] = ()
    controls: tuple[Callable[[Job, tuple[Stage, ...]], Stage], ...] = ()
    stages: tuple[Callable[[Job, tuple[Stage, ...]], Stage], ...] = ()
    plans: tuple[Mapping[str, int], ...] = ()

    @property
    def auto(self) -> bool:
        """Whether the training finds λ."""
        return self.strength == AUTO

    @property
    def shrinks(self) -> bool:
        """Whether the network gets smaller inside its training, with no slim stage after it."""
        return not self.schedule.rounds(SOME if self.ratio is None else self.ratio)

    def asked(self) -> Settings:
        """All that must be the same in the processes of a data-parallel job, as the command calls it."""
        own = {k: v for k, v in self.settings["finetune"].items() if v != self.settings["train"].get(k, ...)}
        finetune = {**own, "epochs": self.finetune_epochs}
        numbers = {"lambda": as_written(self.strength), **self.amount, "seed": self.seed, "epochs": self.epochs}
        return {**self.settings["slim"], **self.settings["train"], "finetune": finetune, **numbers}

    @property
    def amount(self) -> Amount:
        """How much is removed, as ``select_channels`` is asked for it."""
        return self.target or {"ratio": self.ratio}  # type: ignore[dict-item]

    def rounds(self) -> list[Amount]:
        """The amount that is gone after each round of slimming and fine-tuning.

        Raises:
            ValueError: the schedule cannot be.
        """
        if self.ratio is not None:
            check_schedule(self.schedule, self.ratio, self.epochs)
            return [{"ratio": share} for share in self.schedule.rounds(self.ratio)]
        if self.shrinks:
            check_schedule(self.schedule, SOME, self.epochs)
            return []
        if not isinstance(self.schedule, OneShot):
            raise ValueError(
                f"{', '.join(self.target)} is met in one cut, and the rounds of {type(self.schedule).__name__} remove "
                "shares of the channels; give a ratio with it, or choose schedule=gradual"
            )
        return [self.target]

    def of(self, **more: Any) -> Job:
        """The job with something added to the settings of both trainings."""
        trainings = {kind: {**self.settings[kind], **more} for kind in ("train", "finetune")}
        return replace(self, settings={**self.settings, **trainings}) if more else self

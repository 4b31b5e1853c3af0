"""The network gets smaller while it trains: channels are removed at epoch ends, a few at a time.

    Trainer(max_epochs=60, callbacks=[Sparsity(1e-4), GradualSlimming(ratio=0.9)]).fit(module, data)

One threshold at the end of a training removes channels that still count, and all at once. Here the share that has been
removed follows a ramp over a part of the training; each cut is a real one, so epochs become cheaper, and the training
goes on with the momentum of what is kept.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn
from torch.optim import Optimizer

from netslim.engine import Selection, select_channels, slim_in_place
from netslim.engine.checks import check_coupling
from netslim.engine.cut import optimizer_state
from netslim.engine.cut.in_place import follow_in_place, plan_data
from netslim.method.gradual import Gradual
from netslim.method.ramp import jaccard
from netslim.method.schedules import Schedule, check_inside, most_per_cut, stable_from
from netslim.method.scores import Score
from netslim.method.threshold import Floor, least
from netslim.modules import bn_layers
from netslim.training.attempts import reason_of_small
from netslim.training.averages import averages_of
from netslim.training.checkpoint import check_state
from netslim.training.goal import Goal, Kept
from netslim.training.measuring import FitBench
from netslim.training.slim_module import cut, example_for
from netslim.training.sparsity import terms


class GradualSlimming(Callback):
    """Remove channels during the fit; at its end the module has the small network.

    Modules and parameters stay the same objects, so optimisers, schedules and the module's own references go on as they
    are; momentum, moments and averages of the weights (averages.py) are cut along. When the ramp has ended, the penalty
    (``Sparsity``, SlimmingTask) is off. A checkpoint knows what was cut: ``fit(..., ckpt_path=...)`` with the dense
    module goes on from any epoch. Widths are logged as ``width/<layer>``.

    Args:
        ratio: share of the prunable channels of the dense network to remove, 0 < ratio < 1.
        target_macs, target_params: instead of ratio, what may be left, as for ``select_channels``. The ramp is one of
            the multiply-adds or parameters then.
        start, end: the ramp, as shares of ``max_epochs``; default 0.05 to 0.5.
        schedule: in place of start, end, most and stable: its own (method/schedules.py).
        floor: channels that each layer keeps at least: a number, a share of its dense width (default 0.05), or layer
            name -> number.
        most: the largest share of a layer that one cut may remove, default 0.5 (the paper's multi-pass rule); what a
            cut leaves over, the next one removes.
        network: attribute path of the network inside the module; default "" is the module itself.
        example_input: one input batch; default the module's ``example_input_array``, else the first sample of the first
            training batch.
        coupling, score: as for ``select_channels``; the score must need no data.
        stable: end the ramp early, once what its end would keep is stable (``Gradual``), such as 0.999; default None,
            never.

    Where the training ends before the ramp does (early stopping, ``max_steps``), a warning says so.

    Raises:
        ValueError: when the fit starts, what cannot be done: steps of the module that do not run on a smaller network
            are found on one batch; after the first step, an optimiser whose state cannot be cut.

    >>> GradualSlimming(ratio=0.9, start=0.6, end=0.5)
    Traceback (most recent call last):
    ValueError: the ramp runs from 0.6 to 0.5 of the epochs; give 0 ≤ start < end ≤ 1, such as 0.05 and 0.5
    """

    def __init__(
        self,
        ratio: float | None = None,
        *,
        target_macs: float | None = None,
        target_params: float | None = None,
        start: float = 0.05,
        end: float = 0.5,
        floor: Floor = 0.05,
        most: float = 0.5,
        schedule: Schedule | None = None,
        network: str = "",
        example_input: Any = None,
        coupling: Literal["keep", "group", "scatter"] = "keep",
        score: Score | None = None,
        stable: float | None = None,
    ) -> None:
        if schedule is not None and not callable(getattr(schedule, "during", None)):
            raise ValueError(f"schedule={schedule!r} does not say what is removed when; give one such as Gradual()")
        check_coupling(coupling)
        self._amount = {"ratio": ratio, "target_macs": target_macs, "target_params": target_params}
        self.goal, self.schedule = Goal(**self._amount), schedule or Gradual(start, end, most, stable)
        self.most, self.stable = most_per_cut(self.schedule), stable_from(self.schedule)
        self.floor, self.network, self.example_input = floor, network, example_input
        self.options: dict[str, Any] = {"coupling": coupling, "score": score}
        self._settled = False
        self._ends: list[Kept] = []  # what the end of the ramp would have kept, of the last epochs
        self._least: dict[str, int] = {}  # channels that each layer keeps
        self._plan: dict[str, Any] | None = None  # what has been cut
        self._example: Any = None
        self._penalised = True  # until the ramp has ended
        self._unchecked: list[Optimizer] = []  # their states are not known yet

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """A checkpoint's weights fit a network that was cut as the checkpoint's: the module's own hook is the last one
        before they are loaded."""
        load = pl_module.on_load_checkpoint

        def cut_and_load(checkpoint: dict[str, Any]) -> None:
            saved = checkpoint.get("callbacks", {}).get(self.state_key, {})
            for each in [*averages_of(trainer, pl_module, self.network), pl_module.get_submodule(self.network)]:
                follow_in_place(each, saved.get("plan"))
            load(checkpoint)

        pl_module.on_load_checkpoint = cut_and_load  # type: ignore[method-assign]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        vars(pl_module).pop("on_load_checkpoint", None)
        if self.network not in dict(pl_module.named_modules()):
            kind = type(pl_module).__name__
            raise ValueError(f"network={self.network!r} is no part of {kind}: give its attribute path")
        if pl_module._compiler_ctx and not self.network:
            raise ValueError("the module is compiled: name the part of it that gets smaller, such as network='net'")
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            name = type(trainer.strategy).__name__
            raise ValueError(f"GradualSlimming cannot cut under {name}; train on one device or with strategy='ddp'")
        if (trainer.max_epochs or 0) < 2 and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise ValueError(f"max_epochs={trainer.max_epochs}: a network that shrinks at epoch ends needs at least 2")
        if trainer.ckpt_path is None:
            self.goal, self._settled, self._ends = Goal(**self._amount), False, []
            self._least, self._plan = {}, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.get_submodule(self.network)
        averages_of(trainer, pl_module, self.network)  # refuses, where they would be part of the network
        self._penalised, self._unchecked = True, list(trainer.optimizers)
        _check(trainer.optimizers, network)
        bench = FitBench(trainer, "val")
        with isolate_rng():  # a look at the data must not change the training
            batch = partial(bench.training_batch, pl_module)
            self._example = example_for(pl_module, self.network, self.example_input, batch)
            if not self._least:  # else the training is resumed
                self._begin(trainer, network)
                self._try_steps(bench, pl_module)

    def _begin(self, trainer: Trainer, network: nn.Module) -> None:
        self._least = {name: max(1, number) for name, number in least(_widths(network), self.floor).items()}
        self._plan = plan_data(network)
        self.goal.begin(network, self._example, {"floor": self._least, **self.options})
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            of_channels = self.goal.target is None
            check_inside(self.schedule, self.goal.share, trainer.max_epochs or 0, of_channels=of_channels)

    def _try_steps(self, bench: FitBench, dense: LightningModule) -> None:
        """Find now, and not after the first cut, a step that needs the widths of the dense network."""
        limits: dict[str, Any] = {"floor": self._least, **self.options}
        small = cut(dense, self.network, self._example, **self._amount, **limits)[0]
        training = {"training_step": bench.try_training_step} if dense.automatic_optimization else {}
        validation = {"validation_step": bench.try_step} if bench.trainer.enable_validation else {}
        for step, attempt in {**training, **validation}.items():
            if why := reason_of_small(attempt, small, dense):
                raise ValueError(
                    f"{step} runs on the module and not with a smaller network in it ({why}): forward leaves out a "
                    "layer that the step uses; run it in forward, or name the part that is to be slimmed with "
                    "network='...'"
                )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Not when the epoch starts: a training that is resumed within it is past that."""
        if self._penalised and self._ramp_is_over(trainer):
            self._penalised = False
            for term in terms(trainer, pl_module):
                term.release()

    def _ramp_is_over(self, trainer: Trainer) -> bool:
        before = trainer.current_epoch - 1
        return before >= 0 and self._gone(trainer, before) > self.goal.share - 1e-12

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if stepped := [optimizer for optimizer in self._unchecked if optimizer.state]:
            _check(stepped, pl_module.get_submodule(self.network))
            self._unchecked = [optimizer for optimizer in self._unchecked if not optimizer.state]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.get_submodule(self.network)
        if self.stable is not None and not self._settled:
            self._compare(trainer, network, self.stable)
        asked = self.goal.asked(network, self._example, self._gone(trainer, trainer.current_epoch), self.options)
        if keep := self._selected(network, asked):
            self._cut(trainer, pl_module, keep)
        widths = {f"width/{name}": float(width) for name, width in _widths(network).items()}
        pl_module.log_dict(widths, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = pl_module.get_submodule(self.network)
        if self._selected(network, self.goal.asked(network, self._example, self.goal.share, self.options)):
            rank_zero_warn(
                f"GradualSlimming: the training ended in epoch {trainer.current_epoch} of {trainer.max_epochs}, before "
                f"all that was asked for was removed; the layers have {sum(_widths(network).values())} channels"
            )

    def _gone(self, trainer: Trainer, epoch: int) -> float:
        """The share of the dense network's channels, or of what they cost, that is gone at the end of an epoch."""
        share = self.goal.share
        return share if self._settled else self.schedule.during(share, epoch, trainer.max_epochs or 1)

    def _compare(self, trainer: Trainer, network: nn.Module, stable: float) -> None:
        """Has the ramp begun, and is what it leads to what it led to three epochs before?"""
        limits: dict[str, Any] = {"floor": self._least, "strict": False}
        self._ends = [*self._ends[-3:], self.goal.end(network, self._example, self.options, limits)]
        begun = 0 < self._gone(trainer, trainer.current_epoch) < self.goal.share
        if begun and len(self._ends) == 4 and jaccard(self._ends[0], self._ends[-1]) > stable:
            self._settled = True
            rank_zero_info("GradualSlimming: the kept set is stable in epoch %d; the ramp ends", trainer.current_epoch)

    def _selected(self, network: nn.Module, asked: dict[str, Any] | None) -> Selection | None:
        """What is asked for, or as much of it as the floors and ``most`` allow; None where nothing can be removed."""
        if not asked:
            return None
        limits: dict[str, Any] = {"floor": self._least, "most": self.most, "strict": False}
        keep = select_channels(network, example_input=self._example, **asked, **limits, **self.options)
        return keep if keep.removed > keep.carried else None

    def _cut(self, trainer: Trainer, module: LightningModule, keep: Selection) -> None:
        network, averages = module.get_submodule(self.network), averages_of(trainer, module, self.network)
        with _unwrapped(trainer):
            slim_in_place(network, keep, self._example, optimizers=trainer.optimizers, copies=averages)
        for term in terms(trainer, module):
            term.follow()
        self.goal.removed += keep.removed - keep.carried
        self._plan = plan_data(network)

    def state_dict(self) -> dict[str, Any]:
        ramp = {"settled": self._settled, "ends": self._ends}
        return {"plan": self._plan, "least": self._least, "goal": self.goal.state(), **ramp}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        check_state(self, state_dict)
        self._least, self._plan = state_dict["least"], state_dict["plan"]
        self._settled, self._ends = state_dict["settled"], state_dict["ends"]
        vars(self.goal).update(state_dict["goal"])


@contextmanager
def _unwrapped(trainer: Trainer) -> Iterator[None]:
    """Inside, the module is without the wrapper of DDP, which knows the shapes of gradients; then it gets a new one."""
    strategy = trainer.strategy
    if isinstance(strategy, DDPStrategy):
        strategy.model = trainer.lightning_module
        gc.collect()  # the nodes that add up gradients go with the wrapper
    yield
    if isinstance(strategy, DDPStrategy):
        strategy.model = strategy._setup_model(trainer.lightning_module)
        strategy._register_ddp_hooks()


def _check(optimizers: Iterable[Optimizer], network: nn.Module) -> None:
    for optimizer in optimizers:
        optimizer_state.check_state(optimizer, set(network.parameters()))


def _widths(network: nn.Module) -> dict[str, int]:
    return {name: len(layer.weight) for name, layer in bn_layers(network).items()}

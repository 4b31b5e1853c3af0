"""The method as Lightning callbacks, for the pipeline and for a LightningModule of one's own.

    Trainer(callbacks=[Sparsity(1e-4), GammaHistogram(), Slimming(ratio=0.5)])

Sparsity trains with the penalty (SlimmingTask has it built in), GammaHistogram shows what it does, Slimming takes the
threshold at the end of the fit and makes the smaller network.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, Literal

import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netslim.engine import select_channels, slim
from netslim.engine.checks import check_coupling
from netslim.engine.cut.clone import clone
from netslim.measure.cost import count
from netslim.method.recovery import reestimated_statistics
from netslim.method.threshold import is_number
from netslim.modules import bn_layers
from netslim.training.loaders import given_to, loaders_in


class Slimming(Callback):
    """At the end of fit: one threshold over all |γ|, the channels under it removed, a smaller module (section 3).

    Works on any LightningModule whose ``forward`` runs the network on one batch of inputs. Afterwards ``slimmed`` holds
    a copy of the module with the smaller network, BatchNorm statistics re-estimated, ready for ``Trainer.fit`` (the
    paper's fine-tuning), and ``result`` holds what was measured:

        {"threshold": largest |γ| removed, "removed": k, "prunable": N,
         "layers": [{"name", "channels", "kept"}, ...], "uncounted": {op: times},
         "dense": {"params", "macs", "metrics"}, "slim": {...}, "recalibrated": {"metrics"}}

    where ``metrics`` is what the module's own validation (or test) step logs. The slim network computes what the dense
    one with γ = β = 0 on the removed channels computes, so its accuracy is that of the masked network.

    Args:
        ratio: share of the prunable channels to remove, 0 ≤ ratio < 1.
        network: attribute path of the network inside the module; default "" is the module itself.
        split: which loop measures, "val" (default) or "test".
        example_input: one input batch; default the module's ``example_input_array``, else the first validation/test
            batch's first element.
        recalibration_batches: how many training batches re-estimate the statistics, default 100.
        floor, coupling, round_to: as for ``select_channels``.
    """

    def __init__(
        self,
        ratio: float,
        *,
        network: str = "",
        split: Literal["val", "test"] = "val",
        example_input: Tensor | None = None,
        recalibration_batches: int = 100,
        floor: int = 1,
        coupling: Literal["keep", "group", "scatter"] = "keep",
        round_to: int = 1,
    ) -> None:
        if not (is_number(ratio) and 0 <= ratio < 1):
            raise ValueError(f"prune ratio {ratio} is outside 0 ≤ ratio < 1; for 50 % give 0.5")
        if split not in ("val", "test"):
            raise ValueError(f"split is {split!r}; choose 'val' or 'test'")
        if not isinstance(recalibration_batches, int) or recalibration_batches < 1:
            raise ValueError(f"recalibration_batches is {recalibration_batches}; it must be at least 1")
        check_coupling(coupling)
        self.ratio, self.network, self.split = ratio, network, split
        self.example_input, self.recalibration_batches = example_input, recalibration_batches
        self.floor, self.coupling, self.round_to = floor, coupling, round_to
        self.slimmed: LightningModule | None = None
        self.result: dict[str, Any] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.split == "val" and not trainer.enable_validation:
            raise ValueError(
                "Slimming measures with the validation loop, and there is none; add one, or give fit a "
                "LightningDataModule with test_dataloader and set split='test'"
            )
        if self.split == "test" and getattr(trainer, "datamodule", None) is None:
            raise ValueError("split='test' needs test_dataloader: give fit a LightningDataModule that has one")
        if self.network not in dict(pl_module.named_modules()):
            raise ValueError(
                f"network={self.network!r} is no part of {type(pl_module).__name__}: give its attribute path"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find now, and not after the training, that the network cannot be slimmed as asked."""
        with torch.random.fork_rng(devices=[]):  # a look at the data must not change the training
            example = self._example(pl_module, given_to(trainer))
        try:
            self.check(pl_module.get_submodule(self.network), example)
        except ValueError as error:
            if self.example_input is None and "does not run" in str(error):
                raise ValueError(f"{error}; give Slimming what it takes as example_input") from error
            raise

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = given_to(trainer)
        # Each process measures on its own device; a second process group inside a running one would hang.
        evaluator = Trainer(
            accelerator=trainer.strategy.root_device.type,
            devices=1 if trainer.strategy.root_device.index is None else [trainer.strategy.root_device.index],
            precision=trainer.precision,
            plugins=[LightningEnvironment()],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        self.run(pl_module, data, evaluator)

    def check(self, dense: nn.Module, example: Tensor) -> None:
        """Raise now what ``run`` would raise after the training: a ratio that the network cannot reach (ValueError)."""
        select_channels(dense, self.ratio, example, floor=self.floor, coupling=self.coupling, round_to=self.round_to)

    def run(self, module: LightningModule, data: LightningDataModule, evaluator: Trainer) -> LightningModule:
        """What ``on_fit_end`` does, without a fit: ``module`` is trained, ``evaluator`` measures. Gives ``slimmed``."""
        module, data = clone(module, {}), copy.copy(data)  # the caller's keep their trainer
        dense = module.get_submodule(self.network)
        dense_metrics = self._measure(module, data, evaluator)
        example = self._example(module, data)
        with torch.no_grad():
            keep = select_channels(
                dense, self.ratio, example, floor=self.floor, coupling=self.coupling, round_to=self.round_to
            )
            small = slim(dense, keep, example_input=example)
        small_module = self._replace(module, small)
        before, after = count(dense, example_input=example), count(small, example_input=example)
        self.result = {
            **_selection_summary(dense, keep),
            "uncounted": before.uncounted,
            "dense": {"params": before.params, "macs": before.macs, "metrics": dense_metrics},
            "slim": {
                "params": after.params,
                "macs": after.macs,
                "metrics": self._measure(small_module, data, evaluator),
            },
        }
        self._recalibrate(small_module, data, evaluator)
        self.result["recalibrated"] = {"metrics": self._measure(small_module, data, evaluator)}
        self.slimmed = small_module
        return small_module

    def _replace(self, module: LightningModule, small: nn.Module) -> LightningModule:
        if not self.network:
            assert isinstance(small, LightningModule)
            return small
        module = clone(module, {})
        module.set_submodule(self.network, small)
        return module

    def _measure(self, module: LightningModule, data: LightningDataModule, evaluator: Trainer) -> dict[str, float]:
        run = evaluator.validate if self.split == "val" else evaluator.test
        run(module, datamodule=data, verbose=False)
        return {name: float(value) for name, value in evaluator.callback_metrics.items()}

    def _recalibrate(self, module: LightningModule, data: LightningDataModule, evaluator: Trainer) -> None:
        # The module's own validation loop over training batches, with BatchNorm collecting statistics: inputs reach the
        # network exactly as they do in validation, whatever shape a batch has.
        view, loaders = copy.copy(data), loaders_in(data.train_dataloader())
        share = math.ceil(self.recalibration_batches / len(loaders))
        limit, evaluator.limit_val_batches = evaluator.limit_val_batches, share
        with reestimated_statistics(module), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*sampler has shuffling enabled")  # training batches, on purpose
            for loader in loaders:  # several at a time would come with a number that the step need not take
                view.val_dataloader = lambda loader=loader: loader  # type: ignore[method-assign, misc]
                evaluator.validate(module, datamodule=view, verbose=False)
        evaluator.limit_val_batches = limit

    def _example(self, module: LightningModule, data: LightningDataModule) -> Any:
        example = self.example_input if self.example_input is not None else module.example_input_array
        if example is None:
            loaders = loaders_in(data.val_dataloader() if self.split == "val" else data.test_dataloader())
            batch = next(iter(loaders[0]))
            batch = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, module.device, 0), 0)
            example = batch[0] if isinstance(batch, (tuple, list)) else batch
            example = example[:1] if isinstance(example, Tensor) else example  # MACs are those of one image
        weight = next(module.get_submodule(self.network).parameters())

        def fit(tensor: Tensor) -> Tensor:  # the trainer's precision may have changed the network
            return tensor.to(weight.device, weight.dtype if tensor.is_floating_point() else tensor.dtype)

        return tree_map_only(Tensor, fit, example)


def _selection_summary(dense: nn.Module, keep: dict[str, Tensor]) -> dict[str, Any]:
    layers = bn_layers(dense)
    removed = torch.cat([layers[name].weight.detach().abs().cpu()[~stays.cpu()] for name, stays in keep.items()])
    return {
        "threshold": removed.max().item() if len(removed) else 0.0,
        "removed": len(removed),
        "prunable": sum(len(stays) for stays in keep.values()),
        "layers": [{"name": name, "channels": len(stays), "kept": int(stays.sum())} for name, stays in keep.items()],
    }

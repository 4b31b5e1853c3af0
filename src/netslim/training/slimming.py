"""Slimming at the end of a fit, as a Lightning callback.

    Trainer(callbacks=[Sparsity(1e-4), GammaHistogram(), Slimming(ratio=0.5)])

Sparsity trains with the penalty (SlimmingTask has it built in), GammaHistogram shows what it does, Slimming takes the
threshold at the end of the fit and makes the smaller network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from netslim.engine import LatencyModel
from netslim.engine.checks import check_coupling
from netslim.engine.decide.choose import target_of
from netslim.method.scores import Score, Scores
from netslim.method.threshold import Floor, check_most, is_number
from netslim.modules import bn_layers
from netslim.training.attempts import reason, reason_of_small
from netslim.training.measuring import FitBench, Split, layers_run
from netslim.training.module_copy import keep_network_in_setup
from netslim.training.processes import end_with_fit
from netslim.training.slim_module import Result, callable_on_batches, cut, example_for, reconstructed, rescaled


class Slimming(Callback):
    """At the end of fit: one threshold over all |γ|, the channels under it removed, a smaller module (section 3).

    Works on any LightningModule whose ``forward`` runs the network on one batch of inputs. Afterwards ``slimmed`` holds
    a copy of the module with the smaller network, BatchNorm statistics re-estimated, ready for ``Trainer.fit`` (the
    paper's fine-tuning), and ``result`` holds what was measured:

        {"threshold": largest |γ| (or other score) removed, "unit": "|γ|", "removed": k, "prunable": N,
         "layers": [{"name", "channels", "kept"}, ...], "uncounted": {op: times},
         "dense": {"params", "macs", "metrics"}, "slim": {...}, "recalibrated": {"metrics"},
         "reconstructed", "rescaled": {"metrics", what was done}, "predicted": {"dense", "slim"}, if they are asked for,
         "errors": {what failed at the end: why}}

    where ``metrics`` is what the module's own validation (or test) step logs in the fit's trainer, under its limits,
    precision and device; its callbacks rest and its loggers write nothing meanwhile. The slim network computes what the
    dense one with γ = β = 0 on the removed channels computes, so its accuracy is that of the masked network.

    The weights are those after the last step and all callbacks (averaged ones, where a callback puts them into the
    module), not those of the best checkpoint. The module that was fitted is not touched. Locks, files, connections and
    data sets in it are shared with the copy.

    All this is tried on one batch before the training, which is where mistakes are refused (ValueError). After the
    training nothing is: ``slimmed`` is there before anything is measured, and what fails is a warning and an entry in
    ``result["errors"]``.

    Args:
        ratio: share of the prunable channels to remove, 0 ≤ ratio < 1; or instead of it
        target_macs, target_params, target_latency, latency: as for ``select_channels`` (of one image, where the example
            input is one).
        network: attribute path of the network inside the module; default "" is the module itself.
        split: which loop measures, "val" (default) or "test".
        example_input: one input batch; default the module's ``example_input_array``, else the first sample of the first
            validation/test batch.
        recalibration_batches: how many training batches re-estimate the statistics, default 100; 0 leaves them. They
            pass the module's and the data module's hooks as in validation (no augmentation by a hook that asks
            ``trainer.training``).
        reconstruct: fit the layers to the dense network's on so many training images (``netslim.reconstruct``), and
            re-estimate the statistics again; default 0, not at all.
        rescale: whether γ of every layer is brought back to one size (``netslim.rescale``), as the last of all.
        floor, most, coupling, round_to, score: as for ``select_channels``.
    """

    def __init__(
        self,
        ratio: float | None = None,
        *,
        target_macs: float | None = None,
        target_params: float | None = None,
        target_latency: float | None = None,
        latency: LatencyModel | None = None,
        network: str = "",
        split: Split = "val",
        example_input: Any = None,
        recalibration_batches: int = 100,
        reconstruct: int = 0,
        rescale: bool = False,
        floor: Floor = 1,
        most: float = 1.0,
        coupling: Literal["keep", "group", "scatter"] = "keep",
        round_to: int | str = 1,
        score: Score | Scores | None = None,
    ) -> None:
        target_of(ratio, target_macs, target_params, target_latency, latency)
        if ratio is not None and not (is_number(ratio) and 0 <= ratio < 1):
            raise ValueError(f"prune ratio {ratio!r} is outside 0 ≤ ratio < 1; for 50 % give 0.5")
        if split not in ("val", "test"):
            raise ValueError(f"split is {split!r}; choose 'val' or 'test'")
        if not isinstance(recalibration_batches, int) or recalibration_batches < 0:
            raise ValueError(f"recalibration_batches is {recalibration_batches}; it must be at least 1, or 0 for none")
        if not isinstance(reconstruct, int) or isinstance(reconstruct, bool) or reconstruct < 0:
            raise ValueError(f"reconstruct is {reconstruct}; give a number of images, such as 500, or 0 for none")
        if not isinstance(rescale, bool):
            raise ValueError(f"rescale is {rescale}, neither true nor false")
        check_coupling(coupling)
        check_most(most)
        self.ratio, self.network, self.split = ratio, network, split
        self.example_input, self.recalibration_batches = example_input, recalibration_batches
        self.reconstruct, self.rescale = reconstruct, rescale
        targets = {"target_macs": target_macs, "target_params": target_params, "target_latency": target_latency}
        options = {"floor": floor, "coupling": coupling, "round_to": round_to, "most": most, "score": score}
        self.options: dict[str, Any] = {"ratio": ratio, **targets, "latency": latency, **options}
        self.slimmed: LightningModule | None = None
        self.result: Result = {}
        self._there_before_setup: set[nn.Module] = set()
        self._built_in_setup, self._example, self._through = False, None, 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the module's own ``setup`` and ``configure_model``."""
        if end_with_fit(trainer):
            raise ValueError(
                "Slimming: the processes of this strategy end with the fit, and the slim module with them; use "
                "strategy='ddp' (not ddp_spawn, ddp_fork or ddp_notebook), or one device with strategy='auto'"
            )
        self._there_before_setup = set(pl_module.modules())

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.slimmed, self.result, self._example, self._through = None, {}, None, 0
        before, self._there_before_setup = self._there_before_setup, set()
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
        layers = bn_layers(pl_module.get_submodule(self.network)).values()
        self._built_in_setup = any(layer not in before for layer in layers)
        if self.split == "test":
            trainer.datamodule.setup("test")  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find now, and not after the training, what cannot be done at its end."""
        bench = FitBench(trainer, self.split)
        with isolate_rng():  # a look at the data must not change the training
            small = self._try_cut(bench, pl_module)
            if self.recalibration_batches or self.reconstruct:
                self._try_recalibrate(bench, small)
            if self.rescale:
                rescaled(small, self.network, self._example)
            self._try_step(bench, pl_module, small)
            self._try_training_step(bench, pl_module, small)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        errors: dict[str, str] = {}
        self.result = {"errors": errors}
        with isolate_rng():
            for what, work in self._steps(FitBench(trainer, self.split), pl_module):
                try:
                    work()
                except Exception as error:  # nothing that fails after a training may lose it
                    errors.setdefault(what, f"{type(error).__name__}: {error}")
                if self.slimmed is None:
                    break
        if errors:
            reasons = "; ".join(f"{what}: {reason}" for what, reason in errors.items())
            warnings.warn(f"Slimming failed after the training, which is kept: {reasons}", stacklevel=2)

    def _steps(self, bench: FitBench, module: LightningModule) -> Iterator[tuple[str, Callable[[], None]]]:
        """The slim module first, then what is measured; each under the name of its error."""
        yield "slimmed", lambda: self._cut(bench, module)
        small = self.slimmed
        assert small is not None
        yield "dense", lambda: self._measure("dense", bench, module)
        yield "slim", lambda: self._measure("slim", bench, small)
        through = callable_on_batches(small, self.network)[self._through]
        count, example = self.recalibration_batches, self._example
        if count:
            yield "recalibrated", lambda: bench.recalibrate(small, through, count, example)
        yield "recalibrated", lambda: self._measure("recalibrated", bench, small)
        if self.reconstruct:
            yield "reconstructed", lambda: self._reconstruct(bench, module, small)
            if count:
                yield "reconstructed", lambda: bench.recalibrate(small, through, count, example)
            yield "reconstructed", lambda: self._measure("reconstructed", bench, small)
        if self.rescale:
            yield "rescaled", lambda: self.result.update(rescaled=rescaled(small, self.network, example))
            yield "rescaled", lambda: self._measure("rescaled", bench, small)

    def _cut(self, bench: FitBench, module: LightningModule) -> None:
        example = example_for(module, self.network, self._example, lambda: bench.batch(module))
        small, result = cut(module, self.network, example, **self.options)
        if self._built_in_setup:
            keep_network_in_setup(small)
        self.slimmed, self.result = small, {**result, **self.result}

    def _reconstruct(self, bench: FitBench, dense: LightningModule, small: LightningModule) -> None:
        done = reconstructed(bench, small, dense, self.network, self._through, self.reconstruct, self._example)
        self.result["reconstructed"] = done

    def _measure(self, what: str, bench: FitBench, module: LightningModule) -> None:
        entry = self.result.setdefault(what, {})
        entry["metrics"] = {}
        entry["metrics"] = bench.metrics(module)

    def _try_cut(self, bench: FitBench, module: LightningModule) -> LightningModule:
        try:
            given = self.example_input
            self._example = example_for(module, self.network, given, lambda: bench.batch(module))
            return cut(module, self.network, self._example, **self.options)[0]
        except ValueError as error:
            if self.example_input is None and ("does not run" in str(error) or self._example is None):
                raise ValueError(f"{error}; give Slimming what it takes as example_input") from error
            raise

    def _try_recalibrate(self, bench: FitBench, small: LightningModule) -> None:
        """Find what can be called on a training batch: the module, or else its network."""
        reasons, network = [], small.get_submodule(self.network)
        for number, through in enumerate(callable_on_batches(small, self.network)):
            try:
                bench.try_recalibrate(small, through, network, self._example)
            except Exception as error:
                reasons.append(f"{type(through).__name__}: {error}")
            else:
                self._through = number
                return
        raise ValueError(
            "Slimming cannot re-estimate the BatchNorm statistics, because forward does not run on a training batch "
            f"({'; '.join(reasons)}): let the batches begin with what forward takes, or set recalibration_batches=0"
        )

    def _try_step(self, bench: FitBench, dense: LightningModule, small: LightningModule) -> None:
        step = "validation_step" if self.split == "val" else "test_step"
        with layers_run(dense.get_submodule(self.network)) as dense_ran:
            why = reason(bench.try_step, small)
        if dense_ran:
            raise ValueError(
                f"{step} of the slim module runs the dense network, through a function or an object that refers to it: "
                "refer to the network as an attribute of the module"
            )
        if not why:
            return
        if not reason(bench.try_step, dense):
            raise ValueError(
                f"{step} runs on the module and not on the slim one ({why}): forward leaves out a layer that the "
                "step uses; run it in forward, or name the part that is to be slimmed with network='...'"
            )
        warnings.warn(
            f"Slimming: {step} fails before the training ({why}); if it still does at the end, the slim module "
            "comes without these numbers",
            stacklevel=2,
        )

    def _try_training_step(self, bench: FitBench, dense: LightningModule, small: LightningModule) -> None:
        """Nothing is lost where it fails; but ``slimmed`` is for fine-tuning."""
        why = reason_of_small(bench.try_training_step, small, dense) if dense.automatic_optimization else ""
        if why:
            warnings.warn(
                f"Slimming: the slim module will come, but training_step does not run on it ({why}): forward leaves "
                "out a layer that the step uses, or another network must be as wide; without that it cannot be trained",
                stacklevel=2,
            )

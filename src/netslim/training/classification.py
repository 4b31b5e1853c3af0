"""Step 1 of the method: training with the sparsity penalty, as a LightningModule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from netslim.method.penalties import Penalty
from netslim.method.scales import all_scales
from netslim.training.distillation import Distillation
from netslim.training.scale_decay import with_scale_decay
from netslim.training.scores import Scores
from netslim.training.sparsity import Term
from netslim.training.task import ACCURACY


class SlimmingTask(LightningModule):
    """Image classification with cross-entropy, and a penalty on the BatchNorm scales (equation 1 of the paper).

    Args:
        network: maps images (N, C, H, W) to logits (N, classes).
        optimizer: makes the optimiser from the parameters, e.g. ``partial(torch.optim.SGD, lr=0.1, momentum=0.9)``.
        scheduler: makes the learning-rate schedule from ``(optimizer, epochs=...)``, stepped once per epoch; None keeps
            the rate.
        strength: λ. 0 trains without the penalty: the baseline, and fine-tuning.
        penalty: what λ multiplies, default L1.
        scale_decay: weight decay of the γ, in a parameter group of their own; default None: that of all parameters, as
            in the paper. 0 where the penalty alone is to shrink them.
        label_smoothing: 0 to 1, default 0 as in the paper.
        channels_last: default yes: keep weights and images as (N, H, W, C) in memory, which convolutions run faster on.
            Shapes, names and results stay, up to rounding.
        distillation: what the training learns from besides the labels (training/distillation.py); default nothing.
        compile: arguments of ``torch.compile``, such as ``{"mode": "reduce-overhead"}`` or ``{}``; default None: not
            compiled. The network is compiled in place when the fit starts, so its state_dict keeps its keys.

    Logs per epoch ``loss/{train,val,test}`` (cross-entropy alone), ``accuracy/{train,val,test}`` (0..1) and
    ``penalty/l1`` (Σ|γ|, before λ; another penalty under its class's name).
    """

    metric = ACCURACY

    def __init__(
        self,
        network: nn.Module,
        *,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        scheduler: Callable[..., LRScheduler] | None = None,
        strength: float = 0.0,
        penalty: Penalty | None = None,
        scale_decay: float | None = None,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        distillation: Distillation | None = None,
        compile: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._term = Term(strength, penalty)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be at least 0 and under 1")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.layout)
        self.label_smoothing = label_smoothing
        self._distillation, self._compile = distillation, compile
        if scale_decay is not None:
            optimizer = with_scale_decay(optimizer, scale_decay, all_scales(network))
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self._sums, self._seen = torch.zeros(2), 0  # of this epoch: loss and correct answers; images
        self._scores = Scores()  # of a validation or a test

    @property
    def strength(self) -> float:
        return self._term.strength

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self._as_input(images))

    def _as_input(self, images: Tensor) -> Tensor:
        images = images.to(next(self.network.parameters()).dtype)  # trainer.precision=64-true or bf16-true changed it
        return images.contiguous(memory_format=self.layout)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch  # (N, C, H, W), (N,)
        logits = self(images)  # (N, classes)
        loss, correct = _judged(logits, labels, self.label_smoothing)
        # Added up on the device and logged once: logging every step costs more than the penalty.
        self._sums += torch.stack([loss.detach() * len(correct), correct.sum()])
        self._seen += len(correct)
        return loss if self._distillation is None else self._distillation(self._as_input(images), logits, loss)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(*batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(*batch)

    def _evaluate(self, images: Tensor, labels: Tensor) -> None:
        logits = self(images)
        self._scores.update(*_judged(logits, labels), logits.argmax(dim=1))

    def _evaluated(self) -> dict[str, Tensor]:
        """The scores of the loop that ends, over all processes of the trainer."""
        several = self.trainer.world_size > 1  # rank 0 may evaluate alone while others wait
        self._scores.distributed_available_fn = lambda: several
        scores = self._scores.compute()
        self._scores.reset()
        return scores

    def on_fit_start(self) -> None:
        if self.strength:
            self._term.check(self.trainer, self.network)
        if self._compile is not None:
            self.network.compile(**self._compile)

    def on_train_start(self) -> None:
        self._sums, self._seen = torch.zeros(2, device=self.device), 0
        if self._distillation is not None:
            self._distillation.like(next(self.network.parameters()))
        if self.strength:
            self._term.start(self.trainer, self, self.network).attach(self.trainer.optimizers[0])

    def on_after_backward(self) -> None:
        """Add λ·sign(γ) to the gradients of γ: the L1 term of equation 1, which never shows in the logged loss."""
        if self.strength:
            self._term.after_backward(self.trainer)

    def on_train_end(self) -> None:
        if self.strength:
            self._term.finish(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or trainer.global_step == trainer.max_steps:
            loss, accuracy = self._sums / self._seen
            scores = {"loss/train": loss, "accuracy/train": accuracy}
            self.log_dict(scores, on_step=False, on_epoch=True, sync_dist=True, batch_size=self._seen)
            self._sums, self._seen = torch.zeros_like(self._sums), 0

    def on_validation_epoch_end(self) -> None:
        scores = self._evaluated()
        self.log_dict({"loss/val": scores["loss"], "accuracy/val": scores["accuracy"]}, sync_dist=True)
        if self.trainer.training or self.trainer.validating:
            self._log_over_epochs()

    def on_test_epoch_end(self) -> None:
        scores = self._evaluated()
        self.log_dict({"loss/test": scores["loss"], "accuracy/test": scores["accuracy"]}, sync_dist=True)
        counts = {f"test/{name}": scores[name] for name in ("correct", "total", "predicted")}  # for "1000/10000"
        self.log_dict(counts, sync_dist=True, logger=False)
        if self.trainer.loggers:  # the test that follows a fit, at its last epoch
            self.log("step", float(max(0, self.current_epoch - 1)), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        self._log_over_epochs()
        self._term.log(self, self.network)

    def _log_over_epochs(self) -> None:
        # Lightning takes a metric of this name for the logger's step: curves of all batch sizes lie over each other.
        self.log("step", float(self.current_epoch), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self._make_optimizer(self.parameters())
        if self._make_scheduler is None:
            return optimizer
        epochs = self.trainer.max_epochs
        return {"optimizer": optimizer, "lr_scheduler": self._make_scheduler(optimizer, epochs=epochs)}


def _judged(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """The mean cross-entropy (0-d), and 1.0 for each image that is classified correctly, else 0.0 (N,)."""
    loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return loss, (logits.detach().argmax(dim=1) == labels).float()

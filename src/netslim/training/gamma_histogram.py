"""What the penalty does to γ, in the log."""

from __future__ import annotations

import torch
from lightning import Callback, LightningModule, Trainer

from netslim.method.scales import dead_share
from netslim.modules import bn_layers
from netslim.training.loggers import log_histograms


class GammaHistogram(Callback):
    """Log the distribution of γ after every epoch (figure 4 of the paper).

    Histograms of |γ|, where the logger shows them (TensorBoard, Weights & Biases): ``gamma/all`` over all layers
    together, ``gamma/<layer>`` for each. A number: ``dead_gamma/share``, the share of all γ that are dead, at most 1 %
    of their layer's mean |γ|, to be held against the prune ratio.

    Args:
        every_n_epochs: default 1.

    >>> GammaHistogram(0)
    Traceback (most recent call last):
    ValueError: every_n_epochs is 0; it must be a whole number of at least 1
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"every_n_epochs is {every_n_epochs!r}; it must be a whole number of at least 1")
        self.every_n_epochs = every_n_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        layers = {name: bn.weight.detach().abs() for name, bn in bn_layers(pl_module).items()}
        if not layers or (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        everything = torch.cat(list(layers.values()))
        if not everything.isfinite().all():
            wrong = next(name for name, sizes in layers.items() if not sizes.isfinite().all())
            raise FloatingPointError(
                f"γ of layer {wrong} is not finite after epoch {trainer.current_epoch + 1}: training diverged; "
                "lower the learning rate or λ"
            )
        pl_module.log("dead_gamma/share", dead_share([*layers.values()]), sync_dist=True)
        if trainer.is_global_zero:
            histograms = {f"gamma/{name}": sizes for name, sizes in {"all": everything, **layers}.items()}
            log_histograms(trainer.loggers, histograms, trainer.current_epoch)

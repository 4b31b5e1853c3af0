"""The data that a trainer was given, whatever form it came in."""

from __future__ import annotations

from typing import Any

from lightning import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils._pytree import tree_leaves


def given_to(trainer: Trainer) -> LightningDataModule:
    """What ``fit`` was given, as a data module."""
    given: LightningDataModule | None = getattr(trainer, "datamodule", None)
    if given is not None:
        return given
    if trainer.val_dataloaders is None:  # the first validation is still ahead
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
    return _Loaders(trainer.train_dataloader, trainer.val_dataloaders)


def loaders_in(given: Any) -> list[Any]:
    """Each of the loaders in a list, a dictionary or a CombinedLoader; or the one that was given."""
    return list(given.flattened) if isinstance(given, CombinedLoader) else tree_leaves(given)


class _Loaders(LightningDataModule):
    """Data loaders that were given to ``fit`` directly, as a data module."""

    def __init__(self, train: Any, val: Any) -> None:
        super().__init__()
        self._train, self._val = train, val

    def train_dataloader(self) -> Any:
        return self._train

    def val_dataloader(self) -> Any:
        return self._val

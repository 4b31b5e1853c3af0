"""Data sets that fit into memory: uint8 images stay on the device, batches are cut, augmented and normalised there.

The data loader hands out numbers only (see order.py); no worker process, no Python per image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from netslim.data.order import Batches
from netslim.data.sources import Images


class InMemoryData(LightningDataModule):
    """Batches of (images float32 (B, C, H, W) normalised, labels int64 (B,)).

    Args:
        source: returns the images; called once, when they are first needed.
        title: what the report calls the set.
        mean, std: per channel, in units of 0..1; normalisation is (x/255 − mean)/std.
        batch_size: per process, default 64 as in the paper. The last, smaller batch of an epoch is used.
        eval_batch_size: default 500; only speed and memory depend on it.
        val_size: training images held out for validation: a number, or a share under 1. Default 0: none. Which ones is
            decided by ``split_seed`` alone, the same number of each class.
        seed: of order and augmentation.
        crop_padding: random crops out of the image with so many black pixels around it; default 0: none.
        flip: mirror half of the images; default no.
    """

    def __init__(
        self,
        source: Callable[[], Images],
        *,
        title: str,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int = 64,
        eval_batch_size: int = 500,
        val_size: float = 0,
        split_seed: int = 0,
        seed: int = 0,
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(title, str):
            raise ValueError(f"title={title} is what the report calls the data; give a text, such as title=digits")
        if batch_size < 1 or eval_batch_size < 1:
            raise ValueError(f"batch_size={batch_size}, eval_batch_size={eval_batch_size}: both must be at least 1")
        if crop_padding < 0:
            raise ValueError(f"crop_padding={crop_padding} is too small; give 0 or more")
        if isinstance(mean, (int, float)) or isinstance(std, (int, float)):
            raise ValueError(f"mean={mean}, std={std}: give a list with a number per channel, such as [0.5]")
        self.source, self.title = source, title
        if not all(isinstance(number, (int, float)) and number > 0 for number in std):
            raise ValueError(f"std={list(std)}: standard deviations must be positive, such as [0.25]")
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.batch_size, self.eval_batch_size, self.seed = batch_size, eval_batch_size, seed
        self.val_size, self.split_seed = val_size, split_seed
        self.crop_padding, self.flip = crop_padding, flip
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}

    @cached_property
    def images(self) -> Images:
        images = self.source()
        check_classes(self.title, images.classes)
        if not len(self.mean) == len(self.std) == images.train.shape[1]:
            raise ValueError(
                f"{self.title} has {images.train.shape[1]} channels, but there are {len(self.mean)} means and "
                f"{len(self.std)} standard deviations; give one of each per channel"
            )
        return images

    @property
    def num_classes(self) -> int:
        return len(self.images.classes)

    @property
    def in_channels(self) -> int:
        return self.images.train.shape[1]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)"""
        channels, height, width = self.images.train.shape[1:]
        return channels, height, width

    @property
    def train_size(self) -> int:
        """Number of training images, without those held out."""
        return len(self.split[0])

    @cached_property
    def split(self) -> tuple[Tensor, Tensor]:
        """Indices of the training and of the validation images."""
        return stratified_split(self.images.train_labels, self.val_size, seed=self.split_seed)

    def train_dataloader(self) -> DataLoader:
        return self._loader("train", self.split[0], train=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._loader("train", self.split[1], train=False) if len(self.split[1]) else []

    def test_dataloader(self) -> DataLoader:
        return self._loader("test", torch.arange(len(self.images.test)), train=False)

    def _loader(self, part: str, indices: Tensor, *, train: bool) -> DataLoader:
        sampler = Batches(
            indices,
            batch_size=self.batch_size if train else self.eval_batch_size,
            train=train,
            seed=self.seed,
            padding=self.crop_padding,
            flip=self.flip,
            num_replicas=self.trainer.world_size if self.trainer else 1,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        return DataLoader(_Rows(part), sampler=sampler, batch_size=None)

    def on_after_batch_transfer(self, batch: tuple[str, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Rows of numbers, already on the device, to images and labels."""
        part, rows = batch
        images, labels = self._on(part, rows.device)
        cut = cut_out(images[rows[:, 0]], rows[:, 1], rows[:, 2], rows[:, 3], padding=self.crop_padding)
        mean, std = self._on("statistics", rows.device)
        return cut.float().div_(255).sub_(mean).div_(std), labels[rows[:, 0]]

    def _on(self, part: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two tensors that stay on the device: images and labels of a part, or mean and standard deviation."""
        if part not in self._resident or self._resident[part][0].device != device:
            first, second = self._host(part)
            self._resident[part] = (first.to(device), second.to(device))
        return self._resident[part]

    def _host(self, part: str) -> tuple[Tensor, Tensor]:
        if part == "statistics":
            return self.mean.view(-1, 1, 1), self.std.view(-1, 1, 1)
        whole = self.images
        return (whole.train, whole.train_labels) if part == "train" else (whole.test, whole.test_labels)


def check_classes(title: str, classes: Sequence[str]) -> None:
    """Raise ValueError where there is nothing to tell apart."""
    if len(classes) < 2:
        named = f"one class ({classes[0]})" if classes else "no class"
        raise ValueError(f"{title} has {named}: a network would be right whatever it says; give two classes or more")


class _Rows(Dataset):
    """Passes the sampler's rows on, with the name of the part they are of."""

    def __init__(self, part: str) -> None:
        self.part = part

    def __getitem__(self, rows: Tensor) -> tuple[str, Tensor]:
        return self.part, rows


def cut_out(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, *, padding: int) -> Tensor:
    """From each image with ``padding`` black pixels around it, cut the image's size at (top, left); mirror if asked.

    Args:
        images: (B, C, H, W).
        top, left: (B,) in 0..2·padding; ``padding`` gives the image itself.
        flip: (B,) 0 or 1.

    One gather for the whole batch.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)  # (B, C, H + 2p, W + 2p)
    across = torch.arange(width, device=images.device)
    columns = torch.where(flip.view(-1, 1) == 1, across.flip(0), across) + left.view(-1, 1)  # (B, W)
    rows = torch.arange(height, device=images.device) + top.view(-1, 1)  # (B, H)
    flat = (rows.unsqueeze(2) * padded.shape[3] + columns.unsqueeze(1)).view(count, 1, -1)  # (B, 1, H·W)
    return padded.flatten(2).gather(2, flat.expand(-1, channels, -1)).view_as(images)


def stratified_split(labels: Tensor, held_out: float, *, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (ascending) of what stays and of what is held out, the same share of every class.

    Args:
        labels: (N,).
        held_out: how many, or a share if under 1. Rounding falls to the first classes.

    Raises:
        ValueError: as many as there are, or more.

    >>> stay, out = stratified_split(torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), 4, seed=0)
    >>> torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])[out].tolist()
    [0, 0, 1, 1]
    """
    total = round(held_out * len(labels)) if 0 < held_out < 1 else int(held_out)
    if not 0 <= total < len(labels) or (held_out >= 1 and held_out != total):
        raise ValueError(
            f"val_size={held_out} of {len(labels)} training images; choose at least 0 and fewer than all, a whole "
            "number or a share under 1"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    rank = torch.empty(len(labels))
    for value in labels.unique():
        members = shuffled[labels[shuffled] == value]
        rank[members] = (torch.arange(len(members)) + 0.5) / len(members)  # position within its class, 0..1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[rank.argsort(stable=True)[:total]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()

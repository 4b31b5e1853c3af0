"""Data sets that are folders of images: ``root/train/<class>/*`` and ``root/test/<class>/*``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset
from torchvision.transforms import v2
from tqdm import tqdm

from netslim.data import decode
from netslim.data.cache import cache_file, cached
from netslim.data.class_folders import Part, parts
from netslim.data.memory import InMemoryData, check_classes, stratified_split
from netslim.data.order import epoch_seed
from netslim.data.sources import Images

LIMIT = 2e9  # bytes of decoded images that may stay in memory
# Stands in the names of the stages that FolderData feeds; another word once its pixels or its draws are others.
READER = "uint8"


def image_folder(
    root: str,
    *,
    title: str | None = None,
    memory_limit: float = LIMIT,
    cache_dir: str | None = None,
    image_size: int = 224,
    num_workers: int = 4,
    crop_padding: int = 0,
    **settings: Any,
) -> LightningDataModule:
    """The data module for a folder of images: in memory where they fit, from worker processes where they do not.

    Images of one size that take at most ``memory_limit`` bytes as uint8 are decoded once and cut with ``crop_padding``;
    others are read anew each time and cut to ``image_size`` (torchvision's random resized crop; the middle in
    evaluation). With ``cache_dir`` the decoded images are also kept in a file in that folder, for the next process; it
    is made anew when an image changes. ``settings``: mean, std, batch_size, ... of InMemoryData and FolderData. Hidden
    files do not count.

    Raises:
        FileNotFoundError: root/train or root/test is not there or has no class folder with images.
        ValueError: train and test have different classes; an image cannot be read.
    """
    train, test = parts(root)
    title = title or Path(root).absolute().name
    check_classes(root, train.classes)
    kept = cache_file(cache_dir, root, (*train.stamps, *test.stamps)) if cache_dir else None
    if kept.stat().st_size <= memory_limit if kept and kept.exists() else fits(train, test, memory_limit):
        return InMemoryData(lambda: _images(root, kept), title=title, crop_padding=crop_padding, **settings)
    return FolderData(train, test, title=title, image_size=image_size, num_workers=num_workers, **settings)


def fits(train: Part, test: Part, limit: float) -> bool:
    """Whether the images are of one size and take at most ``limit`` bytes.

    Headers alone are read, and one at most where that size for all would be too much already.
    """
    paths = [*train.paths, *test.paths]
    width, height = decode.size(paths[0])
    return 3 * width * height * len(paths) <= limit and all(decode.size(path) == (width, height) for path in paths)


class FolderData(LightningDataModule):
    """Images of any size. Worker processes decode, crop and mirror them as uint8; the device normalises them.

    Settings as for InMemoryData. Order and augmentation are a function of (seed, epoch), whatever ``num_workers``. The
    workers stay for all epochs of a fit.
    """

    def __init__(
        self,
        train: Part,
        test: Part,
        *,
        title: str,
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int = 224,
        num_workers: int = 4,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        val_size: float = 0,
        split_seed: int = 0,
        seed: int = 0,
        flip: bool = True,
    ) -> None:
        super().__init__()
        self.title, self.num_classes, self.in_channels = title, len(train.classes), 3
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.image_shape = (3, image_size, image_size)
        self._statistics = torch.tensor([mean, std]).view(2, 3, 1, 1)  # on the device, once there is one
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        augment = v2.Compose([v2.RandomResizedCrop(image_size, antialias=True), *mirror])
        middle = v2.Compose([v2.Resize(image_size * 8 // 7, antialias=True), v2.CenterCrop(image_size)])
        stay, out = stratified_split(torch.tensor(train.labels), val_size, seed=split_seed)
        self.train_set = _Drawn(Subset(_Pictures(train, augment), stay.tolist()))
        self.val_set = Subset(_Pictures(train, middle), out.tolist())
        self.test_set = _Pictures(test, middle)

    @property
    def train_size(self) -> int:
        """Number of training images, without those held out."""
        return len(self.train_set)

    def train_dataloader(self) -> DataLoader:
        sampler = _EpochOrder(self.train_set, *self._world(), shuffle=True, seed=self.seed)
        return DataLoader(
            self.train_set, self.batch_size, sampler=sampler, generator=sampler.generator, **self._workers()
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        return self._evaluation(self.val_set) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader:
        return self._evaluation(self.test_set)

    def on_after_batch_transfer(self, batch: Sequence[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """uint8 (B, 3, H, W), already on the device, to float32: (x/255 - mean)/std."""
        images, labels = batch
        mean, std = self._statistics = self._statistics.to(images.device)
        return images.float().div_(255).sub_(mean).div_(std), labels

    def _evaluation(self, images: Any) -> DataLoader:
        return DataLoader(images, self.eval_batch_size, sampler=_Share(images, *self._world()), **self._workers())

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _workers(self) -> dict[str, Any]:
        count = min(self.num_workers, os.cpu_count() or 1)
        return {"num_workers": count, "persistent_workers": count > 0, "pin_memory": torch.cuda.is_available()}


class _Pictures(Dataset):
    """Each image decoded and transformed, uint8 (3, H, W), and its label."""

    def __init__(self, part: Part, transform: Any) -> None:
        self.paths, self.labels, self.transform = part.paths, part.labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(decode.decode(self.paths[index])), self.labels[index]


class _Drawn(Dataset):
    """Images by (index, seed): what is random about one is drawn from its seed."""

    def __init__(self, images: Subset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, drawn: tuple[int, int]) -> tuple[Tensor, int]:
        index, seed = drawn
        with _seeded(seed):
            return self.images[index]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's CPU generator at a seed; afterwards it is where it was. (fork_rng costs as much as half a crop.)"""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


class _Share(DistributedSampler):
    """Every W-th image for one of W processes: each image once, where the base class would repeat some to even out."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


class _EpochOrder(DistributedSampler):
    """Gives (index, seed) for each image: its order and what is drawn for it are a function of (seed, epoch)."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.generator.manual_seed(epoch_seed(self.seed, epoch))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        seeds = torch.randint(2**31, (len(self.dataset),), generator=generator).tolist()  # type: ignore[arg-type]
        return ((index, seeds[index]) for index in super().__iter__())


@lru_cache(maxsize=2)  # the stages of a job, and the jobs of a sweep, read the same folder
def _images(root: str, kept: Path | None) -> Images:
    return cached(kept, lambda: _decoded(root)) if kept else _decoded(root)


def _decoded(root: str) -> Images:
    train, test = parts(root)
    return Images(*_pixels(train), *_pixels(test), train.classes)


def _pixels(part: Part) -> tuple[Tensor, Tensor]:
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(decode.pixels, part.paths)
        arrays = list(tqdm(decoded, f"reading {part.folder}", len(part.paths), delay=3, leave=False, disable=None))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.labels)

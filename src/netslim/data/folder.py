"""Data sets that are folders of images: ``root/train/<class>/*`` and ``root/test/<class>/*``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from tqdm import tqdm

from netslim.data.cache import cache_file, cached
from netslim.data.memory import InMemoryData, check_classes, stratified_split
from netslim.data.order import epoch_seed
from netslim.data.sources import Images


def image_folder(
    root: str,
    *,
    title: str | None = None,
    memory_limit: float = 2e9,
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
    is made anew when an image changes. ``settings``: mean, std, batch_size, ... of InMemoryData and FolderData.

    Raises:
        FileNotFoundError: root/train or root/test is not there or has no class folder with images.
        ValueError: train and test have different classes; an image cannot be read.
    """
    train, test = (_part(root, part) for part in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{root}: train and test have different classes; in one of them only: {', '.join(odd)}")
    title = title or Path(root).absolute().name
    check_classes(root, train.classes)
    kept = cache_file(cache_dir, root, (path for path, _ in train.samples + test.samples)) if cache_dir else None
    if kept.stat().st_size <= memory_limit if kept and kept.exists() else _fits(train, test, memory_limit):
        return InMemoryData(lambda: _images(root, kept), title=title, crop_padding=crop_padding, **settings)
    return FolderData(train, test, title=title, image_size=image_size, num_workers=num_workers, **settings)


class FolderData(LightningDataModule):
    """Images of any size, read by worker processes through torchvision's v2 transforms.

    Settings as for InMemoryData. Order and augmentation depend on (seed, epoch) and on ``num_workers``.
    """

    def __init__(
        self,
        train: ImageFolder,
        test: ImageFolder,
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
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]
        mirror = [v2.RandomHorizontalFlip()] if flip else []
        augment = v2.Compose([v2.RandomResizedCrop(image_size, antialias=True), *mirror, *finish])
        middle = v2.Compose([v2.Resize(image_size * 8 // 7, antialias=True), v2.CenterCrop(image_size), *finish])
        stay, out = stratified_split(torch.tensor(train.targets), val_size, seed=split_seed)
        self.train_set = Subset(_with_transform(train, augment), stay.tolist())
        self.val_set = Subset(_with_transform(train, middle), out.tolist())
        self.test_set = _with_transform(test, middle)

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

    def _evaluation(self, images: Any) -> DataLoader:
        return DataLoader(images, self.eval_batch_size, sampler=_Share(images, *self._world()), **self._workers())

    def _world(self) -> tuple[int, int]:
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def _workers(self) -> dict[str, Any]:
        return {"num_workers": min(self.num_workers, os.cpu_count() or 1), "pin_memory": torch.cuda.is_available()}


class _Share(DistributedSampler):
    """Every W-th image for one of W processes: each image once, where the base class would repeat some to even out."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


class _EpochOrder(DistributedSampler):
    """Seeds the order and, through the loader's generator, the workers' augmentation with (seed, epoch)."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.generator = torch.Generator()
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.generator.manual_seed(epoch_seed(self.seed, epoch))

    def __iter__(self) -> Iterator[int]:
        torch.manual_seed(epoch_seed(self.seed, self.epoch))  # num_workers=0 augments in this process
        return super().__iter__()


def _part(root: str, part: str) -> ImageFolder:
    folder = Path(root) / part
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder.absolute()}; data.root needs train/ and test/ with class folders")
    return ImageFolder(str(folder))  # names what is wrong with the class folders itself


def _with_transform(images: ImageFolder, transform: Any) -> ImageFolder:
    return ImageFolder(images.root, transform=transform)


def _fits(train: ImageFolder, test: ImageFolder, limit: float) -> bool:
    paths = [path for path, _ in train.samples + test.samples]
    width, height = _size(paths[0])
    # Headers alone are read here, and none at all where one size for all would be too much already.
    return 3 * width * height * len(paths) <= limit and all(_size(path) == (width, height) for path in paths)


def _size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); remove or replace it") from error


@lru_cache(maxsize=2)  # the stages of a job, and the jobs of a sweep, read the same folder
def _images(root: str, kept: Path | None) -> Images:
    return cached(kept, lambda: _decoded(root)) if kept else _decoded(root)


def _decoded(root: str) -> Images:
    train, test = (_part(root, part) for part in ("train", "test"))
    return Images(*_pixels(train), *_pixels(test), tuple(train.classes))


def _pixels(images: ImageFolder) -> tuple[Tensor, Tensor]:
    paths, labels = zip(*images.samples, strict=True)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(_rgb, paths)
        arrays = list(tqdm(decoded, f"reading {images.root}", len(paths), delay=3, leave=False, disable=None))
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def _rgb(path: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} cannot be read as an image ({error}); remove or replace it") from error

"""Where images come from: each function returns a whole data set as uint8 tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets


@dataclass(frozen=True)
class Images:
    """A data set in memory. ``train``, ``test``: uint8 (N, C, H, W); labels: int64 (N,); ``classes``: their names."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for images, labels in ((self.train, self.train_labels), (self.test, self.test_labels)):
            if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels):
                raise ValueError(
                    f"images must be uint8 (N, C, H, W) with N labels, got {images.dtype} {tuple(images.shape)} "
                    f"and {len(labels)} labels"
                )


def digits() -> Images:
    """scikit-learn's 1,797 handwritten digits, 8×8 grey, inside the package: no network needed.

    Of each class the last fifth, in the order of the set, is for testing: 1,433 training and 364 test images.

    >>> d = digits(); tuple(d.train.shape), tuple(d.test.shape), len(d.classes)
    ((1433, 1, 8, 8), (364, 1, 8, 8), 10)
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)  # grey 0..16 to 0..255
    labels = torch.from_numpy(raw.target).long()
    test = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        members = (labels == digit).nonzero().flatten()
        test[members[int(0.8 * len(members)) :]] = True
    return Images(images[~test], labels[~test], images[test], labels[test], tuple(str(d) for d in range(10)))


def synthetic(
    *, train: int = 512, test: int = 128, classes: int = 4, size: int = 16, channels: int = 3, seed: int = 0
) -> Images:
    """Noise around one random picture per class: separable by construction, for tests and timing.

    >>> synthetic(train=8, size=4).train.shape
    torch.Size([8, 3, 4, 4])
    """
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randint(64, 192, (classes, channels, size, size), generator=generator)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = torch.randint(-48, 49, (count, channels, size, size), generator=generator)
        return (centres[labels] + noise).clamp(0, 255).to(torch.uint8), labels

    (a, b), (c, d) = draw(train), draw(test)
    return Images(a, b, c, d, tuple(f"class {i}" for i in range(classes)))


def cifar10(root: str, *, download: bool = True) -> Images:
    """50,000 + 10,000 colour images of 32×32 in 10 classes."""
    return _cifar(datasets.CIFAR10, root, download)


def cifar100(root: str, *, download: bool = True) -> Images:
    """50,000 + 10,000 colour images of 32×32 in 100 classes."""
    return _cifar(datasets.CIFAR100, root, download)


def svhn(root: str, *, download: bool = True) -> Images:
    """Street View House Numbers, cropped: 73,257 + 26,032 colour images of 32×32 (the `extra` set is not used)."""
    train, test = (
        _fetch(partial(datasets.SVHN, root, split=split, download=download), "SVHN", root)
        for split in ("train", "test")
    )
    arrays = [torch.from_numpy(part) for part in (train.data, train.labels, test.data, test.labels)]
    return Images(arrays[0], arrays[1].long(), arrays[2], arrays[3].long(), tuple(str(d) for d in range(10)))


def mnist(root: str, *, download: bool = True) -> Images:
    """60,000 + 10,000 grey images of 28×28, handwritten digits."""
    return _mnist(datasets.MNIST, root, download)


def fashion_mnist(root: str, *, download: bool = True) -> Images:
    """60,000 + 10,000 grey images of 28×28, clothing."""
    return _mnist(datasets.FashionMNIST, root, download)


def _cifar(kind: Callable[..., Any], root: str, download: bool) -> Images:
    train, test = (
        _fetch(partial(kind, root, train=split, download=download), kind.__name__, root) for split in (True, False)
    )
    return Images(
        torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(train.targets),
        torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(test.targets),
        tuple(train.classes),
    )


def _mnist(kind: Callable[..., Any], root: str, download: bool) -> Images:
    train, test = (
        _fetch(partial(kind, root, train=split, download=download), kind.__name__, root) for split in (True, False)
    )
    return Images(
        train.data.unsqueeze(1), train.targets, test.data.unsqueeze(1), test.targets, tuple(map(str, train.classes))
    )


def _fetch(make: Callable[[], Any], name: str, root: str) -> Any:
    try:
        return make()
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is not in {Path(root).absolute()} and could not be downloaded ({error}); put it there, "
            "set data.source.root, or choose another set, such as data=digits"
        ) from error

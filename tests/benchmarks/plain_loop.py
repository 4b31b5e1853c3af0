"""Sparsity training as the authors' script does it: one image at a time, one worker process, one layer at a time.

What netslim is timed against, and what its losses are compared with.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from netslim.data import Images

LOG_EVERY = 100  # batches between two log lines


class Clock:
    """Seconds spent per part of a step. Off, it costs nothing: with a GPU, marks mean waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.on = device, False
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        start = self.now()
        yield
        self.spent[part] += self.now() - start

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            with self(part):
                return function(*args, **more)

        return timed

    def now(self) -> float:
        """Seconds, once the device has done what it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class OneByOne(Dataset):
    """Pictures in memory, each transformed on its own when it is asked for, as torchvision's CIFAR10 does."""

    def __init__(self, images: Images, mean: list[float], std: list[float]) -> None:
        self.pictures = images.train.permute(0, 2, 3, 1).numpy()
        self.labels = images.train_labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.Pad(4),
                transforms.RandomCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean, std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pictures[index])), self.labels[index]


def loader(images: Images, mean: list[float], std: list[float], batch_size: int, device: torch.device) -> DataLoader:
    pinned = device.type == "cuda"
    return DataLoader(OneByOne(images, mean, std), batch_size, shuffle=True, num_workers=1, pin_memory=pinned)


def add_l1(network: nn.Module, strength: float) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.grad.data.add_(strength * torch.sign(module.weight.data))


def train(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    optimizer: torch.optim.Optimizer,
    strength: float,
    clock: Clock,
    after_step: Callable[[Tensor], None],
) -> None:
    """One epoch. ``after_step`` is given the loss of every batch."""
    network.train()
    for number, batch in enumerate(batches):
        images, labels = (part.to(clock.device) for part in batch)
        optimizer.zero_grad()
        with clock("forward"):
            logits = network(images)
        loss = F.cross_entropy(logits, labels)
        logits.data.max(1, keepdim=True)
        with clock("backward"):
            loss.backward()
        with clock("penalty"):
            add_l1(network, strength)
        with clock("step"):
            optimizer.step()
        if number % LOG_EVERY == 0:
            print(f"batch {number}, loss {loss.item():.6f}")
        after_step(loss)

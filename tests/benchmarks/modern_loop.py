"""Sparsity training as one writes it by hand today, with nothing around it: what netslim's overhead is measured by.

The pictures stay on the device as uint8; a batch is cut, mirrored and normalised at once; weights and batches are
channels_last; the penalty is one call over all γ; loss and right answers are added up on the device. No log, no
progress, no checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from plain_loop import Clock
from torch import Tensor, nn
from torch.nn import functional as F

from netslim.data import Images


class Batches:
    """Epochs of shuffled, randomly cropped, mirrored, normalised batches."""

    def __init__(
        self, images: Images, mean: list[float], std: list[float], batch_size: int, device: torch.device, *,
        padding: int, flip: bool,
    ) -> None:  # fmt: skip
        size, self.flip = images.train.shape[-1], flip
        self.pictures = F.pad(images.train.to(device), (padding,) * 4)  # (N, C, H + 2p, W + 2p)
        self.labels, self.batch_size, self.most = images.train_labels.to(device), batch_size, 2 * padding + 1
        self.mean, self.std = (torch.tensor(each, device=device).view(-1, 1, 1) for each in (mean, std))
        self.pixels = torch.arange(size, device=device)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(self.labels), device=self.labels.device).split(self.batch_size):
            top, left = torch.randint(self.most, (2, len(chosen), 1), device=chosen.device)
            rows, columns = self.pixels + top, self.pixels + left  # (B, H), (B, W)
            if self.flip:
                columns = torch.where(torch.rand(len(chosen), 1, device=chosen.device) < 0.5, columns.flip(1), columns)
            # (B, H, W, C): in the order of channels_last
            cut = self.pictures[chosen.view(-1, 1, 1), :, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
            yield cut.float().div_(255).sub_(self.mean).div_(self.std), self.labels[chosen]


@torch.no_grad()
def add_l1(scales: Sequence[Tensor], strength: float) -> None:
    torch._foreach_add_([gamma.grad for gamma in scales], torch._foreach_sign(scales), alpha=strength)


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
    scales = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    sums = torch.zeros(2, device=clock.device)
    for images, labels in batches:
        optimizer.zero_grad()
        with clock("forward"):
            logits = network(images)
        loss = F.cross_entropy(logits, labels)
        with clock("backward"):
            loss.backward()
        with clock("penalty"):
            add_l1(scales, strength)
        with clock("step"):
            optimizer.step()
        sums += torch.stack([loss.detach() * len(labels), (logits.detach().argmax(1) == labels).sum()])
        after_step(loss)

"""Which image comes when, and how it is augmented: a function of (seed, epoch) and nothing else.

An epoch's draws are one int64 table (N, 4), a row per image: its index, the crop's two offsets, flipped or not. It does
not depend on any global random state, so an epoch that is repeated after a restart is the epoch that was lost; nor on
the number of processes, so W processes with batches of B see what one process with batches of W·B sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler


def epoch_seed(seed: int, epoch: int) -> int:
    """A generator's seed for one epoch of a run, hashed to 32 bits: torch's CPU generator ignores all higher ones."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])


def draws(indices: Tensor, *, seed: int, epoch: int, padding: int, flip: bool) -> Tensor:
    """A training epoch's table (N, 4): shuffled index, the crop's row and column (0..2·padding), flip (0 or 1)."""
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    count = len(indices)
    order = indices[torch.randperm(count, generator=generator)]
    offsets = torch.randint(0, 2 * padding + 1, (count, 2), generator=generator)
    flips = torch.randint(0, 2, (count, 1), generator=generator) * int(flip)
    return torch.cat([order.unsqueeze(1), offsets, flips], dim=1)


def plain(indices: Tensor, *, padding: int) -> Tensor:
    """The table for evaluation: the images in order, the crop in the middle (the image itself), not flipped."""
    middle = torch.tensor([0, padding, padding, 0])
    return torch.cat([indices.unsqueeze(1), middle[1:].expand(len(indices), 3)], dim=1)


class Batches(DistributedSampler):  # the base class keeps Lightning from putting its own sampler in our place
    """Iterates over one epoch's batches, each a table (B, 4), for one of ``num_replicas`` processes.

    A training batch of B·W rows is cut into W parts, one a process; the last, smaller one too (equal to one row),
    unless it has fewer rows than processes. Evaluation cuts all rows into batches of nearly equal size instead, so that
    every process has as many, and no image is seen twice.
    """

    def __init__(
        self, indices: Tensor, *, batch_size: int, train: bool, seed: int, padding: int, flip: bool,
        num_replicas: int = 1, rank: int = 0,
    ) -> None:  # fmt: skip
        self.indices, self.batch_size, self.train_mode = indices, batch_size, train
        self.seed, self.padding, self.flip = seed, padding, flip
        self.num_replicas, self.rank, self.epoch = num_replicas, rank, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch, also the first one after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size * self.num_replicas)
        return full + (rest >= self.num_replicas if self.train_mode else rest > 0)

    def __iter__(self) -> Iterator[Tensor]:
        if self.train_mode:
            table = draws(self.indices, seed=self.seed, epoch=self.epoch, padding=self.padding, flip=self.flip)
            batches = table.split(self.batch_size * self.num_replicas)[: len(self)]
        else:
            table = plain(self.indices, padding=self.padding)
            batches = table.tensor_split(max(1, math.ceil(len(table) / (self.batch_size * self.num_replicas))))
        for batch in batches:
            yield batch.tensor_split(self.num_replicas)[self.rank]

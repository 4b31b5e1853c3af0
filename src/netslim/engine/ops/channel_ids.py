"""Channel ids: who is who, and who must exist together.

Every value that the network computes per channel gets a number of its own, an *id*. A tensor of the network is shadowed
by a tensor of ids of the same shape, in which an id is repeated (stride 0) over batch and space. Operations that only
move data (view, cat, transpose, chunk...) are then understood by running them on the ids.

Where two channels meet at one position (the two sides of an addition, the input and output of a ReLU) the network needs
both or neither: their ids are *tied*. The connected components of the ties are the *classes*: a class exists as a
whole or not at all. This is the union-find of the engine, done by scipy for all ties at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Weight:
    """The shadow of a parameter or buffer that no rule has looked into yet."""

    name: str
    transposed: bool = False


class Ids:
    """A counter of ids and the ties between them."""

    def __init__(self) -> None:
        self.count = 0
        self._ties: list[tuple[Tensor, Tensor]] = []  # since the classes were asked for
        self._classes = np.empty(0, dtype=np.int64)

    def fresh(self, n: int) -> Tensor:
        """n new ids, shape (n,)."""
        self.count += n
        return torch.arange(self.count - n, self.count)

    def tie(self, a: Tensor, b: Tensor) -> None:
        """a[i] and b[i] exist together (shapes equal)."""
        self._ties.append((a.reshape(-1), b.reshape(-1)))

    def classes(self) -> Tensor:
        """The class of every id, shape (count,), numbered from 0 in no particular order.

        >>> ids = Ids(); a, b = ids.fresh(2), ids.fresh(2); ids.tie(a, b.flip(0)); ids.classes()
        tensor([0, 1, 1, 0])
        """
        new = np.arange(self.count - len(self._classes)) + self._classes.max(initial=-1) + 1
        before = np.concatenate([self._classes, new])
        if self._ties:
            rows, columns = (before[torch.cat(side).numpy()] for side in zip(*self._ties, strict=True))
            nodes = int(before.max()) + 1
            graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(nodes, nodes))
            before = connected_components(graph, directed=False)[1].astype(np.int64)[before]
        self._classes, self._ties = before, []
        return torch.from_numpy(before)


def broadcast_ids(line: Tensor, shape: torch.Size, dim: int) -> Tensor:
    """Ids (C,) along `dim` of a tensor of that shape, repeated without copying along all other dimensions."""
    return line.reshape([-1 if d == dim % len(shape) else 1 for d in range(len(shape))]).expand(shape)


def shrink(ids: Tensor) -> Tensor:
    """The same ids with every dimension along which they only repeat cut to length 1."""
    array = ids.numpy()
    for d, n in enumerate(array.shape):
        if n > 1 and (array.strides[d] == 0 or _repeats(array, d)):
            array = array[(slice(None),) * d + (slice(0, 1),)]
    return torch.from_numpy(array)


def _repeats(array: npt.NDArray[np.int64], d: int) -> bool:
    first = (slice(None),) * d + (slice(0, 1),)
    if array.size and array.item(0) != array[(0,) * d + (1,) + (0,) * (array.ndim - d - 1)]:
        return False  # most often
    return bool((array == array[first]).all())


def along(ids: Tensor, dim: int) -> Tensor | None:
    """The ids (C,) along `dim`, or None where they also vary along another dimension."""
    small = shrink(ids)
    if any(small.size(d) > 1 for d in range(ids.dim()) if d != dim % ids.dim()):
        return None
    return small.flatten().expand(ids.size(dim))

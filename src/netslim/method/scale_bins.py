"""Numbers about |γ| that training and report share: when a γ is dead, and the bins in which |γ| is counted.

The bins: six per decade from 1e-4 to 10^½, and one open bin at each end. Without torch: a report has none.
"""

from __future__ import annotations

DEAD = 0.01  # a γ is dead where its size is at most this share of the mean of its layer
EDGES = tuple(10 ** (place / 6) for place in range(-24, 4))  # bin i holds EDGES[i - 1] <= |γ| < EDGES[i]
BINS = len(EDGES) + 1


def bins_under(bound: float) -> int:
    """How many of the first bins are under an edge.

    >>> bins_under(1e-4), bins_under(1e-2), BINS
    (1, 13, 29)
    """
    return EDGES.index(bound) + 1

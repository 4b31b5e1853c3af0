"""How much of the pruning is done when, in a training in which the network gets smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from netslim.method.threshold import is_number


def cubic_ramp(epoch: int, epochs: int, start: float, end: float) -> float:
    """The share of all removals that is done at the end of ``epoch`` (0, 1, ... of ``epochs``): 1 − (1 − p)³.

    p rises from 0 to 1 between the shares ``start`` and ``end`` of the epochs. Many channels are removed early, while
    plenty are left, and few at the end.

    Source: Zhu & Gupta 2017, "To prune, or not to prune", equation 1.

    >>> [round(cubic_ramp(epoch, 10, 0.0, 0.5), 3) for epoch in range(6)]
    [0.488, 0.784, 0.936, 0.992, 1.0, 1.0]
    """
    done = ((epoch + 1) / epochs - start) / (end - start)
    return 1.0 - (1.0 - min(max(done, 0.0), 1.0)) ** 3


def jaccard(one: Mapping[str, Sequence[int]], other: Mapping[str, Sequence[int]]) -> float:
    """How alike two selections of channels are, layer -> channels: those in both over those in any, 0..1.

    Source: the pruning indicator of Ghimire et al. 2025, "One-cycle Structured Pruning with Stability Driven Structure
    Search" (arXiv 2501.13439).

    >>> jaccard({"a": [0, 1], "b": [5]}, {"a": [1, 2], "b": [5]})
    0.5
    """
    a, b = ({(name, channel) for name, channels in each.items() for channel in channels} for each in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def check_stable(stable: float | None) -> None:
    """Raise ValueError where ``stable`` is neither a similarity nor None."""
    if stable is not None and not (is_number(stable) and 0 <= stable < 1):
        raise ValueError(f"stable={stable} is no similarity; give 0 ≤ stable < 1, such as 0.999, or leave it out")


def check_ramp(start: float, end: float) -> None:
    """Raise ValueError where a ramp does not lie in the training."""
    if not (is_number(start) and is_number(end) and 0 <= start < end <= 1):
        raise ValueError(
            f"the ramp runs from {start} to {end} of the epochs; give 0 ≤ start < end ≤ 1, such as 0.05 and 0.5"
        )

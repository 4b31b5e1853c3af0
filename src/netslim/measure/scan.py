"""What a cut would cost, before it is made: accuracy over prune ratios, and how sensitive each layer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from netslim.engine import mask, select_channels, slim
from netslim.engine.selection import Selection
from netslim.measure.cost import count
from netslim.method.batches import check_batches, run
from netslim.method.recovery import recalibrate
from netslim.method.scales import all_scales, dead_share

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class Point:
    """A slim network with re-estimated BatchNorm statistics. params, macs: shares of the dense network's."""

    ratio: float
    accuracy: float
    params: float
    macs: float


@dataclass(frozen=True)
class Scan:
    """accuracy: of the dense network. dead: share of the γ that are dead. layers: accuracy where the weaker half of
    that layer alone is zero. Print it for a table.
    """

    accuracy: float
    dead: float
    points: list[Point]
    layers: dict[str, float]

    def __str__(self) -> str:
        return table(self.accuracy, self.dead, self.points, self.layers)


def accuracy(network: nn.Module, batches: Iterable[Any]) -> float:
    """The share of right classes; each batch ends with its labels."""
    right = total = 0
    for batch in batches:
        found, labels = run(network, batch).argmax(1).cpu(), batch[-1].cpu()
        right, total = right + int((found == labels).sum()), total + len(labels)
    return right / total


def scan(
    model: nn.Module,
    example_input: Any,
    batches: Iterable[Any],
    ratios: Sequence[float] = RATIOS,
    *,
    recalibration: Iterable[Any] | None = None,
    evaluate: Callable[[nn.Module, Iterable[Any]], float] = accuracy,
    **options: Any,
) -> Scan:
    """Slim the network at each ratio, re-estimate its BatchNorm statistics and evaluate it; then each layer alone.

    Args:
        model: trained; left as it was.
        batches: validation data, [inputs, labels] each; never the test set, which a choice must not see.
        ratios: default twelve from 0.1 to 0.9; those that the floor does not allow are left out.
        recalibration: batches for the statistics, better of the training data; default ``batches``.
        evaluate: what is measured, default ``accuracy``.
        options: floor, coupling, round_to, score: as for ``select_channels``.

    Raises:
        ValueError: no batches, or as ``select_channels``.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    >>> scan(net, torch.randn(1, 2), [[torch.randn(8, 2), torch.ones(8).long()]], [0.5]).points[0].ratio
    0.5
    """
    check_batches("scan", batches)
    known = list(batches)
    if not known:
        raise ValueError("scan needs at least one batch of validation data, got none")
    seen = known if recalibration is None else list(recalibration)

    def judged(network: nn.Module) -> float:
        recalibrate(network, seen)
        return _evaluated(evaluate, network, known)

    cuts = _selections(model, example_input, ratios, options)
    return Scan(
        _evaluated(evaluate, mask(model, {}), known),
        dead_share(all_scales(model)),
        _points(model, example_input, cuts, judged),
        {name: judged(mask(model, {name: kept})) for name, kept in _halves(cuts).items()},
    )


@torch.no_grad()
def _evaluated(evaluate: Callable[[nn.Module, Iterable[Any]], float], network: nn.Module, batches: list[Any]) -> float:
    return evaluate(network.eval(), batches)


def _selections(
    model: nn.Module, example_input: Any, ratios: Sequence[float], options: Mapping[str, Any]
) -> dict[float, Selection]:
    """Of the ratios, those that remove more than the one before."""
    found: dict[float, Selection] = {}
    most = -1
    for ratio in sorted(ratios):
        keep = select_channels(model, ratio, example_input, strict=False, **options)
        if keep.removed > most:
            found[ratio], most = keep, keep.removed
    return found


def _points(
    model: nn.Module, example_input: Any, cuts: Mapping[float, Selection], judged: Callable[[nn.Module], float]
) -> list[Point]:
    dense, points = count(model, example_input), []
    for ratio, keep in cuts.items():
        small = slim(model, keep, example_input)
        size = count(small, example_input)
        macs = size.macs / dense.macs if dense.macs else 1.0
        points.append(Point(ratio, judged(small), size.params / dense.params, macs))
    return points


def _halves(cuts: Mapping[float, Selection]) -> dict[str, torch.Tensor]:
    """The channels of each prunable layer but the half with the lowest scores."""
    keep = next(iter(cuts.values()))
    assert keep.scores is not None
    ranks = {name: keep.scores.value[name].argsort(stable=True).argsort() for name in keep}
    return {name: rank >= len(rank) // 2 for name, rank in ranks.items()}


def table(accuracy: float, dead: float, points: Sequence[Any], layers: Mapping[str, float]) -> str:
    """The scan in at most 30 lines: the ratios, the dead γ between them, the most sensitive layers."""
    lines = [f"{'ratio':>6} {'accuracy':>9} {'parameters':>11} {'MACs':>7}"]
    lines.append(f"{0:>6} {accuracy:>9.2%} {1:>11.1%} {1:>7.1%}")
    marked = False
    for point in points:
        passes, marked = not marked and point.ratio > dead, marked or point.ratio > dead
        mark = f"  from here live γ are removed: {dead:.1%} are dead" * passes
        lines.append(f"{point.ratio:>6g} {point.accuracy:>9.2%} {point.params:>11.1%} {point.macs:>7.1%}{mark}")
    worst = sorted(layers, key=lambda name: layers[name])[:8]
    lines += ["layers that bear it least, without the weaker half of their channels:"]
    return "\n".join([*lines, *(f"{layers[name]:>16.2%}  {name}" for name in worst)])

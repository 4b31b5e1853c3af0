"""A vote of allocations: which score is best is not known, so several make a network each, and validation images tell.

Every candidate removes the same amount (with ``target_macs`` all cost the same), has its BatchNorm statistics
re-estimated, and is not trained; the best on validation images goes on. Source: Li et al. 2020, "EagleEye", section 3.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from netslim.experiment.job import Job
from netslim.experiment.measurements import Candidate
from netslim.experiment.networks import scores_of
from netslim.method.scores import Magnitude, Scores, is_score
from netslim.method.scoring.layer_mean import LayerMean
from netslim.method.scoring.per_mac import PerMac
from netslim.method.scoring.uniform import Uniform
from netslim.training.task import Metric

log = logging.getLogger("netslim")


@dataclass(frozen=True)
class Vote:
    """A choice among scores, by what their networks do on validation images. Stands where a score does in a job.

    Args:
        of: the scores, default an equal share of every layer, |γ| over its layer's mean, that per multiply-add, and
            |γ|. Of equal ones the first wins.

    Raises:
        ValueError: there are fewer than two.

    >>> Vote(of=[Uniform()])
    Traceback (most recent call last):
    ValueError: score=vote needs at least two scores to choose from, got 1
    """

    of: Sequence[Any] = (Uniform(), LayerMean(), PerMac(), Magnitude())
    needs_data = True

    def __post_init__(self) -> None:
        given = list(self.of) if isinstance(self.of, Sequence) else [self.of]
        if wrong := [score for score in given if not is_score(score)]:
            raise ValueError(f"score=vote chooses among scores, and {wrong[0]!r} is none; see conf/score/vote.yaml")
        if len(given) < 2:
            raise ValueError(f"score=vote needs at least two scores to choose from, got {len(given)}")


def check(images: Any) -> None:
    """Refuse data without validation images, where the data module tells before the training.

    Raises:
        ValueError: there are none.
    """
    if hasattr(images, "image_shape") and not images.val_dataloader():
        raise ValueError("score=vote chooses by validation images, and there are none; set data.val_size=0.1")


def elect(
    job: Job, network: nn.Module, images: Any, metric: Metric, measure: Callable[[Scores], Mapping[str, Any]]
) -> tuple[Scores, list[Candidate]]:
    """The scores that win, and the numbers of every candidate.

    Args:
        job: with a ``Vote`` as its score.
        network: trained.
        measure: gives the result of ``slim_module`` with these scores, measured on validation images.
    """
    assert isinstance(job.score, Vote)
    found: list[tuple[Scores, Candidate]] = []
    for score in job.score.of:
        scores = scores_of(replace(job, score=score), network, images)
        result = measure(scores)
        value = metric.of(result["recalibrated"]["metrics"], "val")
        size = {name: result["slim"][name] for name in ("params", "macs")}
        found.append((scores, Candidate(unit=scores.unit, value=value, removed=result["removed"], **size)))
    sign = 1 if metric.direction == "max" else -1
    best = max(found, key=lambda pair: sign * pair[1].value)
    told = ", ".join(f"{candidate.unit} {metric.shown(candidate.value)}" for _, candidate in found)
    log.info("vote on validation %s: %s; %s wins", metric.name, told, best[0].unit)
    return best[0], [candidate for _, candidate in found]

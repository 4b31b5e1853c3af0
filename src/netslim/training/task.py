"""What the pipeline asks of a task: the network in it, and the metric by which results are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from torch import nn


@dataclass(frozen=True)
class Metric:
    """The number that progress, history, a search and the report show for a task.

    Args:
        name: what it is called: the task logs ``<name>/train`` (if it likes), ``<name>/val`` and ``<name>/test``.
        direction: "max" if larger is better (default), "min" if smaller is.
        format: Python's format specification for one value, default ``.1%``: 0.985 is shown as 98.5%.

    >>> Metric("mean IoU").shown(0.985), Metric("error", "min", ".3f").shown(0.25)
    ('98.5%', '0.250')
    >>> Metric("rmse", "down")
    Traceback (most recent call last):
    ValueError: the direction of metric 'rmse' is 'down'; give 'max' (larger is better) or 'min'
    """

    name: str
    direction: Literal["max", "min"] = "max"
    format: str = ".1%"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"a metric's name is {self.name!r}; give a word without a slash, such as 'accuracy'")
        if self.direction not in ("max", "min"):
            raise ValueError(
                f"the direction of metric {self.name!r} is {self.direction!r}; give 'max' (larger is better) or 'min'"
            )

    def shown(self, value: float) -> str:
        return format(value, self.format)

    def of(self, logged: Mapping[str, Any], split: str) -> float:
        """Its value in what a task has logged.

        Raises:
            ValueError: the task has not logged it.
        """
        key = f"{self.name}/{split}"
        if key not in logged:
            raise ValueError(f"the task logs no {key!r}; add self.log({key!r}, ...) to its {split} loop")
        return float(logged[key])


ACCURACY = Metric("accuracy")  # of classification, and of records that name no metric


class Task(Protocol):
    """Any LightningModule with a network and a metric.

    The pipeline makes it as ``task(network=..., ...)``, with those of ``optimizer``, ``scheduler``, ``strength``,
    ``penalty`` and ``distillation`` that its constructor names. ``optimizer(parameters)`` makes the optimiser,
    ``scheduler(optimizer, epochs=...)`` the schedule, ``distillation(inputs, logits, loss)`` the loss of a fine-tuning
    with a teacher. A task that takes ``strength`` (λ) adds the penalty itself, as SlimmingTask does; to any
    other the pipeline gives the callback ``Sparsity``. It logs ``loss/train`` and the metric, per epoch. The network is
    what is slimmed: its forward takes one batch of inputs.
    """

    network: nn.Module
    metric: Metric


def metric_of(module: object) -> Metric:
    """The metric of a task.

    Raises:
        ValueError: the pipeline cannot train and slim ``module``.

    >>> metric_of(nn.Linear(1, 1))
    Traceback (most recent call last):
    ValueError: Linear is no task: it has no 'network', 'metric'; a task is a LightningModule with these two
    """
    lacking = ", ".join(repr(name) for name in ("network", "metric") if not hasattr(module, name))
    if lacking:
        raise ValueError(
            f"{type(module).__name__} is no task: it has no {lacking}; a task is a LightningModule with these two"
        )
    return cast(Task, module).metric


def record_of_test(logged: Mapping[str, Any], metric: Metric) -> dict[str, float]:
    """What a test leaves: ``correct`` of ``total`` where the task counts, else the metric's ``value``; the loss and
    the number of classes that were ``predicted``, where they are logged.

    >>> record_of_test({"test/correct": 9.0, "test/total": 10.0, "loss/test": 0.5, "accuracy/test": 0.9}, ACCURACY)
    {'correct': 9, 'total': 10, 'loss': 0.5}
    >>> record_of_test({"mIoU/test": 0.75}, Metric("mIoU"))
    {'value': 0.75}
    """
    more: dict[str, float] = {"loss": float(logged["loss/test"])} if "loss/test" in logged else {}
    if "test/predicted" in logged:
        more["predicted"] = round(float(logged["test/predicted"]))
    if {"test/correct", "test/total"} <= set(logged):
        return {"correct": round(float(logged["test/correct"])), "total": round(float(logged["test/total"])), **more}
    return {"value": metric.of(logged, "test"), **more}


def score(test: Mapping[str, float]) -> float:
    """The metric in a test's record.

    >>> score({"correct": 9, "total": 10, "loss": 0.5}), score({"value": 0.75})
    (0.9, 0.75)
    """
    return test["correct"] / test["total"] if "total" in test else test["value"]

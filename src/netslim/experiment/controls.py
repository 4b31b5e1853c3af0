"""The door for controls: trainings that a result must be compared with, such as the slim network from scratch.

A control is a function ``control(job, stages) -> Stage``: ``stages`` are those of the job so far, and what it reads of
them it names in ``after`` and in ``settings``. It is done after them, and its record is part of the job's. The command
takes names of this mapping, which is empty as yet, and functions of one's own: ``controls=[{_target_: my.control}]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from netslim.experiment.job import Job
from netslim.experiment.stage import Stage

CONTROLS: Mapping[str, Callable[[Job, tuple[Stage, ...]], Stage]] = {}

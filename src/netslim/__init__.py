"""Network Slimming (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017).

The library, without Lightning or Hydra in between:

    keep  = netslim.select_channels(model, ratio=0.5, example_input=x)   # one threshold over all |γ|
    small = netslim.slim(model, keep, example_input=x)                   # a new, smaller nn.Module

With one's own LightningModule:

    Trainer(callbacks=[netslim.Sparsity(1e-4), netslim.Slimming(ratio=0.5)])

Names are loaded when they are first asked for (PEP 562), so that the engine costs no import of Lightning.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netslim.engine import Selection, mask, reconstruct, rescale, select_channels, slim
    from netslim.measure.cost import Cost, count
    from netslim.measure.export import export
    from netslim.measure.latency_table import LatencyTable
    from netslim.measure.scan import scan
    from netslim.method.recovery import recalibrate
    from netslim.method.steps import penalize
    from netslim.modules import bn_layers
    from netslim.slim_file import load, save
    from netslim.training.auto_sparsity import AutoSparsity
    from netslim.training.classification import SlimmingTask
    from netslim.training.gamma_histogram import GammaHistogram
    from netslim.training.gradual import GradualSlimming
    from netslim.training.slimming import Slimming
    from netslim.training.sparsity import Sparsity

__all__ = [
    "AutoSparsity",
    "Cost",
    "GammaHistogram",
    "GradualSlimming",
    "LatencyTable",
    "Selection",
    "Slimming",
    "SlimmingTask",
    "Sparsity",
    "bn_layers",
    "count",
    "export",
    "load",
    "mask",
    "penalize",
    "recalibrate",
    "reconstruct",
    "rescale",
    "save",
    "scan",
    "select_channels",
    "slim",
]

HOME = {
    **dict.fromkeys(("Selection", "mask", "reconstruct", "rescale", "select_channels", "slim"), "engine"),
    **dict.fromkeys(("Cost", "count"), "measure.cost"),
    "export": "measure.export",
    "LatencyTable": "measure.latency_table",
    "penalize": "method.steps",
    "scan": "measure.scan",
    "recalibrate": "method.recovery",
    "bn_layers": "modules",
    **dict.fromkeys(("load", "save"), "slim_file"),
    "AutoSparsity": "training.auto_sparsity",
    "SlimmingTask": "training.classification",
    "GammaHistogram": "training.gamma_histogram",
    "GradualSlimming": "training.gradual",
    "Slimming": "training.slimming",
    "Sparsity": "training.sparsity",
}


def __getattr__(name: str) -> Any:
    if name not in HOME:
        raise AttributeError(f"module 'netslim' has no attribute {name!r}")
    value = getattr(import_module(f"netslim.{HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Moved(ModuleType):
    """A module under its former name, for files and code that name it: whole networks that were pickled do."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(import_module(self.__doc__ or ""), name)


for _old, _new in {"slim.hooks": "engine.cut.select_scatter", "schedule": "training.lr_schedules"}.items():
    sys.modules[f"netslim.{_old}"] = _Moved(f"netslim.{_old}", f"netslim.{_new}")

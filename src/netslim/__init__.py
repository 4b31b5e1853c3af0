"""Network Slimming (Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017).

The library, without Lightning or Hydra in between:

    keep  = netslim.select_channels(model, ratio=0.5, example_input=x)   # one threshold over all |γ|
    small = netslim.slim(model, keep, example_input=x)                   # a new, smaller nn.Module

With one's own LightningModule:

    Trainer(callbacks=[netslim.Sparsity(1e-4), netslim.Slimming(ratio=0.5)])
"""

from netslim.callbacks import GammaHistogram, Slimming, Sparsity
from netslim.cost import Cost, count
from netslim.recalibration import recalibrate
from netslim.slim import Selection, load, mask, save, select_channels, slim
from netslim.sparsity import bn_layers
from netslim.task import SlimmingTask

__all__ = [
    "Cost",
    "GammaHistogram",
    "Selection",
    "Slimming",
    "SlimmingTask",
    "Sparsity",
    "bn_layers",
    "count",
    "load",
    "mask",
    "recalibrate",
    "save",
    "select_channels",
    "slim",
]

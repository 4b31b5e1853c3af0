"""What channels cost, for a penalty that weighs them by it."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from netslim.engine import channel_macs
from netslim.method.penalties import Penalty, needs_costs
from netslim.training.measuring import FitBench
from netslim.training.slim_module import example_for


def tell_costs(penalty: Penalty, trainer: Trainer, module: LightningModule, network: nn.Module) -> None:
    """When a training starts: give a penalty that needs them the costs of the network's channels.

    The example input is the module's ``example_input_array``, else the first sample of the first training batch.

    Raises:
        ValueError: the network does not run on it.
    """
    if not needs_costs(penalty):
        return
    path = next(name for name, part in module.named_modules() if part is network)
    with isolate_rng():  # a look at the data must not change the training
        example = example_for(module, path, None, lambda: FitBench(trainer, "val").training_batch(module))
        penalty.weigh(network, channel_macs(network, example))

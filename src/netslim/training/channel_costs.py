"""What channels cost, for a penalty that weighs them by it."""

from __future__ import annotations

from collections.abc import Callable

from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from netslim.engine import channel_macs
from netslim.method.penalties import Penalty, needs_costs
from netslim.training.measuring import FitBench
from netslim.training.slim_module import example_for


def costs_teller(
    penalty: Penalty, trainer: Trainer, module: LightningModule, network: nn.Module
) -> Callable[[], None] | None:
    """When a training starts: what tells a penalty what the network's channels cost now; None for one that needs not.

    The example input is the module's ``example_input_array``, else the first sample of the first training batch.

    Raises:
        ValueError: the network does not run on it.
    """
    if not needs_costs(penalty):
        return None
    path = next(name for name, part in module.named_modules() if part is network)
    with isolate_rng():  # a look at the data must not change the training
        example = example_for(module, path, None, lambda: FitBench(trainer, "val").training_batch(module))

    def tell() -> None:
        with isolate_rng():
            penalty.weigh(network, channel_macs(network, example))

    return tell

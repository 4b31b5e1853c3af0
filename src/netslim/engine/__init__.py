"""The channel engine: a network and the channels to keep -> a smaller network that computes the same.

Slimming as dead-channel elimination, the same for every architecture. Read it in this order:

    trace/   run the model and write its ATen operations onto a tape
    ops/     what each operation does to channels: one table
    graph/   the rules run over the tape: dependencies, free of PyTorch
    decide/  which channels can be removed and with whom (coupling), and what must be kept then (liveness)
    cut/     the smaller network, and the plan of what was cut
    verify/  the rules run over the smaller network's tape too: the proof
    recovery/ what a slim network gets back without training
    api.py   the public functions; choice.py, selection.py: what they choose; checks.py: what cannot be slimmed

README.md says how it works, what it cannot do, and how to add an operation.
"""

from netslim.engine.api import channel_macs, mask, score_channels, select_channels, slim, slim_in_place
from netslim.engine.cut.layer_shapes import LatencyModel, LayerShape
from netslim.engine.ops.table import OpRule, register
from netslim.engine.recovery.reconstruct import Reconstructed, reconstruct
from netslim.engine.recovery.rescale import Rescaled, rescale
from netslim.engine.selection import Selection

__all__ = [
    "LatencyModel",
    "LayerShape",
    "OpRule",
    "Reconstructed",
    "Rescaled",
    "Selection",
    "channel_macs",
    "mask",
    "reconstruct",
    "register",
    "rescale",
    "score_channels",
    "select_channels",
    "slim",
    "slim_in_place",
]

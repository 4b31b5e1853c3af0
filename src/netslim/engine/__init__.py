"""The channel engine: a network and the channels to keep -> a smaller network that computes the same.

Slimming as dead-channel elimination, the same for every architecture. Read it in this order:

    trace/   run the model and write its ATen operations onto a tape
    ops/     what each operation does to channels: one table
    graph/   the rules run over the tape: dependencies, free of PyTorch
    decide/  which channels can be removed and with whom (coupling), and what must be kept then (liveness)
    cut/     the smaller network, and the plan of what was cut
    verify/  the rules run over the smaller network's tape too: the proof
    api.py   the public functions; checks.py refuses what cannot be slimmed
"""

from netslim.engine.api import Selection, mask, select_channels, slim

__all__ = ["Selection", "mask", "select_channels", "slim"]

"""The channel engine: a network and the channels to keep -> a smaller network that computes the same.

Slimming as dead-channel elimination, the same for every architecture. Read it in this order:

    tape.py      run the model once and write down its ATen operations
    ids.py       a number for every channel, and who must exist together
    rules.py     what each operation does to channels: one table
    graph.py     the rules run over the tape: dependencies, free of PyTorch
    coupling.py  which BN channels can leave, and with whom     (-> ../threshold.py picks them)
    demand.py    what must stay once they have left: a backward sweep
    emit.py      cut parameters and buffers, put selections in front of BN layers
    plan.py      what was cut, as JSON: save, load, slim again
    engine.py    the public functions
"""

from netslim.slim.engine import mask, select_channels, slim
from netslim.slim.plan import load, save

__all__ = ["load", "mask", "save", "select_channels", "slim"]

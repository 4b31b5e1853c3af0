"""The channel engine: a network and the channels to keep -> a smaller network that computes the same.

Slimming as dead-channel elimination, the same for every architecture. Read it in this order:

    recorder.py  run the model and write its ATen operations onto a tape   (tape.py; running.py: in which mode;
                 shapes.py: without arithmetic)
    ids.py       a number for every channel, and who must exist together
    rules.py     what each operation does to channels: one table (computing.py, pooling.py, moving.py)
    graph.py     the rules run over the tape: dependencies, free of PyTorch
    streams.py   BN layers that read, or may write, only a part of a stream
    coupling.py  which BN channels can leave, and with whom     (-> ../threshold.py picks them)
    demand.py    what must stay once they have left: a backward sweep
    sizes.py     sizes that modules remember, as attributes, change with the channels
    emit.py      cut parameters and buffers                              (clone.py: copies of modules)
    hooks.py     BN layers that select from, or scatter to, a stream: all that a slim network has besides
    replay.py    run the rules over the slim network's tape too: the proof
    prove.py     solve, cut, replay, until the proof holds
    analysis.py  model -> graph; a proof and whether it still holds
    plan.py      what was cut, as JSON: save, load, slim again
    engine.py    the public functions

Besides, macs.py counts multiply-adds and checks.py refuses what cannot be slimmed.
"""

from netslim.slim.engine import Selection, mask, select_channels, slim
from netslim.slim.plan import load, save

__all__ = ["Selection", "load", "mask", "save", "select_channels", "slim"]

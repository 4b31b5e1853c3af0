"""The engine's public functions: choose channels, mask them, cut them out.

run the model (trace) -> run the rules (ops, graph) -> which can be removed (decide) -> cut (cut) -> prove (verify)
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from netslim.engine.checks import check_copies, check_coupling, check_keep, check_model
from netslim.engine.choice import choose, scattering_graph
from netslim.engine.cut import emit, plan
from netslim.engine.cut.in_place import cut_in_place, parameter_cuts
from netslim.engine.cut.layer_shapes import LatencyModel, layers_left
from netslim.engine.cut.optimizer_state import check_state, cut_state, masked_parameters
from netslim.engine.decide import connections as around
from netslim.engine.decide.choose import Amount, target_of
from netslim.engine.selection import Selection
from netslim.engine.verify.analyse import analyse
from netslim.engine.verify.prove import Proved, prove, write
from netslim.method.scores import Magnitude, Score, Scores, evaluate, needs_connections, scores_of
from netslim.method.threshold import Floor
from netslim.modules import Network

Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Tens of thousands of small objects are made here, and freed by their reference counts. Looking through them for
    cycles again and again would take a sixth of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


@torch.inference_mode(False)  # in it operations would come in other forms, and parameters that cannot be trained
@_collector_paused()
def select_channels(
    model: nn.Module,
    ratio: float | None = None,
    example_input: Any = None,
    *,
    target_macs: float | None = None,
    target_params: float | None = None,
    target_latency: float | None = None,
    latency: LatencyModel | None = None,
    floor: Floor = 1,
    most: float = 1.0,
    coupling: str = "keep",
    round_to: int | str = 1,
    strict: bool = True,
    score: Score | Scores | None = None,
) -> Selection:
    """Choose the channels to keep: one global threshold on |γ| over all prunable BN layers (paper, section 3).

    Args:
        model: any module with BN layers; it is run once on the example input and left as it was.
        ratio: share of the prunable channels to remove, in [0, 1).
        target_macs: instead of ratio: the multiply-adds that may be left, as a share of the dense network's in (0, 1],
            or as a whole number over 1 (for the example input, the whole batch). The smallest ratio that meets it is
            found by bisection.
        target_params: the same of the parameters.
        target_latency: the same of the time that a forward pass takes, as ``latency`` predicts it; over 1 milliseconds.
        latency: how long layers take, such as ``netslim.LatencyTable("onnx")``. With it, ``predicted`` of the result
            says how long the networks take.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.
        floor: channels that every layer keeps at least: a number, a share of each layer, or layer name -> number.
        most: the largest share of a layer that may be removed, in (0, 1], rounded down; default all of it.
        coupling: "keep" prunes BN layers that write their channels alone and keeps residual streams whole. "group" also
            prunes streams that several BN layers write: they lose a channel together, ranked by the largest |γ| in it.
            "scatter" prunes every BN layer for itself: one in a stream that lost channels is followed by a scatter into
            zeros (a module around the layer, with a buffer ``channel_place``).
        round_to: kept counts in levels: multiples of a number, e.g. 8; or "auto", those that fast kernels like, of 8 up
            to 32 and of 16 above (decide/levels.py). The budget is spent level by level where the mean score is lowest,
            so what is asked for is missed by less than one level.
        strict: whether a ratio or target out of reach of the floor is an error (default); else as many channels are
            removed as can be.
        score: what ranks the channels instead of |γ| (method/scores.py): what a score returns, or one without data.

    Returns:
        BN name -> bool tensor (C,), True where the channel is kept; one entry per prunable BN layer. What is removed
        only grows with ratio. See ``Selection`` for its attributes; ``print`` shows it as a table with advice.

    Raises:
        ValueError: no BN layer is prunable, a bad argument, a ratio or target out of reach, a model that does not run.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> model[1].weight.data = torch.tensor([0.5, -0.1, 0.0, 0.9])
    >>> keep = select_channels(model, ratio=0.5, example_input=torch.randn(1, 3, 8, 8)); keep["1"], keep
    (tensor([ True, False, False,  True]), Selection(2 of 4 channels removed, 50.0 % of multiply-adds left))
    """
    check_coupling(coupling)
    target = target_of(ratio, target_macs, target_params, target_latency, latency)
    network = Network(model)
    check_model(network)
    graph = analyse(network, example_input)
    scores = scores_of(model, score, partial(around.connections, network, graph))
    times = None if latency is None else latency(model, example_input, layers_left(graph, graph.everything))
    amount = Amount(ratio, target, floor, round_to, strict, most, times)
    if coupling == "scatter":
        graph = scattering_graph(network, graph, example_input, scores)
    return choose(network, graph, scores, coupling, amount, example_input)


@torch.inference_mode(False)
def score_channels(
    model: nn.Module, score: Score, example_input: Any = None, batches: Iterable[Any] = (), seed: int = 0
) -> Scores:
    """What a score says of a network, for ``select_channels(..., score=...)``: for scores that look at data.

    Args:
        model: left as it was.
        score: method/scoring/ has some.
        example_input: as for ``select_channels``; only a score with ``needs_connections`` needs it.
        batches: each as the network's forward takes it.
        seed: of what is drawn at random.

    Raises:
        ValueError: a model that does not run, or scores that do not fit it.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    >>> score_channels(model, Magnitude()).unit
    '|γ|'
    """
    network = Network(model)
    check_model(network)
    found = around.connections(network, analyse(network, example_input)) if needs_connections(score) else {}
    return evaluate(score, model, batches, seed, found)


@torch.inference_mode(False)
def channel_macs(model: nn.Module, example_input: Any) -> dict[str, Tensor]:
    """BN name -> the multiply-adds that the model saves with each of its channels alone, shape (C,), for the input.

    Those of what makes the channel, of what reads it, and of all that must be removed with it.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Conv2d(2, 5, 1))
    >>> channel_macs(model, torch.randn(1, 1, 6, 6))  # 16 positions: 9 multiply-adds for it, 5 with it
    {'1': tensor([224., 224.], dtype=torch.float64)}
    """
    network = Network(model)
    return around.channel_macs(analyse(network, example_input))


@torch.inference_mode(False)
def mask(model: Model, keep: Mapping[str, Tensor]) -> Model:
    """A copy of the model with γ = β = 0 on the removed channels: same size, and what ``slim`` is compared with.

    Args:
        keep: BN name -> bool tensor (C,), True where the channel is kept.

    Raises:
        ValueError: an unknown name, a mask of the wrong shape or type, or a model that cannot be slimmed as it is.
    """
    network = Network(model)
    check_model(network)
    check_keep(network, keep)
    return emit.emit(network, emit.Changes(), keep)  # type: ignore[return-value]


@torch.inference_mode(False)
@_collector_paused()
def slim(
    model: Model,
    keep: Mapping[str, Tensor] | None = None,
    example_input: Any = None,
    *,
    scatter: bool = False,
    **amount: Any,
) -> Model:
    """A new, smaller network that computes what ``mask(model, keep)`` computes. `model` is left alone.

    Same classes and forward code, a plain nn.Module in the same mode, dtype and device. Equal to the masked network in
    eval mode, and in training as long as the masked network's removed γ, β are held at 0. A BN layer that reads a
    stream that others read too gets an index selection in front, one that writes only a part of its stream may get a
    scatter behind it: a module around the layer, in its place, with a buffer ``channel_index`` or ``channel_place``.

    Args:
        keep: BN name -> bool tensor (C,), as from ``select_channels``, or one's own; layers not named stay whole.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.
        amount: instead of keep, what ``select_channels`` is to be asked for: ratio, target_macs, coupling...
        scatter: let layers write parts of their streams. Default False: only if ``select_channels`` chose with
            coupling="scatter"; what a stream needs is carried along otherwise.

    Raises:
        ValueError: an unknown name or wrong shape in keep, a model that cannot be slimmed as it is (checks.py), or one
        that does not run on the example input; or both keep and an amount.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> slim(net, ratio=0.5, example_input=torch.randn(1, 3, 8, 8))[0]
    Conv2d(3, 2, kernel_size=(1, 1), stride=(1, 1))
    """
    if keep is not None and amount:
        raise ValueError(f"give either keep or {', '.join(amount)}: the channels of keep are chosen already")
    network = Network(model)
    if keep is None:
        keep = select_channels(model, example_input=example_input, **amount)
    check_model(network)
    check_keep(network, keep)
    return write(network, _proved(network, keep, example_input, scatter), keep)  # type: ignore[return-value]


@torch.inference_mode(False)
@_collector_paused()
def slim_in_place(
    model: nn.Module,
    keep: Mapping[str, Tensor],
    example_input: Any,
    *,
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
    scatter: bool = False,
) -> None:
    """``slim``, of the model itself, in the middle of a training: modules and parameters stay the same objects.

    What an optimiser knows of a parameter (momentum, moments) is cut with it, so the training goes on as that of the
    masked network does whose removed γ, β and their momentum are held at 0. Gradients are dropped.

    Args:
        keep, example_input, scatter: as for ``slim``.
        optimizers: those that train the model.
        copies: networks of the same shapes, such as averages of its weights, that are cut with it.

    Raises:
        ValueError: as ``slim``; or an optimiser whose state has other shapes than the parameters (Adafactor), or a copy
            of something else. Nothing has been changed then.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> weight = net[0].weight
    >>> slim_in_place(net, {"1": torch.tensor([True, False, True, False])}, torch.randn(1, 3, 8, 8))
    >>> net[0].weight is weight, weight.shape
    (True, torch.Size([2, 3, 1, 1]))
    """
    network, given, others = Network(model), list(optimizers), [Network(each) for each in copies]
    check_model(network)
    check_keep(network, keep)
    check_copies(network, others)
    changes = _proved(network, keep, example_input, scatter).changes
    cuts, masks = parameter_cuts(network, changes), masked_parameters(network, keep)
    for optimizer in given:
        check_state(optimizer, cuts.keys() | masks.keys())
    for optimizer in given:
        cut_state(optimizer, cuts, masks)
    made = plan.make(network, changes)
    for each in (network, *others):
        cut_in_place(each, changes, keep)
        plan.carry(each.model, made)


def _proved(network: Network, keep: Mapping[str, Tensor], example_input: Any, scatter: bool) -> Proved:
    """What a network slimmed to `keep` consists of: found with the selection, or now."""
    proof = keep.proof if isinstance(keep, Selection) else None
    if proof is not None and proof.holds(network, keep, example_input):
        return proof.proved
    scattering = keep.scattering if isinstance(keep, Selection) else {}
    graph = analyse(network, example_input, scattering)
    if scatter and not scattering:
        graph = scattering_graph(network, graph, example_input, Magnitude()(network.model))
    return prove(network, graph, keep, example_input)

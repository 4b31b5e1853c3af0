"""The engine's public functions: choose channels, mask them, cut them out.

record (recorder.py) -> run the rules (graph.py, rules.py, ids.py) -> who can leave (coupling.py, ../threshold.py)
                                                               -> what must stay (demand.py) -> cut (emit.py)
                                                               -> prove (replay.py) -> remember (plan.py)
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from netslim.engine.checks import check_coupling, check_keep, check_model
from netslim.engine.cut import emit
from netslim.engine.cut.savings import predicted, savings
from netslim.engine.decide.coupling import Units, sample, units
from netslim.engine.decide.liveness import solve
from netslim.engine.graph.graph import Each, Graph
from netslim.engine.graph.streams import can_scatter
from netslim.engine.verify.analyse import Proof, analyse, build
from netslim.engine.verify.prove import Frozen, prove, untested, write
from netslim.method.threshold import is_number, threshold
from netslim.modules import bn_layers

Model = TypeVar("Model", bound=nn.Module)


class Selection(dict[str, Tensor]):
    """The channels to keep: BN name -> bool tensor (C,), with what led to them.

    asked: the ratio. prunable: BN channels that could leave; removed: those that do; carried: those of them that still
    take a place in the slim network (grouped convolutions need equally many channels per group, layers at least one).
    delivered: share of the prunable "channels", of all "parameters" and of the "macs" that the slim network is without.
    `removed` rises with the ratio; so does `delivered`, except where parts of a tensor that the code splits or shuffles
    must stay equally wide: what holds them at one ratio need not at another.
    held_back: for the other BN channels, what holds them -> how many ("coupled": their residual stream is written by
    others too; an operation; or that the layer was not run).
    scattering: BN layers that may write only some channels of their streams -> the modules whose hooks do it.
    """

    scattering: Mapping[str, str] = MappingProxyType({})
    asked: float
    prunable: int
    removed: int
    carried: int
    delivered: dict[str, float]
    held_back: dict[str, int]
    proof: Proof | None = None  # for slim()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files hold no network."""
        return {name: value for name, value in vars(self).items() if name != "proof"}


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
    floor: int = 1,
    coupling: str = "keep",
    round_to: int = 1,
) -> Selection:
    """Choose the channels that stay: one global threshold on |γ| over all prunable BN layers (paper, section 3).

    Args:
        model: any module with BN layers; it is run once on the example input and left as it was.
        ratio: share of the prunable channels to remove, in [0, 1).
        target_macs: instead of ratio: share of the multiply-adds that may stay, in (0, 1]; the smallest ratio that gets
            there is found by bisection.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.
        floor: channels that every layer keeps at least.
        coupling: "keep" prunes BN layers that write their channels alone, and leaves residual streams whole; exactly
            floor(ratio·N) channels go where each is a layer's own. "group" also prunes streams that several BN layers
            write: they lose a channel together, ranked by the largest |γ| in it. "scatter" prunes every BN layer for
            itself, in streams too, which stay as wide as all their writers need: a layer that lost channels is
            followed by a scatter into zeros (a buffer ``channel_place`` and a forward hook).
        round_to: round the kept count of every layer up to a multiple, e.g. 8.

    Returns:
        A dict, BN name -> bool tensor (C,), True where the channel stays; one entry per prunable BN layer, in
        registration order. What leaves only grows with ratio. See ``Selection`` for its attributes.

    Raises:
        ValueError: no BN layer is prunable, a bad argument, a ratio or target out of reach, or the model does not run
        on the example input.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    >>> model[1].weight.data = torch.tensor([0.5, -0.1, 0.0, 0.9])
    >>> select_channels(model, ratio=0.5, example_input=torch.randn(1, 3, 8, 8))
    {'1': tensor([ True, False, False,  True])}
    """
    check_coupling(coupling)
    if (ratio is None) == (target_macs is None):
        raise ValueError("give either ratio or target_macs")
    check_model(model)
    scales = _scales(model)
    dependencies = analyse(model, example_input)
    if coupling == "scatter":
        dependencies = _scattering(model, dependencies, example_input)

    def choose(found: Units) -> Selection:
        def at(share: float) -> dict[str, Tensor]:
            return threshold(found.score, share, floor=floor, groups=found.number, round_to=round_to)

        prunable = sum(int((number >= 0).sum()) for number in found.number.values())
        asked = ratio if target_macs is None else _ratio_for(target_macs, dependencies, prunable, at)
        assert asked is not None
        selection = Selection(at(asked))
        selection.scattering = dependencies.scattering
        selection.asked, selection.prunable, selection.held_back = asked, prunable, found.held_back
        selection.removed = sum(int((~stays).sum()) for stays in selection.values())
        return selection

    found = units(dependencies, scales, coupling)
    selection = choose(_removable(model, found, coupling))
    proved = prove(model, dependencies, selection, example_input)
    if proved.frozen or untested(dependencies, proved.exist, found.number):
        found, frozen = _effective_units(model, dependencies, scales, coupling, example_input)
        if frozen:
            selection = choose(_removable(model, found, coupling))
            proved = prove(model, dependencies, selection, example_input)
    selection.carried = sum(
        int((proved.exist[flow.out] & ~selection[flow.norm]).sum())
        for flow in dependencies.flows.values()
        if isinstance(flow, Each) and flow.norm in selection
    )
    channels = (selection.removed - selection.carried) / selection.prunable
    cut = proved.changes.cut
    selection.delivered = {"channels": channels, **savings(model, dependencies, proved.exist, cut)}
    selection.proof = Proof(model, selection, example_input, dependencies, proved)
    return selection


def _effective_units(
    model: nn.Module, dependencies: Graph, scales: Mapping[str, Tensor], coupling: str, example_input: Any
) -> tuple[Units, Frozen]:
    """The units that leave for real: a try with 40 % of every layer shows which a size in the code holds.

    Not needed where a selection is proved and has tested every operation that could hold such a size.
    """
    frozen: Frozen = []
    while True:
        found = units(dependencies, scales, coupling, frozen)
        tried = prove(model, dependencies, sample(found), example_input, frozen)
        if len(tried.frozen) == len(frozen):
            return found, frozen
        frozen = tried.frozen


def _scales(model: nn.Module) -> dict[str, Tensor]:
    return {name: layer.weight.detach().cpu() for name, layer in bn_layers(model).items()}


def _scattering(model: nn.Module, dependencies: Graph, example_input: Any) -> Graph:
    """The graph in which the BN layers that could not lose all their channels otherwise scatter, where that saves more
    than their own γ and β: their input must be theirs alone."""
    scales = _scales(model)
    free = _effective_units(model, dependencies, scales, "keep", example_input)[0].number
    held = {name for name in scales if name not in free or bool((free[name] < 0).any())}
    owners = {name: owner for name, owner in can_scatter(dependencies).items() if name in held}
    scattered = build(model, dependencies.tape, owners)
    useful = {name: owner for name, owner in owners.items() if name not in scattered.sources}
    return build(model, dependencies.tape, useful) if len(useful) < len(owners) else scattered


def _removable(model: nn.Module, found: Units, coupling: str) -> Units:
    if not found.score:
        held = ", ".join(f"{n} by {why}" for why, n in found.held_back.items())
        remedy = "" if coupling == "scatter" else "; coupling='scatter' prunes layers that others hold back"
        raise ValueError(
            f"no BatchNorm layer of {type(model).__name__} can lose channels ({held} with {coupling=}){remedy}"
        )
    return found


def _ratio_for(
    target: float, dependencies: Graph, prunable: int, choose: Callable[[float], dict[str, Tensor]]
) -> float:
    """The smallest k/N whose slim network has at most `target` of the multiply-adds."""
    if not (is_number(target) and 0 < target <= 1):
        raise ValueError(f"target_macs must be in (0, 1], got {target!r}")

    def macs(k: int) -> float:
        return predicted(dependencies, solve(dependencies, choose(k / prunable)).exist)

    dense = macs(0)
    low, high, best, allowed = 0, prunable - 1, 1.0, target * dense
    while low < high:
        k = (low + high) // 2
        try:
            left = macs(k)
        except ValueError:  # the floor: fewer channels can leave
            high = k
            continue
        low, high = (low, k) if left <= allowed else (k + 1, high)
        best = min(best, left / dense)
    try:
        reached = macs(low) <= allowed
    except ValueError:
        reached = False
    if not reached:
        raise ValueError(f"target_macs {target:g} is out of reach: at least {best:.3f} of the multiply-adds stay")
    return low / prunable


@torch.inference_mode(False)
def mask(model: Model, keep: Mapping[str, Tensor]) -> Model:
    """A copy of the model with γ = β = 0 on the removed channels: same size, and what ``slim`` is compared with.

    Args:
        keep: BN name -> bool tensor (C,), True where the channel stays.

    Raises:
        ValueError: an unknown name, a mask of the wrong shape or type, or a model that cannot be slimmed as it is.
    """
    check_model(model)
    check_keep(model, keep)
    return emit.emit(model, emit.Changes(), keep)


@torch.inference_mode(False)
@_collector_paused()
def slim(model: Model, keep: Mapping[str, Tensor], example_input: Any, *, scatter: bool = False) -> Model:
    """A new, smaller network that computes what ``mask(model, keep)`` computes. `model` is left alone.

    Same classes and forward code, a plain nn.Module in the same mode, dtype and device. Equal to the masked network in
    eval mode, and in training as long as the masked network's removed γ, β are held at 0. A BN layer that reads a
    stream that others read too gets an index selection in front (a buffer ``channel_index`` and a forward pre-hook);
    one that writes only a part of its stream may get a scatter behind it (``channel_place`` and a forward hook).

    Args:
        keep: BN name -> bool tensor (C,), as from ``select_channels``, or one's own; layers not named stay whole.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments of the model's forward.
        scatter: let layers write parts of their streams. Default False: only if ``select_channels`` chose with
            coupling="scatter"; what a stream needs is carried along otherwise.

    Raises:
        ValueError: an unknown name or wrong shape in keep, a model that cannot be slimmed as it is (checks.py), or one
        that does not run on the example input.
    """
    check_model(model)
    check_keep(model, keep)
    proof = keep.proof if isinstance(keep, Selection) else None
    scattering = keep.scattering if isinstance(keep, Selection) else {}
    if proof is not None and proof.holds(model, keep, example_input):
        return write(model, proof.proved, keep)
    dependencies = analyse(model, example_input, scattering)
    if scatter and not scattering:
        dependencies = _scattering(model, dependencies, example_input)
    return write(model, prove(model, dependencies, keep, example_input), keep)

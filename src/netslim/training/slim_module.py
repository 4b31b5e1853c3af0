"""From a trained LightningModule to one with a smaller network, and what it costs and loses (section 3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from netslim.engine import Selection, select_channels, slim
from netslim.engine import rescale as rescale_network
from netslim.measure.cost import count
from netslim.method.batches import arguments
from netslim.training.measuring import Bench, Runnable
from netslim.training.module_copy import given_back, with_network, without_what_cannot_be_copied

Result = dict[str, Any]


def slim_module(
    module: LightningModule,
    bench: Bench,
    *,
    network: str = "",
    example_input: Any = None,
    recalibration_batches: int = 100,
    reconstruct: int = 0,
    rescale: bool = False,
    **options: Any,
) -> tuple[LightningModule, Result]:
    """A copy of the module with a smaller network, BatchNorm statistics re-estimated, and what was measured.

    Args:
        module: trained; left as it is.
        bench: measures: ``IdleBench(trainer, data, "test")``.
        network, example_input, recalibration_batches, reconstruct, rescale: as for ``Slimming``.
        options: ratio or a target, floor, coupling, round_to, score: as for ``select_channels``.

    Returns:
        the module, and the ``result`` of ``Slimming``.
    """
    dense = bench.metrics(module)
    example = example_for(module, network, example_input, lambda: bench.batch(module))
    small, result = cut(module, network, example, **options)
    result["dense"]["metrics"] = dense
    result["slim"]["metrics"] = bench.metrics(small)
    if recalibration_batches:
        bench.recalibrate(small, callable_on_batches(small, network)[0], recalibration_batches, example)
    result["recalibrated"] = {"metrics": bench.metrics(small)}
    if reconstruct:
        result["reconstructed"] = reconstructed(bench, small, module, network, 0, reconstruct, example)
        if recalibration_batches:
            bench.recalibrate(small, callable_on_batches(small, network)[0], recalibration_batches, example)
        result["reconstructed"]["metrics"] = bench.metrics(small)
    if rescale:
        result["rescaled"] = rescaled(small, network, example)
        result["rescaled"]["metrics"] = bench.metrics(small)
    return small, result


def reconstructed(
    bench: Bench, small: LightningModule, dense: LightningModule, network: str, through: int, images: int, example: Any
) -> Result:
    """Fit the slim network to the dense one; what the report of that says, as plain data."""

    def runnable(module: LightningModule) -> Runnable:
        return Runnable(module, module.get_submodule(network), callable_on_batches(module, network)[through])

    report = bench.reconstruct(runnable(small), runnable(dense), images, example)
    layers = {name: [fitted.before, fitted.after] for name, fitted in report.layers.items()}
    return {"layers": layers, "skipped": report.skipped, "images": report.images, "seconds": report.seconds}


def rescaled(small: LightningModule, network: str, example: Any) -> Result:
    """Rescale the slim network; which layers by what, and which are left."""
    done = rescale_network(small.get_submodule(network), example)
    return {"factors": dict(done), "left": done.left}


def cut(module: LightningModule, network: str, example: Any, **options: Any) -> tuple[LightningModule, Result]:
    """A copy of the module with a smaller network, and what of ``Slimming.result`` is known without data."""
    dense: nn.Module = module.get_submodule(network)
    if not network:
        dense, attributes = without_what_cannot_be_copied(module)
    with torch.no_grad():
        keep = select_channels(dense, example_input=example, **options)
        small = slim(dense, keep, example_input=example)
    before, after = count(dense, example_input=example), count(small, example_input=example)
    result = {
        **_selection_summary(keep),
        "uncounted": before.uncounted,
        **({"at_floor": keep.at_floor} if keep.at_floor else {}),
        **({"predicted": keep.predicted} if keep.predicted else {}),
        "dense": {"params": before.params, "macs": before.macs},
        "slim": {"params": after.params, "macs": after.macs},
    }
    if network:
        return with_network(module, network, small), result
    assert isinstance(small, LightningModule)
    given_back(module, small, attributes)
    return small, result


def example_for(module: LightningModule, network: str, given: Any, batch: Callable[[], Any]) -> Any:
    """The example input of the network: what was given, the module's own, or one sample of a batch."""
    part = module.get_submodule(network)
    example = module.example_input_array if given is None else given
    if example is None:
        example = _first_sample(part, batch())
    weight = next(part.parameters())

    def fit(tensor: Tensor) -> Tensor:  # the trainer's precision may have changed the network
        return tensor.to(weight.device, weight.dtype if tensor.is_floating_point() else tensor.dtype)

    return tree_map_only(Tensor, fit, example)


def _first_sample(network: nn.Module, batch: Any) -> Any:
    """MACs are those of one image."""
    positional, named = arguments(network, list(batch) if type(batch) is tuple else batch)
    example = named or (positional[0] if len(positional) == 1 else positional)
    sizes = {len(leaf) if isinstance(leaf, Tensor) and leaf.ndim else 0 for leaf in tree_leaves(example)}
    return tree_map_only(Tensor, lambda tensor: tensor[:1], example) if len(sizes) == 1 and 0 not in sizes else example


def callable_on_batches(module: LightningModule, network: str) -> list[nn.Module]:
    """What can be called on a batch: the module, where it says how, and its network."""
    defines = type(module).forward is not LightningModule.forward or "forward" in vars(module)
    return [module] * defines + [module.get_submodule(network)] * bool(network)


def _selection_summary(keep: Selection) -> Result:
    scores = keep.scores
    assert scores is not None, "select_channels ranked them"
    removed = torch.cat([scores.value[name][~kept.cpu()] for name, kept in keep.items()])
    return {
        "threshold": removed.max().item() if len(removed) else 0.0,
        "unit": scores.unit,
        "removed": len(removed),
        "prunable": sum(len(kept) for kept in keep.values()),
        "layers": [{"name": name, "channels": len(kept), "kept": int(kept.sum())} for name, kept in keep.items()],
    }

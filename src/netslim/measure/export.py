"""A network as files that are used without netslim, each run in its own runtime and compared before it is written."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from netslim import files
from netslim.measure.formats.format import Format, Run
from netslim.measure.formats.int8 import quantised
from netslim.measure.formats.onnx import ONNX
from netslim.measure.formats.pt2 import PT2
from netslim.measure.formats.safetensors import SAFETENSORS
from netslim.measure.formats.torchscript import TORCHSCRIPT
from netslim.measure.latency import repeated
from netslim.modules import call, tensors_in

INT8 = "int8"
FORMATS = {"onnx": ONNX, "pt2": PT2, "torchscript": TORCHSCRIPT, "safetensors": SAFETENSORS}


@dataclass(frozen=True)
class Exported:
    """A file. deviation: the largest absolute difference of its outputs, in its runtime, from the network's. agreement,
    of int8: the share of images of which the largest output is the same."""

    format: str
    path: Path
    runtime: str
    deviation: float
    agreement: float | None = None

    def __str__(self) -> str:
        same = "" if self.agreement is None else f", and name the same class for {self.agreement:.1%} of images"
        return f"wrote {self.path}; {self.runtime}'s outputs deviate by {self.deviation:.1e} at most{same}"


def check_formats(formats: Sequence[str]) -> None:
    """Raise before anything is computed.

    Raises:
        ValueError: an unknown format.
        ModuleNotFoundError: a package that a format needs is not installed.

    >>> check_formats(["onx"])
    Traceback (most recent call last):
    ValueError: 'onx' is no export format; there are onnx, pt2, torchscript, safetensors
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"{name!r} is no export format; there are {', '.join(FORMATS)}")
        FORMATS[name].check_installed()


def export(
    network: nn.Module,
    example_input: Any,
    folder: str | os.PathLike[str],
    formats: Sequence[str] = ("onnx",),
    *,
    name: str = "slim",
    tolerance: float = 1e-4,
) -> list[Exported]:
    """Write a network in each format, with a free batch size, after running the file in its runtime.

    Args:
        network: any network; a copy of it is exported, in eval mode, on the CPU.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; dimension 0 of every tensor is
            the batch.
        folder: where the files are written: `name` with the suffix of the format.
        formats: of ``FORMATS``: "onnx", "pt2" (torch.export), "torchscript", "safetensors" (the tensors alone).
        tolerance: the largest deviation that is accepted, relative to the largest output; default 1e-4.

    Returns:
        One ``Exported`` per format, in that order.

    Raises:
        ValueError: an unknown format; a network that branches on values, or that a format cannot hold.
        ModuleNotFoundError: a package that a format needs is not installed.
        ArithmeticError: a file computes something else. It is not written.
    """
    check_formats(formats)
    model = copy.deepcopy(network).cpu().eval()
    x = tree_map_only(Tensor, Tensor.cpu, example_input)
    if any(FORMATS[form].program for form in formats):
        _check_branches(model, x)
    return [_export(model, x, Path(folder) / name, form, tolerance) for form in formats]


def _export(model: nn.Module, x: Any, path: Path, name: str, tolerance: float) -> Exported:
    form = FORMATS[name]
    file = written(model, x, name)
    run = form.open(file, copy.deepcopy(model))
    deviation = max(deviation_of(run, model, fresh, form, tolerance) for fresh in fresh_inputs(x))
    target = path.with_name(path.name + form.suffix)
    files.write_bytes(target, file)
    return Exported(name, target, form.runtime, deviation)


def written(model: nn.Module, example_input: Any, name: str) -> bytes:
    """The file; a batch of one would be taken for a constant.

    Raises:
        ValueError: the format cannot hold the network.
    """
    try:
        return FORMATS[name].write(model, repeated(example_input, 2))
    except Exception as error:  # exporters raise a dozen types, with pages of text
        raise ValueError(f"{type(model).__name__} cannot be written as {name}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause: exporters wrap it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    if "Constraints violated (batch)" in str(error):
        return "its code holds for one batch size only; take sizes from the tensor, as x.shape[0]"
    if "data-dependent" in str(error):
        return "what it computes depends on the values of a tensor as Python sees them (.item(), float(), nonzero)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def fresh_inputs(example_input: Any) -> list[Any]:
    """The example, and inputs of its mean and spread that no exporter has seen: batches of one and three."""
    generator = torch.Generator().manual_seed(0)

    def fresh(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
        spread = tensor.std() if tensor.numel() > 1 and tensor.std() > 0 else torch.ones((), dtype=tensor.dtype)
        return noise * spread + tensor.mean()

    batches = [repeated(example_input, size) for size in (1, 3)]
    return [example_input, *(tree_map_only(Tensor, fresh, batch) for batch in batches)]


def deviation_of(run: Run, model: nn.Module, x: Any, form: Format, tolerance: float) -> float:
    """The largest absolute difference between the outputs of a file and of the network.

    Raises:
        ArithmeticError: it is more than `tolerance` of the largest output.
    """
    with torch.no_grad():
        expected = tensors_in(call(model, x))
    deviation = 0.0
    for ours, theirs in zip(expected, run(x), strict=True):
        largest, scale = float((ours - theirs).abs().max()), float(ours.abs().max())
        if not largest <= tolerance * scale:  # NaN is not either
            raise ArithmeticError(
                f"{form.runtime} deviates from PyTorch by {largest:.2g} where the largest output is"
                f" {scale:.2g}; accepted is {tolerance:g} of it"
            )
        deviation = max(deviation, largest)
    return deviation


class _Truths(TorchFunctionMode):
    """Where code asks whether a tensor is true."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "__bool__":
            code = sys._getframe(1)
            self.places.append(f"{Path(code.f_code.co_filename).name}:{code.f_lineno}")
        return func(*args, **(kwargs or {}))


def _check_branches(model: nn.Module, x: Any) -> None:
    with torch.no_grad(), _Truths() as truths:
        call(model, x)
    if truths.places:
        raise ValueError(
            f"{type(model).__name__} branches on the values of a tensor ({truths.places[0]}), and a file holds one way "
            "only: write the branch with torch.where, or export the part without it"
        )


def export_int8(network: nn.Module, file: Path, batches: Sequence[Any], *, tolerance: float = 0.5) -> Exported:
    """An ONNX file of ``export`` once more, with 8 bits: ``slim.onnx`` as ``slim.int8.onnx``.

    Args:
        network: what the file was made of.
        batches: images of the training, as the network takes them. All but the last set the ranges of the activations;
            on the last the file is compared with the network.
        tolerance: the largest deviation that is accepted, root mean square, as a share of that of the outputs.

    Raises:
        ValueError: fewer than two batches.
        ArithmeticError: 8 bits are not enough for this network. The file is not written.
    """
    if len(batches) < 2:
        raise ValueError(f"int8 needs two batches at least, one to calibrate and one to check, got {len(batches)}")
    model = copy.deepcopy(network).cpu().eval()
    *given, fresh = [tree_map_only(Tensor, Tensor.cpu, batch) for batch in batches]
    made = quantised(file.read_bytes(), given)
    with torch.no_grad():
        expected = tensors_in(call(model, fresh))[0]
    got = ONNX.open(made, model)(fresh)[0]
    share = float((got - expected).norm() / expected.norm())
    if not share <= tolerance:
        raise ArithmeticError(
            f"8 bits are not enough for {type(network).__name__}: the outputs deviate by {share:.0%}, accepted is "
            f"{tolerance:.0%}; calibrate on more images, or leave out --int8"
        )
    path = file.with_suffix(".int8.onnx")
    files.write_bytes(path, made)
    same = (got.flatten(1).argmax(1) == expected.flatten(1).argmax(1)).float().mean()
    return Exported(INT8, path, f"{ONNX.runtime}, int8", float((got - expected).abs().max()), float(same))


def to_onnx(model: nn.Module, example_input: Any, path: str | os.PathLike[str], *, tolerance: float = 1e-4) -> float:
    """``export`` of one ONNX file under a name of one's own. Returns the deviation."""
    path = Path(path)
    name = path.name.removesuffix(ONNX.suffix)
    (file,) = export(model, example_input, path.parent, ["onnx"], name=name, tolerance=tolerance)
    return file.deviation

"""A slim network out of the door: ONNX, checked against ONNX Runtime, and its cost beside the dense network's.

    netslim-export outputs/lab4_digits/job_lambda=0.001_ratio=0.5_seed=0

builds the dense network of a finished job from its settings, cuts it as recorded, writes ``slim.onnx`` beside
``slim.pt`` and prints parameters, MACs and latency of both. Settings name the class that is built, so give folders that
you trust.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netslim import artifacts, files
from netslim.cost import count
from netslim.environment import hardware
from netslim.latency import latency, repeated, set_threads
from netslim.slim import load
from netslim.slim.tape import call, tensors_in

MENDABLE = (ValueError, OSError, ModuleNotFoundError, ArithmeticError, HydraException, torch.onnx.OnnxExporterError)


def to_onnx(model: nn.Module, example_input: Any, path: str | os.PathLike[str], *, tolerance: float = 1e-4) -> float:
    """Write a network as ONNX with a dynamic batch size, after running it in ONNX Runtime.

    Args:
        model: any network, on the CPU; exported in eval mode and left as it was.
        example_input: a tensor, a tuple of positional or a dict of keyword arguments; dimension 0 of every tensor is
            the batch.
        path: one file, weights included. It is written only if the outputs agree.
        tolerance: the largest deviation that is accepted, relative to the largest output; default 1e-4.

    Returns:
        The largest absolute deviation from PyTorch's outputs, on the example and on batches of one and three.

    Raises:
        ModuleNotFoundError: the extra ``onnx`` is not installed.
        ArithmeticError: ONNX Runtime computes something else.
        torch.onnx.OnnxExporterError: PyTorch cannot export the network.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  torch.onnx needs it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"ONNX needs the package {error.name}: pip install 'netslim[onnx]'") from None
    model = copy.deepcopy(model).eval()
    traced = repeated(example_input, 2)  # a batch of one would be taken for a constant
    args = traced if isinstance(traced, tuple) else () if isinstance(traced, dict) else (traced,)
    kwargs = traced if isinstance(traced, dict) else {}
    size = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*axis name: batch will not be used")  # one batch for all inputs, as meant
        program = torch.onnx.export(
            model,
            args,
            kwargs=kwargs,
            dynamic_shapes=tree_map_only(Tensor, lambda _: {0: size}, kwargs or args),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    file = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    checked = (example_input, repeated(example_input, 1), repeated(example_input, 3))
    deviation = max(_deviation(session, model, x, tolerance) for x in checked)
    files.write_bytes(Path(path), file)
    return deviation


def _deviation(session: Any, model: nn.Module, x: Any, tolerance: float) -> float:
    names = [given.name for given in session.get_inputs()]
    feed = dict(zip(names, tensors_in(x), strict=True))
    with torch.no_grad():
        expected = tensors_in(call(model, x))
    got = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    deviation = 0.0
    for ours, theirs in zip(expected, got, strict=True):
        largest = float((ours - torch.from_numpy(theirs)).abs().max())
        if not largest <= tolerance * float(ours.abs().max()):  # NaN is not either
            raise ArithmeticError(
                f"ONNX Runtime deviates from PyTorch by {largest:.2g} where the largest output is"
                f" {float(ours.abs().max()):.2g}; accepted is {tolerance:g} of it"
            )
        deviation = max(deviation, largest)
    return deviation


def compare(dense: nn.Module, small: nn.Module, example_input: Any, *, seconds: float = 2.0) -> str:
    """A Markdown table: parameters, MACs per image and latency at batches of 1 and 64, dense beside slim.

    The last column is how many times less the slim network takes, so the speed-up stands below the ratio of the MACs.
    """
    one = repeated(example_input, 1)
    costs = [count(model, one) for model in (dense, small)]
    rows: list[tuple[str, str, list[float]]] = [
        ("parameters", "{:,}", [cost.params for cost in costs]),
        ("MACs", "{:,}", [cost.macs for cost in costs]),
    ]
    for batch in (1, 64):
        times = [latency(model, one, batch=batch, seconds=seconds) for model in (dense, small)]
        rows.append((f"latency in ms, batch of {batch}, median", "{:.2f}", [time.median for time in times]))
        rows.append((f"latency in ms, batch of {batch}, p90", "{:.2f}", [time.p90 for time in times]))
    lines = ["| | dense | slim | dense / slim |", "| --- | ---: | ---: | ---: |"]
    for name, form, (large, little) in rows:
        lines.append(f"| {name} | {form.format(large)} | {form.format(little)} | {large / little:.2f}× |")
    if costs[0].uncounted:
        lines += ["", f"Not counted in the MACs: {', '.join(costs[0].uncounted)}"]
    return "\n".join(lines)


def rebuild(folder: Path) -> tuple[nn.Module, nn.Module, Path, Any]:
    """The networks of a finished job, slim or fine-tune stage.

    Returns:
        dense (trained), slim (fine-tuned where the job is), the folder of the slim one, the settings of the training.

    Raises:
        ValueError: the folder is none of these, or damaged.
    """
    record = _record(folder)
    if not record.keys() & {"stage", "slim"}:
        raise ValueError(f"{folder}/record.json was not written by netslim; give the folder of a finished job")
    if "stage" not in record:  # a job
        folder = folder.parent / (record["finetune"] or record["slim"])
        record = _record(folder)
    if record["stage"] == "train":
        raise ValueError(f"{folder} holds a dense network; give the folder of a job, a slim or a finetune stage")
    before = record if record["stage"] == "slim" else _record(folder.parent / record["slim"])
    trained = folder.parent / before["train"]
    settings, weights = files.read_json(trained / "settings.json"), files.read_tensors(trained / "weights.pt")
    classes = (artifacts.finished(trained) or {}).get("classes") or _classes(weights)
    dense = instantiate(settings["net"], num_classes=classes)
    try:
        dense.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{trained}/weights.pt does not fit {settings['net']['_target_']}: {error}") from error
    return dense.eval(), load(folder / "slim.pt", dense).eval(), folder, settings


def _record(folder: Path) -> files.Record:
    record = artifacts.finished(folder)
    if record is None:
        raise ValueError(f"no record.json in {folder}; give the folder of a finished job, slim or finetune stage")
    return record


def _classes(weights: dict[str, Tensor]) -> int:
    """A guess, where no record tells: a network ends with its classifier, whose bias has one number per class."""
    return next(len(tensor) for tensor in reversed(weights.values()) if tensor.dim())


def _example(settings: Any, shape: str | None) -> Tensor:
    if shape:
        sizes = [int(size) for size in shape.split(",") if size.isdigit()]
        if len(sizes) != 3:
            raise ValueError(f"--input {shape} is not C,H,W; give it as in --input 3,32,32")
        return torch.randn(1, *sizes)
    try:
        return torch.randn(1, *instantiate(settings["data"]).image_shape)
    except (OSError, ValueError, HydraException) as error:
        raise ValueError(
            f"the data does not tell the input's shape, so give it, as in --input 3,32,32 ({error})"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 and the table on stdout, or 2 and one line on stderr."""
    parser = argparse.ArgumentParser(prog="netslim-export", description="A slim network as ONNX, and what it costs.")
    parser.add_argument("folder", type=Path, help="of a finished job, slim or finetune stage: outputs/<name>/job_...")
    parser.add_argument("--out", type=Path, help="the ONNX file; default slim.onnx beside slim.pt")
    parser.add_argument("--input", metavar="C,H,W", help="shape of one image; default that of the training's data")
    parser.add_argument("--threads", type=int, help="CPU threads; default PyTorch's")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each latency, default 2")
    options = parser.parse_args(arguments)
    try:
        dense, small, folder, settings = rebuild(options.folder)
        example = _example(settings, options.input)
        out = options.out or folder / "slim.onnx"
        deviation = to_onnx(small, example, out)
        with set_threads(options.threads):
            print(f"{folder.name}: {settings['net']['_target_']}, input {tuple(example.shape[1:])}; {hardware()}\n")
            print(compare(dense, small, example, seconds=options.seconds))
        print(f"\nwrote {out}; ONNX Runtime's outputs deviate by {deviation:.1e} at most")
    except MENDABLE as error:
        print(f"netslim-export: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A slim network out of the door: files that need no netslim, each checked in its runtime, and what they cost.

    netslim-export outputs/lab4_digits/job_lambda=0.001_ratio=0.5_seed=0 --format onnx,pt2 --int8

builds the dense network of a finished job from its settings, cuts it as recorded, writes ``slim.onnx`` and its like
beside ``slim.pt`` and prints parameters, MACs and latency, also in the runtimes of the files, dense beside slim. The
settings of a folder can call the networks and data sets of netslim, torchvision and timm, and what ``--trust`` names;
a folder from somebody else runs no code of theirs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netslim import files
from netslim.experiment.networks import inputs
from netslim.launch import trusted
from netslim.measure.compare import SECOND_BATCH, beside, compare
from netslim.measure.environment import hardware
from netslim.measure.export import FORMATS, INT8, Exported, check_formats, export, export_int8
from netslim.measure.formats.format import Run
from netslim.measure.latency import set_threads
from netslim.slim_file import load

FIXABLE = (ValueError, OSError, ModuleNotFoundError, ArithmeticError, torch.onnx.OnnxExporterError)


def rebuild(folder: Path, trust: Collection[str] = ()) -> tuple[nn.Module, nn.Module, Path, Any]:
    """The networks of a finished job, slim or fine-tune stage.

    Args:
        trust: what the settings may call beside the networks and data sets of netslim, torchvision and timm.

    Returns:
        dense (trained, unless it got smaller in its training), slim (fine-tuned where the job is), the folder of the
        slim one, the settings of the training.

    Raises:
        ValueError: the folder is none of these, or damaged, or its settings name what may not be called.
    """
    record = _record(folder)
    if not record.keys() & {"stage", "slim"}:
        raise ValueError(f"{folder}/record.json was not written by netslim; give the folder of a finished job")
    if "stage" not in record:  # a job
        folder = folder.parent / (record["finetune"] or record["slim"] or record["train"])
        record = _record(folder)
    if record["stage"] == "train" and "cut" not in record:
        raise ValueError(f"{folder} holds a dense network; give the folder of a job, a slim or a finetune stage")
    trained = _training(folder, record)
    settings = files.read_json(trained / "settings.json")
    dense = _dense(trained, settings, trust)
    return dense.eval(), load(folder / "slim.pt", dense).eval(), folder, settings


def _training(folder: Path, record: files.Record) -> Path:
    """The folder of the training that a stage comes from."""
    while record["stage"] != "train":
        folder = folder.parent / record["train" if record["stage"] == "slim" else "slim"]
        record = _record(folder)
    return folder


def _dense(trained: Path, settings: Any, trust: Collection[str]) -> nn.Module:
    """The dense network with what it learnt; with new weights where it got smaller while it learnt."""
    record = _record(trained)
    if "cut" in record:
        return _network(trained, settings, trust, record["classes"])
    weights = files.read_tensors(trained / "weights.pt")
    dense = _network(trained, settings, trust, record.get("classes") or _classes(weights))
    try:
        dense.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{trained}/weights.pt does not fit {settings['net']['_target_']}: {error}") from error
    return dense


def _record(folder: Path) -> files.Record:
    if not (folder / "record.json").exists():
        raise ValueError(f"no record.json in {folder}; give the folder of a finished job, slim or finetune stage")
    record = files.read_json(folder / "record.json")
    if not isinstance(record, dict):
        raise ValueError(f"{folder}/record.json was not written by netslim; give the folder of a finished job")
    return record


def _network(trained: Path, settings: Any, trust: Collection[str], classes: int) -> nn.Module:
    try:
        network = trusted.construct(settings["net"], trust, num_classes=classes)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{trained}/settings.json describes no network ({error!r})") from None
    if not isinstance(network, nn.Module):
        raise ValueError(f"{trained}/settings.json describes a {type(network).__name__}, not a network")
    return network


def _classes(weights: dict[str, Tensor]) -> int:
    """A guess, where no record tells: a network ends with its classifier, whose bias has one number per class."""
    return next(len(tensor) for tensor in reversed(weights.values()) if tensor.dim())


def _example(settings: Any, shape: str | None, trust: Collection[str]) -> Tensor:
    if shape:
        sizes = [int(size) for size in shape.split(",") if size.isdigit()]
        if len(sizes) != 3:
            raise ValueError(f"--input {shape} is not C,H,W; give it as in --input 3,32,32")
        return torch.randn(1, *sizes)
    try:
        return torch.randn(1, *trusted.construct(settings["data"], trust).image_shape)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"the data does not tell the input's shape, so give it, as in --input 3,32,32 ({error})"
        ) from error


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "A slim network as files that need no netslim, and what it costs."
    parser = argparse.ArgumentParser(prog="netslim-export", description=about)
    parser.add_argument("folder", type=Path, help="of a finished job, slim or finetune stage: outputs/<name>/job_...")
    formats = f"of {', '.join(FORMATS)}, several with commas between; default onnx"
    parser.add_argument("--format", default="onnx", metavar="NAMES", help=formats)
    eight = "the ONNX file in 8 bits too, calibrated on training images"
    parser.add_argument("--int8", action="store_true", help=eight)
    parser.add_argument("--out", type=Path, help="the files' name; default slim beside slim.pt, with a suffix for each")
    parser.add_argument("--input", metavar="C,H,W", help="shape of one image; default that of the training's data")
    parser.add_argument("--threads", type=int, help="CPU threads; default PyTorch's")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each latency, default 2")
    second = f"the second batch size at which latency is measured, beside 1; default {SECOND_BATCH}"
    parser.add_argument("--batch", type=int, default=SECOND_BATCH, help=second)
    trust = "a class or function that the settings may call, such as my.module.Net; may be given several times"
    parser.add_argument("--trust", metavar="NAME", action="append", default=[], help=trust)
    return parser.parse_args(arguments)


def _check(options: argparse.Namespace) -> list[str]:
    """The formats, before anything is computed."""
    formats = [name.strip() for name in options.format.split(",")]
    check_formats(formats)
    if options.int8 and "onnx" not in formats:
        raise ValueError("--int8 makes its file of the ONNX file: give --format onnx, too")
    for name, value in (("threads", options.threads), ("batch", options.batch)):
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more, got {value}")
    return formats


def _files(small: nn.Module, example: Tensor, name: Path, options: argparse.Namespace, settings: Any) -> list[Exported]:
    """Written, each after a check."""
    made = export(small, example, name.parent, _check(options), name=name.name)
    if options.int8:
        (onnx,) = [file.path for file in made if file.format == "onnx"]
        made.append(export_int8(small, onnx, _calibration(settings, options.trust, small)))
    return made


def _calibration(settings: Any, trust: Collection[str], network: nn.Module, batches: int = 8) -> list[Any]:
    """Training batches, prepared as in the training."""
    try:
        images = trusted.construct(settings["data"], trust)
        images.prepare_data()
        images.setup("fit")
        return list(inputs(images, network, batches))
    except (OSError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--int8 needs the images of the training, and cannot read them ({error})") from error


def _runtimes(dense: nn.Module, small: nn.Module, example: Tensor, made: list[Exported]) -> dict[str, tuple[Run, Run]]:
    """Runtime -> what runs the dense network there, and the slim file."""
    found = {f"{file.runtime}{', dense in 32 bits' * (file.format == INT8)}": file for file in made}
    return {name: runs for name, file in found.items() if (runs := beside(dense, small, example, file))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 and the table on stdout, or 2 and one line on stderr."""
    options = _options(arguments)
    try:
        _check(options)
        dense, small, folder, settings = rebuild(options.folder, options.trust)
        example = _example(settings, options.input, options.trust)
        name = options.out or folder / "slim"
        name = name.with_suffix("") if name.suffix in {form.suffix for form in FORMATS.values()} else name
        with set_threads(options.threads):
            made = _files(small, example, name, options, settings)
            runtimes = _runtimes(dense, small, example, made)
            print(f"{folder.name}: {settings['net']['_target_']}, input {tuple(example.shape[1:])}; {hardware()}\n")
            print(compare(dense, small, example, seconds=options.seconds, batch=options.batch, runtimes=runtimes))
        print("", *made, sep="\n")
    except FIXABLE as error:
        print(f"netslim-export: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

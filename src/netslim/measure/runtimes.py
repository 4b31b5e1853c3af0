"""What a latency is measured in: PyTorch itself, ONNX Runtime, OpenVINO; a network there, and a layer alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from netslim.engine import LayerShape
from netslim.measure import one_layer
from netslim.measure.export import written
from netslim.measure.formats.format import Run
from netslim.measure.formats.onnx import open_in_runtime
from netslim.modules import call, tensors_in


@dataclass(frozen=True)
class Runtime:
    """A way to run networks on the CPU, with as many threads as PyTorch uses.

    title: its name in tables. packages: what must be installed; the last one's version is the runtime's. extra: what
    installs them. network(model, example_input): what runs a copy of the network. layer(shape): what runs such a layer
    with the BatchNorm and ReLU that follow a convolution, as the runtime has them.
    """

    title: str
    network: Callable[[nn.Module, Any], Run]
    layer: Callable[[LayerShape], Run]
    packages: tuple[str, ...]
    extra: str = ""

    @property
    def version(self) -> str:
        return f"{self.title} {version(self.packages[-1])}"

    def check_installed(self) -> None:
        """Raises ValueError, with the remedy, where a package is missing."""
        for package in self.packages:
            try:
                import_module(package)
            except ModuleNotFoundError:
                remedy = f"pip install 'netslim[{self.extra}]'"
                raise ValueError(f"{self.title} is not installed (no package {package}): {remedy}") from None


def check_runtime(name: str) -> str:
    """The name of a runtime that can be used here.

    Raises:
        ValueError: there is none of that name, or it is not installed.

    >>> check_runtime("onnxx")
    Traceback (most recent call last):
    ValueError: 'onnxx' is no runtime; there are eager, onnx, openvino
    """
    if name not in RUNTIMES:
        raise ValueError(f"{name!r} is no runtime; there are {', '.join(RUNTIMES)}")
    RUNTIMES[name].check_installed()
    return name


def _eager(model: nn.Module) -> Run:
    def run(x: Any) -> list[Tensor]:
        with torch.inference_mode():
            return tensors_in(call(model, x))

    return run


def _copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).cpu().float().eval()


def _eager_network(model: nn.Module, _: Any) -> Run:
    return _eager(_copy(model))


def _eager_layer(shape: LayerShape) -> Run:
    return _eager(one_layer.module(shape))


def _from_onnx(open_file: Callable[[bytes], Run], model: nn.Module, example_input: Any) -> Run:
    x = tree_map_only(Tensor, Tensor.cpu, example_input)
    return open_file(written(_copy(model), x, "onnx"))


def _layer_from_onnx(open_file: Callable[[bytes], Run], shape: LayerShape) -> Run:
    return open_file(one_layer.onnx_file(shape))


def _open_in_openvino(file: bytes) -> Run:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(file), "CPU", options)

    def run(x: Any) -> list[Tensor]:
        return [torch.from_numpy(out) for out in compiled([t.numpy() for t in tensors_in(x)]).values()]

    return run


def _of_onnx(title: str, open_file: Callable[[bytes], Run], packages: tuple[str, ...], extra: str) -> Runtime:
    return Runtime(title, partial(_from_onnx, open_file), partial(_layer_from_onnx, open_file), packages, extra)


RUNTIMES = {
    "eager": Runtime("PyTorch", _eager_network, _eager_layer, ("torch",)),
    "onnx": _of_onnx("ONNX Runtime", open_in_runtime, ("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "openvino": _of_onnx("OpenVINO", _open_in_openvino, ("onnx", "onnxscript", "openvino"), "openvino"),
}

"""What a file format is for netslim: two functions on bytes, and what has to be installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

Run = Callable[[Any], list[Tensor]]  # an example input -> all tensors that come out


@dataclass(frozen=True)
class Format:
    """A kind of file that is used without netslim.

    suffix: of the file's name. runtime: what runs it. packages: what must be installed. extra: what installs them.
    write(network, example_input): the file. The network is in eval mode on the CPU, the batch of the example is two.
    open(file, network): what runs the file, on as many threads as PyTorch uses; the network is a copy to fill, for
    files that hold the tensors alone (program=False).
    """

    suffix: str
    runtime: str
    write: Callable[[nn.Module, Any], bytes]
    open: Callable[[bytes, nn.Module], Run]
    packages: tuple[str, ...] = ()
    extra: str = ""
    program: bool = True

    def check_installed(self) -> None:
        """Raises ModuleNotFoundError, with the remedy, where a package is missing."""
        for package in self.packages:
            try:
                import_module(package)
            except ModuleNotFoundError as error:
                name = self.suffix.removeprefix(".").upper()
                raise ModuleNotFoundError(f"{name} needs the package {error.name}: {self._remedy(package)}") from None

    def _remedy(self, package: str) -> str:
        return f"pip install 'netslim[{self.extra}]'" if self.extra else f"pip install {package}"


def arguments(example_input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the network's forward."""
    if isinstance(example_input, dict):
        return (), example_input
    return (example_input if isinstance(example_input, tuple) else (example_input,)), {}


def free_batch(example_input: Any) -> Any:
    """``dynamic_shapes`` of torch.export: dimension 0 of every tensor is the batch, of any size."""
    args, kwargs = arguments(example_input)
    size = torch.export.Dim("batch", min=1)
    return tree_map_only(Tensor, lambda _: {0: size}, kwargs or args)

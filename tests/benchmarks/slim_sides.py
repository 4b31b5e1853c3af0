"""The sides of slim_vs_torch_pruning.py: networks of torchvision, and the tools that make them smaller.

Each network has random weights, signed γ in 0.3..1.3, β that counts, and BN statistics of its own input. Which channels
a tool kept is read off its result, the same way for all: before, running_mean numbers the channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

import netslim

NETWORKS = (
    "vgg11_bn,vgg13_bn,vgg16_bn,vgg19_bn,resnet18,resnet50,resnext50_32x4d,wide_resnet50_2,densenet121,mobilenet_v2,"
    "mobilenet_v3_small,mobilenet_v3_large,mnasnet1_0,efficientnet_b0,efficientnet_v2_s,regnet_y_400mf,regnet_x_400mf,"
    "shufflenet_v2_x1_0,googlenet,inception_v3"
)
Tool = Callable[[nn.Module, float, Tensor], nn.Module]  # (network, ratio, input) -> smaller; the network may be used up
Marks = dict[str, Tensor]  # BN name -> bool (C,)


def slimmed(model: nn.Module, ratio: float, x: Tensor, *, coupling: str) -> nn.Module:
    keep = netslim.select_channels(model, ratio=ratio, example_input=x, coupling=coupling)
    return netslim.slim(model, keep, example_input=x)


def torch_pruning_side(model: nn.Module, ratio: float, x: Tensor) -> nn.Module:
    import torch_pruning

    pruner = torch_pruning.pruner.BNScalePruner(
        model,
        x,
        importance=torch_pruning.importance.BNScaleImportance(),
        global_pruning=True,
        pruning_ratio=ratio,
        ignored_layers=[m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000],
    )
    pruner.step()
    return model


TOOLS: dict[str, Tool] = {
    "group": partial(slimmed, coupling="group"),  # residual streams too, as Torch-Pruning does
    "keep": partial(slimmed, coupling="keep"),  # netslim's default
    "scatter": partial(slimmed, coupling="scatter"),
    "torch_pruning": torch_pruning_side,
}


def build(name: str) -> nn.Module:
    """A network of torchvision, without randomness in its forward pass."""
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **more)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    for bn in netslim.bn_layers(model).values():
        sign = 1.0 - 2.0 * (torch.rand_like(bn.weight) < 0.3)
        bn.weight.data = (0.3 + torch.rand_like(bn.weight)) * sign
        nn.init.normal_(bn.bias, std=0.3)
    return model.eval()


def shrink(tool: Tool, model: nn.Module, ratio: float, x: Tensor) -> tuple[nn.Module, Marks]:
    """The smaller network, and the channels that are in place there with a γ other than 0."""
    numbered, dense = copy.deepcopy(model), netslim.bn_layers(model)
    for bn in netslim.bn_layers(numbered).values():
        bn.running_mean = torch.arange(len(bn.weight), dtype=bn.weight.dtype)
    small = tool(numbered, ratio, x)
    kept = {name: torch.zeros(len(bn.weight), dtype=torch.bool) for name, bn in dense.items()}
    for name, bn in netslim.bn_layers(small).items():
        numbers = bn.running_mean.long()
        kept[name][numbers[bn.weight != 0]] = True
        bn.running_mean = dense[name].running_mean[numbers].clone()
    return small, kept


def set_zero(model: nn.Module, marks: Marks) -> nn.Module:
    """γ = β = 0 on the marked channels."""
    layers = netslim.bn_layers(model)
    for name, marked in marks.items():
        layers[name].weight.data[marked] = 0.0
        layers[name].bias.data[marked] = 0.0
    return model

"""Blocks as published networks write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Forward = Callable[..., Tensor]


class Block(nn.Module):
    """Layers by name, and a function of them and the input."""

    def __init__(self, forward: Forward, **layers: Any) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(c: int, d: int, kernel: int = 1, **more: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, d, kernel, padding=kernel // 2, **more), nn.BatchNorm2d(d), nn.ReLU())


def scale(x: Tensor, by: Tensor) -> Tensor:
    return x * torch.sigmoid(by)


def attention(m: Any, x: Tensor) -> Tensor:
    q, k, v = m.q(x).flatten(2), m.k(x).flatten(2), m.v(x).flatten(2)
    return x + (v @ torch.softmax(q.transpose(1, 2) @ k, -1)).view(len(x), -1, *x.shape[2:])


def context(m: Any, x: Tensor) -> Tensor:
    weights = m.k(x).flatten(2).softmax(-1)[..., None]  # (N, 1, HW, 1)
    return x * torch.sigmoid(m.f((x.flatten(2)[:, None] @ weights)[:, 0, ..., None]))


def bilinear(m: Any, x: Tensor) -> Tensor:
    return m.p(x).softmax(-1) @ m.a(x) + x[:, :1]


def selective(m: Any, x: Tensor) -> Tensor:
    u = torch.stack([m.a(x), m.b(x)], 1)
    w = m.f(u.sum(1).mean((2, 3))).view(len(x), 2, -1).softmax(1)
    return (u * w[:, :, :, None, None]).sum(1)


def res2(m: Any, x: Tensor) -> Tensor:
    a, b, c = torch.split(m.a(x), m.width, 1)
    b = m.b(a + b)
    return torch.cat([a, b, m.c(b + c)], 1)


def csp(m: Any, x: Tensor) -> Tensor:
    a, b = m.a(x).chunk(2, 1)
    return torch.cat((a, m.b(b)), 1)


def mlp(m: Any, x: Tensor) -> Tensor:
    t = m.a(x.permute(0, 2, 3, 1))
    t = m.n(t.flatten(0, 2)).view(t.shape)
    return x + m.b(F.gelu(t)).permute(0, 3, 1, 2)


def standardised(m: Any, x: Tensor) -> Tensor:
    w = m.conv.weight
    return F.conv2d(x, (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 0.1), padding=1)


def flat(m: Any, x: Tensor) -> Tensor:
    y = x.flatten(1)
    return (y + F.relu(m.n(y))).view(x.shape)


def set_first(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, 0] = 0
    return x


BLOCKS: dict[str, Callable[[int], Block]] = {
    "convolution": lambda c: Block(lambda m, x: m.a(x), a=conv(c, 8, 3, bias=False)),
    "depthwise": lambda c: Block(lambda m, x: m.a(x), a=conv(c, c, 3, groups=c, bias=False)),
    "prelu": lambda c: Block(lambda m, x: m.p(x), p=nn.PReLU(c)),
    "squeeze": lambda c: Block(
        lambda m, x: scale(x, m.b(F.relu(m.n(m.a(x.mean((2, 3))))))[:, :, None, None]),
        a=nn.Linear(c, 6), n=nn.BatchNorm1d(6), b=nn.Linear(6, c),
    ),
    "spatial": lambda c: Block(
        lambda m, x: scale(x, m.a(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1))),
        a=nn.Conv2d(2, 1, 3, padding=1),
    ),
    "eca": lambda c: Block(
        lambda m, x: scale(x, m.a(x.mean((2, 3))[:, None])[:, 0, :, None, None]), a=nn.Conv1d(1, 1, 3, padding=1)
    ),
    "attention": lambda c: Block(attention, q=conv(c, 4), k=nn.Conv2d(c, 4, 1), v=nn.Conv2d(c, c, 1)),
    "context": lambda c: Block(
        context, k=nn.Conv2d(c, 1, 1), f=nn.Sequential(conv(c, 4), nn.Conv2d(4, c, 1))
    ),
    "bilinear": lambda c: Block(bilinear, p=nn.Conv2d(c, c, 3, padding=1), a=conv(c, c)),
    "mixer": lambda c: Block(
        lambda m, x: m.b(x + m.n(F.gelu(m.a(x)))), a=nn.Conv2d(c, c, 3, padding=1, groups=c), n=nn.BatchNorm2d(c),
        b=nn.Sequential(nn.Conv2d(c, c, 1), nn.GELU(), nn.BatchNorm2d(c)),
    ),
    "selective": lambda c: Block(selective, a=conv(c, 8), b=conv(c, 8, 3), f=nn.Linear(8, 16)),
    "res2": lambda c: Block(res2, a=conv(c, 12), b=conv(4, 4, 3), c=conv(4, 4, 3), width=4),
    "csp": lambda c: Block(csp, a=conv(c, 8), b=conv(4, 4, 3)),
    "mlp": lambda c: Block(mlp, a=nn.Linear(c, 12), n=nn.BatchNorm1d(12), b=nn.Linear(12, c)),
    "standardised": lambda c: Block(standardised, conv=nn.Conv2d(c, 8, 3)),
    "matrix": lambda c: Block(
        lambda m, x: (x.permute(0, 2, 3, 1) @ m.a + m.b).permute(0, 3, 1, 2),
        a=nn.Parameter(torch.randn(c, 8)), b=nn.Parameter(torch.randn(8)),
    ),
    "matrix, outputs first": lambda c: Block(
        lambda m, x: x + (x.mean((2, 3)) @ m.a.T)[..., None, None], a=nn.Parameter(torch.randn(c, c))
    ),
    "matrix both ways": lambda c: Block(
        lambda m, x: x + (torch.relu(x.mean((2, 3)) @ m.a) @ m.a.t())[..., None, None],
        a=nn.Parameter(torch.randn(c, 6)),
    ),
    "layer norm": lambda c: Block(lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(c)),
    "group norm": lambda c: Block(lambda m, x: m.n(x), n=nn.GroupNorm(1, c)),
    "line norm": lambda c: Block(lambda m, x: m.n(x.flatten(2)).view_as(x), n=nn.BatchNorm1d(c)),
    "flat norm": lambda c: Block(flat, n=nn.BatchNorm1d(16 * c)),
    "glu": lambda c: Block(lambda m, x: F.glu(m.n(m.a(x)), 1), a=nn.Conv2d(c, 2 * c, 1), n=nn.BatchNorm2d(2 * c)),
    "twice": lambda c: Block(lambda m, x: m.a(m.a(x)), a=conv(c, c)),
    "pixels": lambda c: Block(lambda m, x: F.avg_pool2d(F.pixel_shuffle(m.a(x), 2), 2), a=conv(c, 16)),
    "pixels together": lambda c: Block(
        lambda m, x: F.interpolate(m.a(F.pixel_unshuffle(x, 2)), scale_factor=2), a=nn.Conv2d(4 * c, 8, 1)
    ),
    "position": lambda c: Block(lambda m, x: x + m.p, p=nn.Parameter(torch.randn(1, c, 4, 4))),
    "outer product": lambda c: Block(
        lambda m, x: x.mean(1, keepdim=True) * m.p, p=nn.Parameter(torch.randn(1, 8, 1, 1))
    ),
    "pre-activation": lambda c: Block(
        lambda m, x: x + m.b(m.a(F.relu(m.n(x)))), n=nn.BatchNorm2d(c), a=conv(c, 6), b=nn.Conv2d(6, c, 3, padding=1)
    ),
    "dense": lambda c: Block(
        lambda m, x: torch.cat([x, m.a(F.relu(m.n(x)))], 1), n=nn.BatchNorm2d(c), a=nn.Conv2d(c, 4, 3, padding=1)
    ),
}  # fmt: skip


EVEN: dict[str, Callable[[int], Block]] = {
    "shuffle": lambda c: Block(lambda m, x: F.channel_shuffle(m.a(x), 2), a=conv(c, c, 3, groups=2)),
    "transposed": lambda c: Block(
        lambda m, x: F.relu(m.n(m.a(x))), a=nn.ConvTranspose2d(c, 8, 3, padding=1, groups=2), n=nn.BatchNorm2d(8)
    ),
    "half": lambda c: Block(lambda m, x: torch.cat([x[:, : c // 2], F.relu(x[:, x.shape[1] // 2 :])], 1)),
    "turned": lambda c: Block(lambda m, x: x.reshape(len(x), 2, -1, *x.shape[2:]).flip(1).reshape(x.shape)),
    "every other": lambda c: Block(lambda m, x: torch.cat([x[:, ::2], x[:, 1::2]], 1)),
}


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised": lambda x: F.normalize(x, dim=1),
    "flipped": lambda x: x.flip(1),
    "rolled": lambda x: x.roll(1, 1),
    "chosen": lambda x: torch.where(x > 0, x, x * 0.1),
    "of the mean": lambda x: x / (x.mean(1, keepdim=True).abs() + 1),
    "softmax": lambda x: x * x.softmax(1),
    "indexed": lambda x: x[:, torch.arange(x.shape[1] - 1, -1, -1)],
    "width": lambda x: x * x.shape[1] ** -0.5,
    "gram": lambda x: torch.einsum("bchw,bdhw->bcd", x, x).mean(-1)[:, :, None, None] * x * 0.1,
    "sum": lambda x: x.cumsum(1),
    "without mean": lambda x: x - F.adaptive_avg_pool2d(x, 1),
    "first": lambda x: x * x[:, :1],
    "set": set_first,
    "responses": lambda x: F.local_response_norm(x, 3),
    "in place": lambda x: x.clone().mul_(2).add_(1),
    "doubled": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "expanded": lambda x: (x[:, :, None] * x.new_ones(1, 1, 2, 1, 1)).sum(2),
    "turned memory": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "masked": lambda x: x.masked_fill(x.mean(1, keepdim=True) > 0.1, 0.0),
    "masked apart": lambda x: x.masked_fill(x > 0.5, 0.25) + x.masked_fill(x < 0, torch.zeros(())),
    "chosen where the mean is": lambda x: torch.where(x.mean(1, keepdim=True) > 0.1, x, 0.0),
    "chosen number": lambda x: torch.where(x > 0, x, 0.5),
    "chosen zeros": lambda x: torch.where(x > 0.1, x, torch.zeros_like(x)) + torch.zeros_like(x).add_(x),
    "chosen by rows": lambda x: torch.where(torch.rand(x.shape[1], 1, 1) < 2, x, -x),
    "spread": lambda x: x * sum(torch.var_mean(x, (2, 3), keepdim=True)),
    "weighted pixels": lambda x: (
        x * torch.einsum("bchw,hw->bc", x, torch.ones(x.shape[2:]).cumsum(1).to(x))[..., None, None]
    ),
    "smoothed": lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 3, 1, 1).transpose(1, 2).view_as(x),
    "smoothed in images": lambda x: F.avg_pool2d(x.permute(0, 2, 3, 1), (1, 3), 1, (0, 1)).permute(0, 3, 1, 2),
    "largest around": lambda x: x * F.max_pool3d(x[:, None], 3, 1, 1)[:, 0].sigmoid(),
    "shifted": lambda x: F.pad(x, (0, 0, 0, 0, 1, -1)),
    "shifted, the end repeated": lambda x: F.pad(x.permute(0, 2, 3, 1), (1, -1, 0, 0), "replicate").permute(0, 3, 1, 2),
    "shifted in space": lambda x: F.pad(x, (1, -1, 0, 0)),
    "largest of two": lambda x: torch.stack([x, -x]).max(0).values,
    "pooled, ends too": lambda x: F.interpolate(F.max_pool2d(x, 3, 2, 1, ceil_mode=True), x.shape[2:]),
    "averaged, ends too": lambda x: F.interpolate(F.avg_pool2d(x, 3, 3, ceil_mode=True), x.shape[2:]),
    "largest": lambda x: x * (x >= x.topk(2, 1).values[:, -1:]),
}

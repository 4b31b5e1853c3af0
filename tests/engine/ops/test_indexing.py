"""Channels sliced, indexed, gathered and laid out in every spelling: the slim network is the masked one."""

import pytest
import torch
from torch import nn

import netslim

LINE = torch.arange(16)
BUFFERS = {
    "permutation": torch.tensor([5, 0, 9, 12, 1, 15, 3, 8, 2, 14, 7, 4, 11, 6, 13, 10]),
    "every second": torch.arange(0, 16, 2),
    "each twice": torch.arange(16).repeat(2),
    "from the end": torch.tensor([-1, -3, 2, 0]),
}

INDEXED = {  # of x (N, 16, H, W) and an index (k,)
    "index_select": lambda x, index: x.index_select(1, index % 16),
    "index_select of plain numbers": lambda x, index: torch.index_select(x, -3, index.remainder(16)),
    "x[:, index]": lambda x, index: x[:, index],
    "x[:, index, :, :]": lambda x, index: x[:, index, :, :],
    "x.transpose(0, 1)[index]": lambda x, index: x.transpose(0, 1)[index].transpose(0, 1),
    "gather": lambda x, index: x.gather(1, (index % 16)[None, :, None, None].expand(len(x), -1, *x.shape[2:])),
    "take_along_dim": lambda x, index: x.take_along_dim((index % 16)[None, :, None, None], 1),
    "take": lambda x, index: x.mean((2, 3)).flatten().take(
        (torch.arange(len(x))[:, None] * 16 + index % 16).flatten()
    ).reshape(len(x), -1, 1, 1),
    "a list": lambda x, index: x[:, index.tolist()],
    "on two dimensions": lambda x, index: x[torch.arange(len(x))[:, None], index],
    "index and slice": lambda x, index: x[:, index, 1:3, ::2],
}  # fmt: skip


def block(ins, outs):
    return nn.Sequential(nn.Conv2d(ins, outs, 3, padding=1), nn.BatchNorm2d(outs), nn.ReLU())


class Net(nn.Module):
    """16 channels, what the case does with them, and a layer that reads the result."""

    def __init__(self, act, **buffers):
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.first = block(3, 16)
        self.act = act
        out = self.middle(torch.randn(2, 3, 8, 8))
        self.second = block(out.shape[1], 12)
        self.head = nn.Linear(12, 5)

    def middle(self, x):
        y = self.act(self.first(x), **dict(self.named_buffers(recurse=False)))
        return y if y.dim() == 4 else y.reshape(len(y), -1, 1, 1)

    def forward(self, x):
        return self.head(self.second(self.middle(x)).mean((2, 3)))


def prove(oracle, model, x, couplings=("keep", "scatter")):
    oracle.lively(model, x)
    selections = []
    for coupling in couplings:
        selections.append(netslim.select_channels(model, 0.4, x, coupling=coupling))
        oracle.prove(model, selections[-1], x, train=False)
    return selections


@pytest.mark.parametrize("values", BUFFERS)
@pytest.mark.parametrize("how", INDEXED)
def test_an_index_that_is_a_buffer(how, values, oracle, images):
    prove(oracle, Net(INDEXED[how], index=BUFFERS[values]), images(8))


@pytest.mark.parametrize("how", INDEXED)
def test_an_index_that_is_computed(how, oracle, images):
    """Of the number of channels: x.shape[1] // 2 pairs in turn."""

    def act(x):
        return INDEXED[how](x, torch.arange(x.shape[1]).reshape(2, -1).t().flatten())

    prove(oracle, Net(act), images(8))


SPELLINGS = {
    "x[:, :8]": lambda x: x[:, :8],
    "x[:, 8:]": lambda x: x[:, 8:],
    "x[:, -4:]": lambda x: x[:, -4:],
    "x[:, 2:-2]": lambda x: x[:, 2:-2],
    "x[:, ::2]": lambda x: x[:, ::2],
    "x[:, 1::3]": lambda x: x[:, 1::3],
    "x[:, 3]": lambda x: x[:, 3:4] + x[:, 3][:, None],
    "x[:, -1]": lambda x: x[:, -1][:, None],
    "x[..., 0]": lambda x: x[..., 0][..., None],
    "x[:, [0, 5, 2]]": lambda x: x[:, [0, 5, 2]],
    "x[:, torch.tensor]": lambda x: x[:, torch.tensor([0, 5, 2])],
    "half by half": lambda x: torch.cat([x[:, x.shape[1] // 2 :], x[:, : x.shape[1] // 2]], 1),
    "a mask of numbers": lambda x: x[:, torch.arange(16) % 3 > 0],
    "narrow": lambda x: x.narrow(1, 4, 7),
    "select": lambda x: x.select(1, 4)[:, None],
    "chunk": lambda x: torch.cat(x.chunk(4, 1)[::2], 1),
    "split": lambda x: torch.cat(x.split(5, 1)[1:], 1),
    "split in a list": lambda x: torch.cat(x.split([3, 9, 4], 1)[:2], 1),
    "tensor_split": lambda x: torch.cat(x.tensor_split(3, 1)[1:], 1),
    "unbind": lambda x: torch.stack(x.unbind(1)[3:7], 1),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(3, 1),
    "movedim": lambda x: x.movedim(1, -1)[..., 2:9].movedim(-1, 1),
    "swapaxes": lambda x: x.swapaxes(1, 2).swapaxes(2, 1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "pixel_shuffle": lambda x: nn.functional.pixel_shuffle(x, 2),
    "channel_shuffle": lambda x: nn.functional.channel_shuffle(x, 4),
    "unfold": lambda x: x.unfold(1, 4, 4).sum(-1),
    "as_strided": lambda x: x.contiguous().as_strided((len(x), 8, 8, 8), (1024, 128, 8, 1)),
    "diagonal": lambda x: x.diagonal(dim1=2, dim2=3)[..., None],
    "masked_fill by channel": lambda x: x.masked_fill((torch.arange(x.shape[1]) % 4 == 0)[:, None, None], 0.0),
    "where by channel": lambda x: torch.where((torch.arange(16) % 4 == 0)[:, None, None], x, -x),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([1, 5]), 0.5),
    "index_add": lambda x: x.index_add(1, torch.tensor([1, 5]), x[:, 2:4]),
    "written in place": lambda x: (y := x.clone())[:, 2:5].mul_(2.0) is None or y,
    "set to a number": lambda x: setitem(x.clone(), (slice(None), slice(2, 5)), 0.5),
    "set at an index": lambda x: setitem(x.clone(), (slice(None), [2, 5]), 0.5),
    "set to others": lambda x: setitem(x.clone(), (slice(None), slice(2, 5)), x[:, 8:11]),
    "topk": lambda x: x.topk(4, 1).values,
    "indices of topk": lambda x: x.index_select(1, x.mean((0, 2, 3)).topk(4).indices),
    "sort": lambda x: x.sort(1).values,
    "cumsum": lambda x: x.cumsum(1),
    "argmax": lambda x: x + x.argmax(1, keepdim=True),
    "flatten": lambda x: x.flatten(1)[:, ::64],
    "view(N, -1)": lambda x: x.view(len(x), -1)[:, 64:256],
    "view(-1)": lambda x: x.mean((2, 3)).view(-1).view(len(x), -1),
    "flatten to one": lambda x: x.mean((2, 3)).flatten().reshape(len(x), 16),
    "ravel": lambda x: x.mean((2, 3)).ravel().unflatten(0, (len(x), 16)),
    "pairs": lambda x: x.view(len(x), -1, 2, *x.shape[2:]).sum(2),
    "pairs apart": lambda x: x.view(len(x), 8, 2, 8, 8)[:, :, 1],
    "one after the other": lambda x: torch.stack([x[:, ::2], x[:, 1::2]], 2).flatten(1, 2),
    "einsum": lambda x: torch.einsum("nchw,nchw->nc", x, x),
    "outer": lambda x: torch.einsum("nc,nd->ncd", x.mean((2, 3)), x.amax((2, 3))),
}


def setitem(x, where, value):
    x[where] = value
    return x


@pytest.mark.parametrize("how", SPELLINGS)
def test_channels_in_every_spelling(how, oracle, images):
    prove(oracle, Net(SPELLINGS[how]), images(8), ("keep", "group", "scatter"))


MASKS = {
    "x[:, mask]": lambda x, mask: x[:, mask],
    "x[:, mask.nonzero()]": lambda x, mask: x[:, mask.nonzero()[:, 0]],
    "x * mask": lambda x, mask: x * mask[:, None, None],
    "masked_fill": lambda x, mask: x.masked_fill(~mask[:, None, None], 0.0),
    "where": lambda x, mask: torch.where(mask[:, None, None], x, 0.5 * x),
    "index_select": lambda x, mask: x.index_select(1, mask.nonzero().flatten()),
    "masked_select": lambda x, mask: x.masked_select(mask[:, None, None]).view(len(x), -1, 8, 8),
}


@pytest.mark.parametrize("how", MASKS)
def test_a_mask_that_is_a_buffer(how, oracle, images):
    prove(oracle, Net(MASKS[how], mask=torch.arange(16) % 3 > 0), images(8))


POSITIONS = {
    "one of each channel": torch.arange(16) * 64 + 27,
    "the middle of four": torch.cat([c * 64 + torch.tensor([27, 28, 35, 36]) for c in range(4)]),
    "anywhere": torch.tensor([7, 900, 33, 500, 501, 64, 1023, 3, 700, 128]),
}


@pytest.mark.parametrize("values", POSITIONS)
def test_positions_of_flattened_maps(values, oracle, images):
    prove(oracle, Net(lambda x, index: x.flatten(1).index_select(1, index), index=POSITIONS[values]), images(8))


def test_an_index_that_is_used_twice(oracle, images):
    def act(x, index):
        return torch.cat([x.index_select(1, index), x[:, index + 1] * (index[:, None, None] % 2)], 1)

    prove(oracle, Net(act, index=torch.arange(3, 12)), images(8))


class OneImage(nn.Module):
    """A network for one image at a time, as in reinforcement learning."""

    def __init__(self, flat):
        super().__init__()
        self.flat = flat
        self.body = nn.Sequential(block(3, 16), block(16, 16), nn.AdaptiveAvgPool2d(1))
        self.value, self.policy = nn.Linear(8, 1), nn.Linear(8, 5)

    def forward(self, x):
        y = self.flat(self.body(x))
        return self.value(y[:8])[None], self.policy(y[8:])[None]


@pytest.mark.parametrize("flat", [lambda y: y.view(-1), torch.flatten, lambda y: y.reshape(16), torch.squeeze])
def test_one_dimension(flat, oracle, images):
    x = images(16)
    model = oracle.lively(OneImage(lambda y: y.mean(0).flatten()), x)
    model.flat = flat
    keep = netslim.select_channels(model, 0.3, x[:1])
    small, masked = netslim.slim(model, keep, x[:1]), netslim.mask(model, keep)
    for image in x.split(1):
        for mine, theirs in zip(small(image), masked(image), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


class Turned(nn.Module):
    """A column of weights, one per channel, that is turned before it is used."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Linear(16, 4)
        self.scale = nn.Parameter(torch.randn(16, 1))

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.first(x))) * self.scale.t())


def test_a_parameter_that_is_transposed_follows(oracle):
    x = torch.randn(6, 3, dtype=torch.float64)
    keep = netslim.select_channels(oracle.lively(Turned(), x), 0.5, x)
    small = oracle.prove(oracle.lively(Turned(), x), keep, x)
    assert small.scale.shape == (8, 1)

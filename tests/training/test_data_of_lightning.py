"""The ways to give data to Lightning: several loaders, streams, hooks, batches of every kind."""

from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass

import pytest
import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchvision.models.resnet import BasicBlock, ResNet

from tests.training.conftest import Case, check, loader, samples
from tests.training.modules_of_lightning import INPUTS, Plain


class SeveralVal(Plain):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)


class SeveralTrain(Plain):
    def training_step(self, batch, batch_idx):
        return sum(F.cross_entropy(self(x), y) for x, y in batch.values())


class MovesSeveral(SeveralTrain):
    """Its hook knows the training batch, one of each loader, and the validation batch."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return {name: [x + 1, y] for name, (x, y) in batch.items()} if isinstance(batch, dict) else batch


def mixup(picked):
    x, y = (torch.stack(part) for part in zip(*picked, strict=True))
    return 0.7 * x + 0.3 * x.flip(0), y, y.flip(0), 0.7


class Mixup(Plain):
    def training_step(self, batch, batch_idx):
        x, a, b, share = batch
        y = self(x)
        return share * F.cross_entropy(y, a) + (1 - share) * F.cross_entropy(y, b)


class Named(Plain):
    """Batches are dictionaries whose keys are forward's arguments, and more."""

    def __init__(self):
        super().__init__()
        self.mask = nn.Linear(6, 6)

    def forward(self, values, mask):
        return self.net(values * mask)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["values"], batch["mask"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx), batch_size=16)


class AnyName(Named):
    """As for HuggingFace's models: ``self(**batch)``."""

    def forward(self, **batch):
        y = self.net(batch["values"] * batch["mask"])
        return F.cross_entropy(y, batch["labels"]) if "labels" in batch else y

    def training_step(self, batch, batch_idx):
        return self(**batch)


class UnlikeForward(Named):
    """The keys are none of forward's arguments; the example tells which of them is the input."""

    def __init__(self):
        super().__init__()
        self.example_input_array = torch.zeros(2, 6)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["values"]), batch["labels"])


class WholeBatch(Plain):
    """forward takes the batch apart itself, and logs."""

    def forward(self, batch):
        self.log("spread", batch["values"].std(), batch_size=16)
        return self.net(batch["values"])

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch), batch["labels"])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx), batch_size=16)


def dictionary(picked):
    x, y = (torch.stack(part) for part in zip(*picked, strict=True))
    return {"labels": y, "values": x, "mask": torch.ones_like(x)}


def encoding(picked):
    return UserDict(dictionary(picked))


def without_mask(picked):
    return {name: part for name, part in dictionary(picked).items() if name != "mask"}


@dataclass
class Pair:
    x: Tensor
    y: Tensor


class OwnBatch(Plain):
    """A batch of a class of one's own, which the module moves and unpacks itself."""

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return [batch.x.to(device), batch.y.to(device)] if isinstance(batch, Pair) else batch


def pair(picked):
    return Pair(*(torch.stack(part) for part in zip(*picked, strict=True)))


class Augments(Plain):
    """Normalises every batch, and adds noise in training only."""

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        noise = torch.randn_like(x) if self.trainer.training else 0
        return x / 2 + noise, y


class Data(LightningDataModule):
    """Sets are there after setup; the hooks change the batches."""

    def setup(self, stage):
        if stage == "fit":
            self.train, self.val = samples(), samples(seed=2)
        if stage == "test":
            self.test = samples(seed=3)

    def train_dataloader(self):
        return DataLoader(self.train, 16)

    def val_dataloader(self):
        return DataLoader(self.val, 16)

    def test_dataloader(self):
        return DataLoader(self.test, 16)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] + 1, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 2, batch[1]


class OnTest(Plain):
    def test_step(self, batch, batch_idx):
        self.log("test/loss", F.cross_entropy(self(batch[0]), batch[1]))


class OwnLoaders(Plain):
    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(seed=2)


class Stream(IterableDataset):
    def __iter__(self):
        generator = torch.Generator().manual_seed(7)
        while True:
            x = torch.randn(6, generator=generator)
            yield x, x[:4].argmax()


class Sequences(Plain):
    """Convolutions over time; one input, and lengths that only the step needs."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 4))

    def forward(self, x):
        return self.net(x.unsqueeze(1))


class Pictures(Plain):
    """A network of torchvision."""

    def __init__(self):
        super().__init__()
        self.net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
        self.net.maxpool = nn.Identity()

    def forward(self, x):
        return self.net(x.view(-1, 1, 2, 3).repeat(1, 3, 4, 4))


def case(module, train=loader, val=lambda: loader(seed=2), **settings):
    return lambda: Case(module(), (train(), val()), **settings)


def by(collate):
    return {"train": lambda: loader(collate_fn=collate), "val": lambda: loader(seed=2, collate_fn=collate)}


MASKED = {"values": samples().tensors[0], "mask": torch.ones(32, 6)}
STREAMS = {"limit_train_batches": 2, "limit_val_batches": 2}

CASES = {
    "several validation loaders": case(SeveralVal, val=lambda: [loader(seed=2), loader(seed=3)], inputs=INPUTS),
    "named validation loaders": case(SeveralVal, val=lambda: {"a": loader(seed=2), "b": loader(seed=3)}),
    "several training loaders": case(SeveralTrain, lambda: {"a": loader(), "b": loader(seed=5)}),
    "combined loader": case(
        SeveralTrain, lambda: CombinedLoader({"a": loader(), "b": loader(seed=5)}, "max_size_cycle")
    ),
    "a hook for several training loaders": case(
        MovesSeveral,
        lambda: {"a": loader(), "b": loader()},
        inputs=[x + 1 for x in INPUTS],
        slimming={"recalibration_batches": 4},
    ),
    "loaders of unlike lengths": case(
        SeveralTrain,
        lambda: {"a": loader(), "b": DataLoader(samples(16), 16)},
        inputs=[*INPUTS, *2 * [samples(16).tensors[0]]],
        slimming={"recalibration_batches": 4},
    ),
    "mixup": case(Mixup, lambda: loader(collate_fn=mixup), inputs=[0.7 * x + 0.3 * x.flip(0) for x in INPUTS]),
    "dictionaries": case(Named, **by(dictionary), inputs=INPUTS, x=MASKED),
    "batch encodings": case(Named, **by(encoding), inputs=INPUTS, x=MASKED),
    "any name": case(AnyName, **by(dictionary), inputs=INPUTS, x=MASKED),
    "keys unlike forward": case(UnlikeForward, **by(without_mask), inputs=INPUTS),
    "forward takes the batch": case(
        WholeBatch,
        **by(without_mask),
        inputs=INPUTS,
        oracle="net",
        slimming={"example_input": ({"values": torch.zeros(2, 6)},)},
    ),
    "batches of one's own class": case(OwnBatch, **by(pair), inputs=INPUTS),
    "hook of the module": case(Augments, inputs=[x / 2 for x in INPUTS]),
    "hooks of the data module": lambda: Case(Plain(), (Data(),), inputs=[2 * (x + 1) for x in INPUTS]),
    "test split": lambda: Case(
        OnTest(), (Data(),), inputs=[2 * (x + 1) for x in INPUTS], slimming={"split": "test"}, same_metrics=False
    ),
    "loaders of the module": lambda: Case(OwnLoaders(), (), inputs=INPUTS),
    "streams without an end": case(
        Plain, lambda: DataLoader(Stream(), 16), lambda: DataLoader(Stream(), 16), trainer=STREAMS
    ),
    "sequences": case(Sequences),
    "torchvision": case(Pictures),
    "shuffled": case(Plain, lambda: loader(shuffle=True)),
    "pinned order": case(Plain, lambda: loader(shuffle=True, generator=torch.Generator().manual_seed(3))),
    "a worker that stays": case(Plain, lambda: loader(num_workers=1, persistent_workers=True), inputs=INPUTS),
}


@pytest.mark.parametrize("name", CASES)
def test_slimming_at_the_end_of_the_fit(name):
    check(CASES[name]())

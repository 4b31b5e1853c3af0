"""Slimming with data loaders in all forms that Lightning's fit takes, and modules that keep what they computed."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import netslim


class Module(LightningModule):
    """Keeps its losses and features, as for a log at the end of the epoch."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4))
        self.kept, self.last, self.by_name = [], None, {}

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        batches = list(batch.values()) if isinstance(batch, dict) else batch if isinstance(batch[0], list) else [batch]
        self.last = sum(F.cross_entropy(self(images), labels) for images, labels in batches)
        self.kept.append(self.last)
        self.by_name["loss"] = self.last
        return self.last

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("error", (self(batch[0]).argmax(1) != batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OneLoader(Module):
    """Its validation step takes no number of a loader."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)


def loader(seed, n=32):
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(torch.randn(n, 1, 6, 6, generator=generator), torch.arange(n) % 4), 8)


def fit(module, train, val, tmp_path, **options):
    slimming = netslim.Slimming(0.5, recalibration_batches=8)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", callbacks=[slimming], default_root_dir=tmp_path, **quiet, **options)
    trainer.fit(module, train, val)
    return slimming


@pytest.mark.parametrize(
    "several",
    [
        lambda a, b: {"a": a, "b": b},
        lambda a, b: [a, b],
        lambda a, b: CombinedLoader({"a": a, "b": b}, "max_size_cycle"),
    ],
)
def test_several_training_loaders(several, tmp_path):
    """The statistics are those over all of them: mean over batches of the mean, and of the variance, of each batch."""
    a, b = loader(0), loader(1)
    module = OneLoader()
    small = fit(module, several(a, b), loader(2), tmp_path, max_epochs=1).slimmed
    with torch.no_grad():
        batches = [small.net[0](images) for part in (a, b) for images, _ in part]
        means, variances = ([f(x) for x in batches] for f in (lambda x: x.mean((0, 2, 3)), lambda x: x.var((0, 2, 3))))
    torch.testing.assert_close(small.net[1].running_mean, torch.stack(means).mean(0))
    torch.testing.assert_close(small.net[1].running_var, torch.stack(variances).mean(0))


@pytest.mark.parametrize("val", [lambda: [loader(2)], lambda: [loader(2), loader(3)], lambda: {"x": loader(2)}])
def test_lists_of_validation_loaders(val, tmp_path):
    slimming = fit(Module(), loader(0), val(), tmp_path, max_epochs=1)
    assert slimming.slimmed.net[0].out_channels == 4
    assert slimming.result["slim"]["metrics"].keys() == slimming.result["dense"]["metrics"].keys() != set()


def test_the_first_validation_may_be_ahead(tmp_path):
    slimming = fit(
        Module(), loader(0), loader(2), tmp_path, max_epochs=2, num_sanity_val_steps=0, check_val_every_n_epoch=2
    )
    assert slimming.slimmed.net[0].out_channels == 4


def test_what_a_module_keeps_is_copied_without_its_history(tmp_path):
    module = Module()
    small = fit(module, loader(0), loader(2), tmp_path, max_epochs=1).slimmed
    assert len(small.kept) == len(module.kept) == 4
    assert small.last is small.kept[-1] is small.by_name["loss"]
    assert small.last == module.last
    assert small.last.is_leaf
    assert not module.last.is_leaf

"""Folders of images that workers read. Oracles: Pillow and torchvision's transforms on its images; another loader."""

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

import netslim
from netslim.data import FolderData, image_folder
from netslim.experiment.networks import inputs

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
SETTINGS = {"mean": MEAN, "std": STD, "batch_size": 4, "image_size": 14, "memory_limit": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of 8 training and 4 test photos of 40 × 30."""
    root, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                small = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
                small.resize((40, 30), Image.Resampling.BICUBIC).save(root / part / name / f"{i}.jpg", quality=90)
    return root


def data(root, **settings) -> FolderData:
    return image_folder(str(root), **{**SETTINGS, "num_workers": 0, **settings})


def epoch(loader, number):
    loader.sampler.set_epoch(number)
    return torch.cat([images for images, _ in loader])


def test_bytes_are_sent_and_the_device_makes_numbers_of_them(root):
    module = data(root)
    (batch, *_) = module.test_dataloader()
    assert batch[0].dtype == torch.uint8
    images, labels = module.on_after_batch_transfer(batch, 0)
    transform = v2.Compose([v2.Resize(16), v2.CenterCrop(14)])  # of Pillow's image, with Pillow's resizing
    paths = sorted((root / "test").glob("*/*"))
    expected = np.stack([np.asarray(transform(Image.open(path))) for path in paths]).transpose(0, 3, 1, 2) / 255
    off = np.abs(images.numpy() * np.reshape(STD, (3, 1, 1)) + np.reshape(MEAN, (3, 1, 1)) - expected).max() * 255
    assert off < 1.01  # of 255 grey values
    assert labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("count", [1, 2])
def test_workers_that_stay_give_every_epoch_as_it_is_without_them(root, count, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    kept, fresh = data(root, num_workers=count).train_dataloader(), data(root).train_dataloader()
    assert kept.num_workers == count
    epochs = [epoch(kept, number) for number in (0, 1)]
    workers = [worker.pid for worker in kept._iterator._workers]
    epochs.append(epoch(kept, 2))
    assert [worker.pid for worker in kept._iterator._workers] == workers
    for number, images in enumerate(epochs):
        assert torch.equal(images, epoch(fresh, number))
    assert len({images.float().mean().item() for images in epochs}) == 3


def test_drawing_for_an_image_leaves_the_generator_where_it_was(root):
    loader = data(root).train_dataloader()
    torch.manual_seed(7)
    expected = torch.randint(2**31, (3,))
    torch.manual_seed(7)
    order = iter(loader.sampler)
    images = [loader.dataset[next(order)][0] for _ in range(2)]
    assert torch.equal(torch.randint(2**31, (3,)), expected)
    assert images[0].shape == (3, 14, 14)


class Own(LightningModule):
    """Knows nothing of netslim; remembers the sizes of what its network was given, wherever."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(6, 2)
        self.seen = []

    def forward(self, images):
        self.seen.append((images.dtype, images.abs().max().item()))
        return self.head(self.network(images).flatten(1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_every_network_and_every_measurement_gets_normalised_images(root):
    """The largest number of an image is (1 - 0.4) / 0.2 = 3; of bytes it is some 250."""
    slimming = netslim.Slimming(ratio=0.5, recalibration_batches=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[slimming], enable_checkpointing=False, log_every_n_steps=1, **quiet
    )
    module, images = Own(), data(root, val_size=4)
    trainer.fit(module, datamodule=images)
    statistics = slimming.slimmed.network[1].running_mean  # recalibrated on what the training batches are
    assert statistics.abs().max() < 5
    seen = [*module.seen, *slimming.slimmed.seen, *((x.dtype, x.abs().max().item()) for x in inputs(images, module))]
    assert len(seen) > 8
    assert all(kind == torch.float32 and 0.5 < largest <= 3.01 for kind, largest in seen)

"""The data module in memory. Oracles: a loop per image, torchvision's padding, closed forms, an uninterrupted run."""

from functools import partial

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from netslim.data import Images, InMemoryData, digits, synthetic
from netslim.data.memory import cut_out, stratified_split

SYNTHETIC = partial(synthetic, train=70, test=30, size=8)


def data(source=SYNTHETIC, **settings) -> InMemoryData:
    return InMemoryData(source, **{"title": "a set", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], **settings})


def read(module: InMemoryData, loader) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*(module.on_after_batch_transfer(batch, 0) for batch in loader), strict=True)
    return torch.cat(images), torch.cat(labels)


def test_cut_out_equals_a_loop_over_the_images():
    images = torch.randint(0, 256, (40, 3, 7, 5), dtype=torch.uint8)
    top, left, flip = torch.randint(0, 5, (40,)), torch.randint(0, 5, (40,)), torch.randint(0, 2, (40,))
    cut = cut_out(images, top, left, flip, padding=2)
    assert cut.dtype == torch.uint8
    for i, image in enumerate(images):
        expected = tv.crop(tv.pad(image, [2, 2, 2, 2], fill=0), int(top[i]), int(left[i]), 7, 5)
        expected = tv.horizontal_flip(expected) if flip[i] else expected
        assert torch.equal(cut[i], expected)


def test_cut_out_of_the_middle_is_the_image():
    images = torch.randint(0, 256, (4, 1, 6, 6), dtype=torch.uint8)
    middle, no = torch.full((4,), 3), torch.zeros(4, dtype=torch.int64)
    assert torch.equal(cut_out(images, middle, middle, no, padding=3), images)


@pytest.mark.parametrize("augmented", [False, True])
def test_evaluation_is_the_normalised_set_in_its_order(augmented):
    module = data(crop_padding=4 if augmented else 0, flip=augmented, eval_batch_size=7)
    images, labels = read(module, module.test_dataloader())
    whole = module.images
    expected = torch.stack([tv.normalize(image / 255, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]) for image in whole.test])
    torch.testing.assert_close(images, expected)
    assert images.dtype == torch.float32
    assert torch.equal(labels, whole.test_labels)
    assert labels.dtype == torch.int64


def test_training_without_augmentation_gives_each_image_with_its_label_once():
    module = data(batch_size=16)
    images, labels = read(module, module.train_dataloader())
    whole = module.images
    scaled = [tv.normalize(image / 255, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]) for image in whole.train]
    found = [next(i for i, x in enumerate(scaled) if torch.allclose(x, image, atol=1e-5)) for image in images]
    assert sorted(found) == list(range(70))
    assert torch.equal(labels, whole.train_labels[found])


def test_the_border_of_a_crop_is_black_before_normalisation():
    white = torch.full((8, 1, 4, 4), 255, dtype=torch.uint8)
    source = Images(white, torch.arange(8) % 2, white, torch.arange(8) % 2, ("a", "b"))
    module = data(lambda: source, mean=[0.25], std=[0.5], crop_padding=2)
    images, _ = read(module, module.train_dataloader())
    assert set(images.flatten().tolist()) == {-0.5, 1.5}  # (0 − 0.25)/0.5 and (1 − 0.25)/0.5


def test_split_is_disjoint_stratified_and_does_not_depend_on_the_training_seed():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)
    stay, out = stratified_split(labels, 20, seed=0)
    assert sorted(stay.tolist() + out.tolist()) == list(range(100))
    assert labels[out].bincount().tolist() == [10, 6, 4]
    again, other = (stratified_split(labels, 20, seed=seed)[1] for seed in (0, 1))
    assert torch.equal(out, again)
    assert not torch.equal(out, other)
    assert torch.equal(data(val_size=20, seed=1).split[1], data(val_size=20, seed=2).split[1])


@pytest.mark.parametrize("size", [1, 3, 7, 50, 69])
def test_split_has_the_size_asked_for_and_the_shares_are_right_within_one_image(size):
    labels = torch.randint(0, 4, (70,))
    _, out = stratified_split(labels, size, seed=0)
    assert len(out) == size
    assert ((labels[out].bincount(minlength=4) - labels.bincount(minlength=4) * size / 70).abs() <= 1).all()


def test_a_share_is_a_number_of_images():
    assert [len(part) for part in data(val_size=0.1).split] == [63, 7]
    assert [len(part) for part in data(val_size=0).split] == [70, 0]
    assert data(val_size=0).val_dataloader() == []


def test_validation_images_are_never_trained_on():
    module = data(val_size=20, batch_size=8)
    trained = torch.cat([rows[:, 0] for _, rows in module.train_dataloader()])
    held = torch.cat([rows[:, 0] for _, rows in module.val_dataloader()])
    assert sorted(trained.tolist() + held.tolist()) == list(range(70))


@pytest.mark.parametrize("size", [70, 71, -1, 1.5e9])
def test_a_wrong_size_of_the_validation_set_is_named(size):
    with pytest.raises(ValueError, match=f"val_size={size} of 70 training images"):
        data(val_size=size).train_dataloader()


class Small(LightningModule):
    """Logistic regression that remembers what it was given."""

    def __init__(self, inputs: int = 64) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(inputs, 10), []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        self.seen.append(images)
        return F.cross_entropy(self.linear(images.flatten(1)), labels)

    def validation_step(self, batch, batch_idx):
        self.log("accuracy", (self.linear(batch[0].flatten(1)).argmax(1) == batch[1]).float().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, epochs: int, **settings) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, log_every_n_steps=1, **{"enable_checkpointing": False, **settings},
    )  # fmt: skip


def of_digits(**settings) -> InMemoryData:
    return data(digits, mean=[0.305], std=[0.375], val_size=100, crop_padding=1, flip=True, **settings)


def test_a_fit_on_digits_warns_of_nothing_and_learns(tmp_path):
    module, runner = Small(), trainer(tmp_path, 4)
    plain = data(digits, mean=[0.305], std=[0.375], val_size=100)
    runner.fit(module, plain)
    assert runner.test(module, plain, verbose=False)[0]["accuracy"] > 0.85
    assert len(module.seen) == 4 * 21  # 1,334 images in batches of 64


class SaveAfter(Callback):
    """A checkpoint at the end of one epoch, as a killed run has it."""

    def __init__(self, epoch: int, path) -> None:
        self.epoch, self.path = epoch, path

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def test_a_resumed_run_sees_bit_for_bit_what_the_uninterrupted_one_saw(tmp_path):
    path = tmp_path / "killed.ckpt"
    whole = Small()
    trainer(tmp_path, 4, callbacks=[SaveAfter(1, path)]).fit(whole, of_digits())
    torch.manual_seed(99)  # another process has another global state
    resumed = Small()
    trainer(tmp_path, 4).fit(resumed, of_digits(), ckpt_path=str(path), weights_only=True)
    assert len(resumed.seen) == 2 * 21
    assert all(torch.equal(a, b) for a, b in zip(whole.seen[2 * 21 :], resumed.seen, strict=True))
    assert torch.equal(whole.linear.weight, resumed.linear.weight)


def test_the_set_is_read_once_and_not_before_it_is_needed():
    calls = []

    def source() -> Images:
        calls.append(1)
        return synthetic(train=8, test=4, size=4)

    module = data(source)
    assert calls == []
    assert (module.num_classes, module.in_channels) == (4, 3)
    assert (module.image_shape, module.train_size) == ((3, 4, 4), 8)
    assert data(val_size=20).train_size == 50
    read(module, module.train_dataloader())
    assert calls == [1]


def test_a_title_is_a_text_and_there_are_two_classes_to_tell_apart():
    with pytest.raises(ValueError, match="title=None is what the report calls the data; give a text"):
        data(title=None)
    one = data(lambda: synthetic(train=8, test=4, classes=1, size=8), title="toy")
    with pytest.raises(ValueError, match=r"toy has one class \(class 0\)"):
        _ = one.images

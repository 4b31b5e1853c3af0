"""The data sets. Oracles: scikit-learn itself, files written here in each set's documented layout."""

import pickle
import struct

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision.datasets import cifar as torchvision_cifar
from torchvision.datasets import svhn as torchvision_svhn

from netslim.data import Images, cifar10, cifar100, digits, fashion_mnist, mnist, svhn, synthetic

RANDOM = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def test_digits_are_scikit_learns_split_by_class():
    images, raw = digits(), load_digits()
    assert (len(images.train), len(images.test)) == (1433, 364)
    shares = images.test_labels.bincount() / torch.from_numpy(raw.target).bincount()
    assert ((shares >= 0.2) & (shares < 0.21)).all()
    # Each original scan is found once, in training or in test, with its label.
    grey = np.concatenate([images.train.numpy(), images.test.numpy()])[:, 0] * (16 / 255)
    labels = np.concatenate([images.train_labels.numpy(), images.test_labels.numpy()])
    ours = sorted((*np.rint(scan).astype(int).ravel(), label) for scan, label in zip(grey, labels, strict=True))
    assert ours == sorted(
        (*scan.astype(int).ravel(), label) for scan, label in zip(raw.images, raw.target, strict=True)
    )


def test_digits_are_the_same_every_time_and_cover_the_range():
    torch.manual_seed(7)
    first, second = digits(), digits()
    assert torch.equal(first.train, second.train)
    assert (first.train.min().item(), first.train.max().item()) == (0, 255)


def test_the_constants_of_digits_in_the_configuration_are_the_training_images():
    scaled = digits().train.double() / 255
    assert scaled.mean().item() == pytest.approx(0.305, abs=5e-4)
    assert scaled.std().item() == pytest.approx(0.375, abs=5e-4)


def test_synthetic_classes_are_separable_by_the_nearest_mean():
    images = synthetic(train=200, test=100)
    flat, test = images.train.double().flatten(1), images.test.double().flatten(1)
    means = torch.stack([flat[images.train_labels == label].mean(0) for label in range(4)])
    assert torch.equal(torch.cdist(test, means).argmin(1), images.test_labels)
    assert not torch.equal(images.train, synthetic(train=200, test=100, seed=1).train)
    assert torch.equal(images.train, synthetic(train=200, test=100).train)


def write_cifar(folder, names, labels_key, classes, classes_key):
    """CIFAR's layout: each row 1024 red, 1024 green, 1024 blue bytes, row by row."""
    folder.mkdir()
    written = {}
    for name in names:
        rows, labels = pixels(4, 3072), RANDOM.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": rows, labels_key: labels}))
        written[name] = rows, labels
    meta = "batches.meta" if "batches.meta" in classes else "meta"
    (folder / meta).write_bytes(pickle.dumps({classes_key: classes[meta]}))
    return written


def check_cifar(images, written, test_name):
    train = [written[name] for name in written if name != test_name]
    rows = np.concatenate([rows for rows, _ in train])
    assert tuple(images.train.shape) == (len(rows), 3, 32, 32)
    for image, row in zip(images.train.numpy(), rows, strict=True):
        assert image[1, 5, 7] == row[1024 + 5 * 32 + 7]  # channel, row, column
        assert np.array_equal(image.ravel(), row)
    assert images.train_labels.tolist() == [label for _, labels in train for label in labels]
    assert np.array_equal(images.test.numpy().reshape(4, -1), written[test_name][0])
    assert images.test_labels.tolist() == written[test_name][1]
    assert images.train.is_contiguous()


def test_cifar10(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda *_: True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    classes = {"batches.meta": [f"c{i}" for i in range(10)]}
    written = write_cifar(tmp_path / "cifar-10-batches-py", names, "labels", classes, "label_names")
    images = cifar10(str(tmp_path), download=False)
    check_cifar(images, written, "test_batch")
    assert images.classes == tuple(f"c{i}" for i in range(10))


def test_cifar100(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision_cifar, "check_integrity", lambda *_: True)
    classes = {"meta": [f"c{i}" for i in range(100)]}
    written = write_cifar(tmp_path / "cifar-100-python", ["train", "test"], "fine_labels", classes, "fine_label_names")
    images = cifar100(str(tmp_path), download=False)
    check_cifar(images, written, "test")
    assert len(images.classes) == 100


def test_svhn_has_the_digit_nought_under_label_ten(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision_svhn, "check_integrity", lambda *_: True)
    written = {}
    for part, count in (("train", 5), ("test", 3)):
        x, y = pixels(32, 32, 3, count), np.array([10, 1, 2, 9, 10][:count], dtype=np.uint8)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": x, "y": y.reshape(-1, 1)})
        written[part] = x
    images = svhn(str(tmp_path), download=False)
    assert np.array_equal(images.train.numpy()[3, 2, 5, 7], written["train"][5, 7, 2, 3])
    assert np.array_equal(images.test.numpy(), written["test"].transpose(3, 2, 0, 1))
    assert images.train_labels.tolist() == [0, 1, 2, 9, 0]
    assert images.train_labels.dtype == torch.int64


@pytest.mark.parametrize(("source", "folder"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
def test_mnist_files(tmp_path, source, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, count in (("train", 6), ("t10k", 4)):
        x, y = pixels(count, 28, 28), pixels(count) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + x.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + y.tobytes())
        written[part] = x, y
    images = source(str(tmp_path), download=False)
    assert np.array_equal(images.train.numpy()[:, 0], written["train"][0])
    assert np.array_equal(images.test.numpy()[:, 0], written["t10k"][0])
    assert images.train_labels.tolist() == written["train"][1].tolist()
    assert len(images.classes) == 10


@pytest.mark.parametrize("source", [cifar10, cifar100, svhn, mnist, fashion_mnist])
def test_a_set_that_is_not_there_is_named_with_its_folder_and_the_remedy(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=r"is not in .*set data\.source\.root, or choose another set") as caught:
        source(str(tmp_path), download=False)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_of_another_kind_are_refused():
    good, labels = torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="must be uint8"):
        Images(good.float(), labels, good, labels, ("a",))
    with pytest.raises(ValueError, match="and 2 labels"):
        Images(good[:1], labels, good, labels, ("a",))

"""Folders of images. Oracles: Pillow's decoding, torchvision's transforms, the other way to read a folder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from netslim.data import FolderData, InMemoryData, image_folder

SETTINGS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "flip": False, "batch_size": 4}


@pytest.fixture
def root(tmp_path):
    """Two classes of 7 + 5 training and 3 + 2 test pictures of 16×16."""
    write(tmp_path, "train", {"cat": 7, "dog": 5})
    write(tmp_path, "test", {"cat": 3, "dog": 2})
    return tmp_path


def write(root, part, counts, size=(16, 16)):
    random = np.random.default_rng(len(part))
    for name, count in counts.items():
        (root / part / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / name / f"{i}.png")


def decoded(root, part):
    """Pictures and labels in the order of class and file name."""
    paths = sorted((root / part).glob("*/*"))
    labels = [sorted({p.parent.name for p in paths}).index(p.parent.name) for p in paths]
    return np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths]).transpose(0, 3, 1, 2), labels


def evaluated(data, loader):
    batches = [data.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_a_small_folder_is_read_into_memory(root):
    data = image_folder(str(root), **SETTINGS)
    assert isinstance(data, InMemoryData)
    assert (data.title, data.num_classes, data.in_channels) == (root.name, 2, 3)
    assert data.images.classes == ("cat", "dog")
    for part, images, labels in (
        ("train", data.images.train, data.images.train_labels),
        ("test", data.images.test, data.images.test_labels),
    ):
        pixels, expected = decoded(root, part)
        assert np.array_equal(images.numpy(), pixels)
        assert labels.tolist() == expected


def test_both_ways_of_reading_give_the_same_pixels(root):
    memory = image_folder(str(root), **SETTINGS)
    files = image_folder(
        str(root), memory_limit=0, image_size=14, num_workers=0, **SETTINGS
    )  # resized to 16: left alone
    assert isinstance(files, FolderData)
    (a, labels), (b, same) = (evaluated(data, data.test_dataloader()) for data in (memory, files))
    assert labels.tolist() == same.tolist()
    torch.testing.assert_close(tv.center_crop(a, [14, 14]), b)


def test_images_of_different_sizes_are_read_by_workers(root):
    write(root, "train", {"dog": 1}, size=(20, 30))
    data = image_folder(str(root), image_size=14, num_workers=0, val_size=4, **SETTINGS)
    assert isinstance(data, FolderData)
    assert (data.num_classes, data.in_channels, data.title) == (2, 3, root.name)
    assert (data.image_shape, data.train_size) == ((3, 14, 14), 8)
    images, _ = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert images.shape == (4, 3, 14, 14)
    assert images.dtype == torch.float32
    assert sum(len(labels) for _, labels in data.train_dataloader()) == 8
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_read_by_workers_depends_on_seed_and_epoch_alone(root, workers):
    def epoch(number, seed=0, state=0):
        torch.manual_seed(state)
        settings = {**SETTINGS, "flip": True}
        data = image_folder(str(root), memory_limit=0, image_size=14, num_workers=workers, seed=seed, **settings)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.cat([images for images, _ in loader])

    once = epoch(3)
    assert torch.equal(once, epoch(3, state=5))
    assert not torch.equal(once, epoch(2))
    assert not torch.equal(once, epoch(3, seed=1))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_evaluation_without_repeating_an_image(root, world):
    data = image_folder(str(root), memory_limit=0, num_workers=0, **SETTINGS)
    seen = []
    for rank in range(world):
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
        loader = data.test_dataloader()
        seen += list(loader.sampler)
        assert len(loader.sampler) == len(list(loader.sampler))
    assert sorted(seen) == list(range(len(data.test_set)))


def test_the_workers_are_seeded_anew_for_each_epoch_and_seed(root):
    def first_draw(number, seed):
        loader = image_folder(str(root), memory_limit=0, num_workers=1, seed=seed, **SETTINGS).train_dataloader()
        loader.sampler.set_epoch(number)
        return torch.randint(0, 2**62, (), generator=loader.generator).item()  # a worker's seed is drawn from here

    assert first_draw(3, 0) == first_draw(3, 0)
    assert len({first_draw(number, seed) for number in range(3) for seed in range(3)}) == 9


def test_grey_and_transparent_images_become_rgb(root):
    Image.fromarray(np.full((16, 16), 77, dtype=np.uint8)).save(root / "test" / "cat" / "0.png")
    Image.fromarray(np.full((16, 16, 4), 99, dtype=np.uint8)).save(root / "test" / "cat" / "1.png")
    test = image_folder(str(root), **SETTINGS).images.test
    assert (test[0] == 77).all()
    assert (test[1] == 99).all()


def test_what_is_wrong_with_a_folder_is_said_in_one_line(root, tmp_path):
    def fails(kind, match, path=root):
        with pytest.raises(kind, match=match) as caught:
            _ = image_folder(str(path), **SETTINGS).images
        assert "\n" not in str(caught.value)

    fails(FileNotFoundError, "no folder .*nowhere.*train/ and test/", tmp_path / "nowhere")
    (root / "test" / "horse").mkdir()
    write(root, "test", {"horse": 1})
    fails(ValueError, "train and test have different classes; in one of them only: horse")
    write(root, "train", {"horse": 1})
    (root / "train" / "horse" / "0.png").write_bytes(b"no image")
    fails(ValueError, r"horse.0.png cannot be read as an image .*remove or replace")
    (root / "empty" / "train").mkdir(parents=True)
    fails(FileNotFoundError, "class folder", root / "empty")


def test_folders_that_lie_otherwise_are_answered_with_what_to_give(root, tmp_path):
    def said(path):
        with pytest.raises(FileNotFoundError) as caught:
            image_folder(str(path), **SETTINGS)
        return str(caught.value)

    top = tmp_path.absolute()
    assert said(root / "train") == f"data.root={top / 'train'} is inside of a data set; give data.root={top}"
    assert (
        said(root / "test" / "cat") == f"data.root={top / 'test' / 'cat'} is inside of a data set; give data.root={top}"
    )
    for part in ("train", "test"):
        write(top / "up" / "set", part, {"cat": 1, "dog": 1})
    assert said(top / "up") == f"data.root={top / 'up'} is one folder too high; give data.root={top / 'up' / 'set'}"
    (root / "test").rename(root / "val")
    assert said(root) == (
        f"no folder {top / 'test'}, but {top / 'val'}: rename it to test (validation images are held out of train, as "
        "many as data.val_size says)"
    )
    assert said(root / "val") == f"data.root={top / 'val'} is inside of a data set; give data.root={top}"
    (root / "val").rename(root / "test")
    (root / "train" / "horse").mkdir()
    assert said(root) == f"the class folder {top / 'train' / 'horse'} has no image; fill it or remove it"


def test_a_damaged_image_is_named(root):
    victim = root / "train" / "cat" / "3.png"
    victim.write_bytes(victim.read_bytes()[:200])  # the header is whole, the pixels are not
    with pytest.raises(ValueError, match=r"cat.3.png cannot be read as an image"):
        _ = image_folder(str(root), **SETTINGS).images


@pytest.mark.parametrize("limit", [0, 1e9])
def test_one_class_is_nothing_to_tell_apart(tmp_path, limit):
    for part in ("train", "test"):
        write(tmp_path, part, {"cat": 2})
    with pytest.raises(ValueError, match=r"has one class \(cat\): a network would be right whatever it says"):
        image_folder(str(tmp_path), memory_limit=limit, **SETTINGS)

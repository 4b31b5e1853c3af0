"""Decoded images kept in a file. Oracles: the folder read without it, forbidden decodings, many writers."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from netslim.data import InMemoryData, decode, folder, image_folder, synthetic
from netslim.data.cache import cached

SETTINGS = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def root(tmp_path):
    for part in ("train", "test"):
        for i in range(3):
            where = tmp_path / "pictures" / part / f"class{i % 2}" / f"{i}.bmp"
            where.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * i, dtype=np.uint8)).save(where)
    return tmp_path / "pictures"


def read(root, **settings):
    folder._images.cache_clear()  # as another process has it
    return image_folder(str(root), **SETTINGS, **settings).images


def test_the_file_gives_what_the_images_give_and_nothing_is_decoded_again(root, tmp_path, monkeypatch):
    plain = read(root)
    first = read(root, cache_dir=str(tmp_path / "cache"))
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".pt"]
    monkeypatch.setattr(decode, "pixels", lambda path: pytest.fail(f"{path} was decoded"))
    monkeypatch.setattr(decode, "size", lambda path: pytest.fail(f"{path} was opened"))
    again = read(root, cache_dir=str(tmp_path / "cache"))
    for images in (first, again):
        assert images.classes == plain.classes
        for name in ("train", "train_labels", "test", "test_labels"):
            assert torch.equal(getattr(images, name), getattr(plain, name))


def test_a_changed_a_new_and_a_removed_image_are_noticed(root, tmp_path):
    def cache():
        return read(root, cache_dir=str(tmp_path / "cache"))

    cache()
    victim = root / "train" / "class0" / "0.bmp"
    before = victim.stat()
    Image.fromarray(np.full((8, 8, 3), 200, dtype=np.uint8)).save(victim)
    assert victim.stat().st_size == before.st_size  # only its time tells
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert (cache().train[0] == 200).all()
    Image.fromarray(np.full((8, 8, 3), 3, dtype=np.uint8)).save(root / "train" / "class0" / "9.bmp")
    assert len(cache().train) == 4
    victim.unlink()
    assert len(cache().train) == 3


def test_the_memory_limit_holds_for_the_file_too(root, tmp_path):
    assert isinstance(image_folder(str(root), cache_dir=str(tmp_path / "cache"), **SETTINGS), InMemoryData)
    read(root, cache_dir=str(tmp_path / "cache"))
    limited = image_folder(str(root), cache_dir=str(tmp_path / "cache"), memory_limit=10, **SETTINGS)
    assert not isinstance(limited, InMemoryData)


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path):
    file, images = tmp_path / "cache" / "set.pt", synthetic(train=64, test=8)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached(file, lambda: images), range(32)))
    assert all(torch.equal(result.train, images.train) for result in results)
    assert [path.name for path in file.parent.iterdir()] == ["set.pt"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        cached(tmp_path / "set.pt", lambda: synthetic(train=4, test=4))
    assert list(tmp_path.iterdir()) == []

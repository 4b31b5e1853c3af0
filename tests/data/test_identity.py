"""What files are. Oracle: what was done to them, written down beside each case."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from netslim.data import decode, identity, image_folder, scan


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("train/a/0.png", "train/b/0.png", "test/a/0.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(name.encode() * 100)
    return tmp_path / "set"


def of(path: Path) -> str:
    return identity.of_path(path, path.parent / "memory")


def rewrite(path: Path) -> None:
    """Other bytes, of the same number; the time moves on as it does for a file that is written."""
    content, before = bytearray(path.read_bytes()), path.stat()
    content[7] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def test_the_same_files_elsewhere_are_the_same(images, tmp_path):
    shutil.copytree(images, tmp_path / "other" / "place")
    assert of(images) == of(tmp_path / "other" / "place")
    os.utime(images / "train/a/0.png", ns=(0, 0))  # touched, not changed
    assert of(images) == of(tmp_path / "other" / "place")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: rewrite(folder / "train/b/0.png"),
        lambda folder: (folder / "train/a/0.png").rename(folder / "train/a/1.png"),
        lambda folder: (folder / "train/a/0.png").rename(folder / "train/b/1.png"),
        lambda folder: (folder / "test/a/0.png").unlink(),
        lambda folder: (folder / "test/a/1.png").write_bytes(b""),
        lambda folder: (folder / "train/a/0.png").write_bytes(b"short"),
        lambda folder: (folder / "train").rename(folder / "valid"),
    ],
    ids=["content", "name", "class", "removed", "added", "size", "folder"],
)
def test_any_change_in_place_makes_others(images, change: Callable[[Path], None]):
    before = of(images)
    change(images)
    assert of(images) != before


def test_hidden_files_and_a_damaged_memory_change_nothing(images):
    before = of(images)
    (images / ".DS_Store").write_text("x")
    (images / "train" / ".thumbs").mkdir()
    (images / "train" / ".thumbs" / "0.png").write_text("x")
    assert of(images) == before
    (kept,) = (images.parent / "memory").iterdir()
    for content in ('{"train/a/0.png": 5}', "[]", '{"half": '):
        kept.write_text(content)
        assert of(images) == before


def test_what_a_link_leads_to_counts_as_if_it_lay_there(images, tmp_path):
    before = of(images)
    (images / "train" / "a").rename(tmp_path / "elsewhere")
    (images / "train" / "a").symlink_to(tmp_path / "elsewhere")
    assert of(images) == before
    rewrite(tmp_path / "elsewhere" / "0.png")
    assert of(images) != before


def test_contents_are_read_once_and_a_changed_one_again(images, monkeypatch):
    read = []
    digest = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda path: read.append(path.name) or digest(path))
    first = of(images)
    assert len(read) == 3
    assert of(images) == first
    assert len(read) == 3
    rewrite(images / "train/b/0.png")
    of(images)
    assert len(read) == 4


def test_settings_that_say_where_files_are(images, tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    settings = {
        "net": {"weights": str(tmp_path / "w.pt")},
        "data": {"root": str(images), "source": {"_target_": "netslim.data.cifar10", "root": "/scratch"}},
    }
    places = {"net.weights": str(tmp_path / "w.pt"), "data.root": str(images), "data.source.root": "/scratch"}
    found = identity.of(places, settings, tmp_path / "memory")
    assert found["data.root"] == of(images)
    assert found["data.source.root"] == "data"  # torchvision compares it with published checksums
    assert set(found) == set(places)
    (tmp_path / "w.pt").write_bytes(b"weighty")
    assert identity.of(places, settings, tmp_path / "memory")["net.weights"] != found["net.weights"]
    assert identity.of({"data.root": "FOLDER"}, settings, tmp_path / "memory") == {}  # not there: by its name


def test_of_mnist_only_its_own_files_count(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"the images")
    settings = {"data": {"source": {"_target_": "netslim.data.mnist"}}}
    places = {"data.source.root": str(tmp_path)}
    before = identity.of(places, settings, tmp_path / "memory")
    (tmp_path / "cifar-10.tar.gz").write_bytes(b"another set")
    assert identity.of(places, settings, tmp_path / "memory") == before
    rewrite(tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte")
    assert identity.of(places, settings, tmp_path / "memory") != before


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name in ("train/a/0.bmp", "train/b/1.bmp", "test/a/2.bmp", "test/b/3.bmp"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), int(name[-5]), dtype=np.uint8)).save(tmp_path / "pictures" / name)
    return tmp_path / "pictures"


def named(root: Path, limit: float) -> str:
    settings = {"data": {"_target_": "netslim.data.image_folder", "memory_limit": limit}}
    return identity.of({"data.root": str(root)}, settings, root.parent / "memory")["data.root"]


def test_images_that_workers_read_have_the_reader_in_their_name(pictures, monkeypatch):
    """Their pixels come from another decoder and resizer than those that stay in memory, which keep their name."""
    assert named(pictures, 1e9) == of(pictures)
    assert named(pictures, 100) == of(pictures) + "-uint8"
    monkeypatch.setattr(decode, "size", lambda path: pytest.fail(f"{path} was opened again"))
    assert named(pictures, 1e9) == of(pictures)
    assert named(pictures, 100) == of(pictures) + "-uint8"


def test_a_command_lists_the_images_once(pictures, monkeypatch):
    listed = []
    below = scan._below
    monkeypatch.setattr(scan, "_below", lambda folder, *more: listed.append(folder) or below(folder, *more))
    with scan.once():
        name = named(pictures, 100)
        for _ in range(3):  # the stages of a job
            image_folder(str(pictures), mean=[0.5] * 3, std=[0.5] * 3, memory_limit=100)
    assert listed.count(pictures) == 1
    assert name == of(pictures) + "-uint8"

"""Files of tensors that have changed since they were written. Oracle: the bit that was flipped here."""

from __future__ import annotations

import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch

import netslim
from netslim import files
from netslim.data import synthetic
from netslim.data.cache import cached
from netslim.nets import VGG
from netslim.training import checkpoint

CONTENT = {"w": torch.arange(300.0).view(3, 100), "n": 5, "names": ["a", "b"], "nested": {"v": torch.ones(4)}}


def flip(path: Path, bit: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << (bit % 8)
    path.write_bytes(raw)


def same(found: dict) -> bool:
    return (
        torch.equal(found["w"], CONTENT["w"])
        and torch.equal(found["nested"]["v"], torch.ones(4))
        and (found["n"], found["names"]) == (5, ["a", "b"])
    )


def test_what_is_written_is_read_by_torch_and_zip_too(tmp_path):
    path = tmp_path / "t.pt"
    files.write_tensors(path, CONTENT)
    assert same(files.read_tensors(path))
    assert same(torch.load(path, weights_only=True))
    assert same(torch.load(path, weights_only=True, mmap=True))
    assert zipfile.ZipFile(path).testzip() is None


def test_no_flipped_bit_is_read_without_a_word(tmp_path):
    """Anywhere in the file: tensors, names, the archive's own tables, the digest."""
    path, moments = tmp_path / "t.pt", random.Random(0)
    files.write_tensors(path, CONTENT)
    whole = path.read_bytes()
    last = 8 * (len(whole) - files.SEAL_SIZE)
    for bit in [*moments.sample(range(last), 300), *range(last, last + 8 * files.SEAL_SIZE, 5)]:
        path.write_bytes(whole)
        flip(path, bit)
        if bit < last:
            with pytest.raises(files.DamagedFile, match=r"t\.pt cannot be read \(.*\); remove it and run the command"):
                files.read_tensors(path)
        else:
            assert refused_or_right(path)  # a seal that is none any more: the archive's own checksums hold


def refused_or_right(path: Path) -> bool:
    try:
        return same(files.read_tensors(path))
    except files.DamagedFile:
        return True


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    path = tmp_path / "t.pt"
    files.write_tensors(path, CONTENT)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - files.SEAL_SIZE - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(files.DamagedFile):
            files.read_tensors(path)
    for length in range(len(whole) - files.SEAL_SIZE, len(whole)):  # the archive is whole, the seal is not
        path.write_bytes(whole[:length])
        assert refused_or_right(path)


def test_files_of_older_versions_are_read_and_checked_by_their_own_checksums(tmp_path):
    path = tmp_path / "t.pt"
    torch.save(CONTENT, path)
    assert same(files.read_tensors(path))
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda item: item.file_size)
    raw = path.read_bytes()
    flip(path, 8 * (raw.index(CONTENT["w"].numpy().tobytes()) + 43) + 6)
    with pytest.raises(files.DamagedFile, match=f"{entry.filename} are not those that were written"):
        files.read_tensors(path)
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)  # before there were archives
    assert same(files.read_tensors(path))


def test_the_error_can_travel_between_processes(tmp_path):
    error = pickle.loads(pickle.dumps(files.DamagedFile(tmp_path / "w.pt", "why")))
    assert (error.path, error.reason, str(error)) == (
        tmp_path / "w.pt",
        "why",
        str(files.DamagedFile(error.path, "why")),
    )


def damaged(path: Path) -> None:
    """An exponent bit in the middle of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda item: item.file_size)
        content = archive.read(entry)
    start = path.read_bytes().index(content)
    flip(path, 8 * (start + len(content) // 8 * 4 + 3) + 6)


def test_a_slim_network_a_checkpoint_and_kept_images_are_checked(tmp_path):
    network = VGG([4, "M", 4], in_channels=1)
    example = torch.zeros(1, 1, 8, 8)
    small = netslim.slim(network, netslim.select_channels(network, 0.5, example), example_input=example)
    netslim.save(small, tmp_path / "small.pt")
    netslim.load(tmp_path / "small.pt", network)
    damaged(tmp_path / "small.pt")
    with pytest.raises(ValueError, match=r"small.pt cannot be read \(its bytes are not those that were written\)"):
        netslim.load(tmp_path / "small.pt", network)

    files.write_tensors(tmp_path / "last.ckpt", {"state_dict": network.state_dict(), "epoch": 3})
    damaged(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last.ckpt cannot be read .*; remove it and run the command again"):
        checkpoint.epochs_done(tmp_path / "last.ckpt", network)

    images = cached(tmp_path / "images.pt", lambda: synthetic(train=64, test=8))
    assert torch.equal(cached(tmp_path / "images.pt", pytest.fail).train, images.train)
    damaged(tmp_path / "images.pt")
    with pytest.raises(ValueError, match=r"images.pt cannot be read .*; remove it and run the command again"):
        cached(tmp_path / "images.pt", pytest.fail)

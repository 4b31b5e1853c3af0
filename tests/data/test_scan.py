"""Listing a folder. Oracle: the file system, and the calls that were counted."""

import os

import pytest

from netslim.data import scan


@pytest.fixture
def folder(tmp_path):
    for name in ("b/2", "a/1", ".hidden/3", "a/.4", "a-c/5"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"x" * len(name))
    (tmp_path / "set" / "link").symlink_to(tmp_path / "set" / "b")
    return tmp_path / "set"


def test_the_files_below_with_size_and_time(folder):
    found = scan.listing(folder)
    assert list(found) == ["a-c/5", "a/1", "b/2", "link/2"]
    status = os.stat(folder / "a/1")
    assert found["a/1"] == (3, status.st_mtime_ns)


def test_inside_once_a_folder_is_what_it_was_at_first(folder):
    with scan.once():
        first = scan.listing(folder)
        (folder / "new").write_bytes(b"")
        with scan.once():
            assert scan.listing(folder) == first
        assert scan.listing(folder) == first
    assert "new" in scan.listing(folder)


def test_what_cannot_be_read_is_named(folder, monkeypatch):
    (folder / "gone").mkdir()
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("gone"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(PermissionError, match="gone"):
        scan.listing(folder)

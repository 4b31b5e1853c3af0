"""What files are, whatever folder they lie in: a digest of their names, sizes and contents.

A stage is named by it in place of a path: the same images somewhere else are the same data, images that were changed in
place are not. Contents are read once and remembered by size and modification time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from netslim import files
from netslim.data import folder, scan
from netslim.data.class_folders import parts

# Of these torchvision compares every file with its published checksum: where they lie says nothing about what they are,
# and their stages keep the name that they have with the root of conf/data.
VERIFIED = {"netslim.data.cifar10", "netslim.data.cifar100", "netslim.data.svhn"}
ROOT = "data"
FOLDER = "netslim.data.image_folder"
SUBFOLDERS = {"netslim.data.mnist": "MNIST/raw", "netslim.data.fashion_mnist": "FashionMNIST/raw"}
Known = dict[str, list[Any]]  # path inside the folder -> size, modification time, digest


def of(places: Mapping[str, str], settings: Mapping[str, Any], memory: Path) -> dict[str, str]:
    """The identity of each setting that says where files are.

    Args:
        places: dotted name of the setting -> path.
        settings: nested, the ``_target_`` of a path's group among them.
        memory: folder for what was read already.

    >>> of({"data.source.root": "x"}, {"data": {"source": {"_target_": "netslim.data.cifar10"}}}, Path("memory"))
    {'data.source.root': 'data'}
    """
    found = dict(settings.get("identity", {}))
    for key, place in places.items():
        group: Any = settings
        for step in key.split(".")[:-1]:
            group = group[step]
        target = group.get("_target_", "")
        if target in VERIFIED:
            found[key] = ROOT
        elif (path := Path(place) / SUBFOLDERS.get(target, "")).exists():
            found[key] = of_path(path, memory)
            if target == FOLDER and not _in_memory(place, group.get("memory_limit", folder.LIMIT), found[key], memory):
                found[key] += f"-{folder.READER}"
    return found


def _in_memory(root: str, limit: float, content: str, memory: Path) -> bool:
    """Whether image_folder decodes these images once, with Pillow; their headers are looked at once."""
    kept = memory / f"{content}-{limit:g}.json"
    if not kept.exists():
        files.write_json(kept, folder.fits(*parts(root), limit))
    return bool(files.read_json(kept))


def of_path(path: Path, memory: Path) -> str:
    """The digest of a file, or of everything in a folder: 16 hex digits. Hidden files do not count.

    Args:
        memory: folder in which the digests of single files are kept.

    Raises:
        OSError: something cannot be read; it is named.
    """
    now = {name: list(stamp) for name, stamp in _stamps(path).items()}
    names = list(now)
    kept = memory / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.json"
    known = _remembered(kept)
    changed = [name for name in names if known.get(name, [])[:2] != now[name]]
    if changed:
        known = {name: known[name] for name in names if name not in changed}
        known |= dict(zip(changed, _contents([path / name for name in changed], str(path)), strict=True))
        known = {name: [*now[name], known[name][-1]] for name in names}
        files.write_json(kept, known)
    lines = "".join(f"{name}\0{known[name][0]}\0{known[name][2]}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _stamps(path: Path) -> scan.Listing:
    """Of all files below a folder, through links too, as torchvision reads them; of a file under no name."""
    if path.is_dir():
        return scan.listing(path)
    status = path.stat()
    return {"": (status.st_size, status.st_mtime_ns)}


def _remembered(kept: Path) -> Known:
    """Only a saving: where it cannot be used, the contents are read again."""
    try:
        known = files.read_json(kept) if kept.exists() else {}
    except ValueError:
        return {}
    good = isinstance(known, dict) and all(isinstance(v, list) and len(v) == 3 for v in known.values())
    return known if good else {}


def _contents(paths: list[Path], title: str) -> list[list[Any]]:
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_digest, paths)
        return [[d] for d in tqdm(digests, f"reading {title}", len(paths), delay=3, leave=False, disable=None)]


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()[:32]

"""The images of ``root/train/<class>/*`` and ``root/test/<class>/*``; what to do where they lie otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from netslim.data import scan

LAYOUT = "data.root needs train/ and test/ with class folders of images"
VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True)
class Part:
    """The images of ``root/train`` or ``root/test``, class by class.

    Args:
        folder: where they are.
        classes: names, in order.
        paths, labels: of each image, and the number of its class.
        stamps: of each image, its path in ``root``, and its size and modification time.
    """

    folder: Path
    classes: tuple[str, ...]
    paths: list[str]
    labels: list[int]
    stamps: list[tuple[str, scan.Stamp]]


def parts(root: str) -> tuple[Part, Part]:
    """Training and test images of a folder. Hidden files do not count.

    Raises:
        FileNotFoundError: one of them is not there, or has no class folder, or one without images.
        ValueError: they have different classes.
    """
    train, test = (_part(Path(root), part) for part in ("train", "test"))
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))
        raise ValueError(f"{root}: train and test have different classes; in one of them only: {', '.join(odd)}")
    return train, test


def _part(root: Path, part: str) -> Part:
    folder = root / part
    if not folder.is_dir():
        raise FileNotFoundError(_misplaced(root.absolute(), part))
    classes = tuple(sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."))
    if not classes:
        raise FileNotFoundError(f"{folder.absolute()} has no class folder; {LAYOUT}")
    below = [found for found in scan.listing(root).items() if found[0].startswith(f"{part}/")]
    images = [found for found in below if found[0].count("/") > 1 and found[0].lower().endswith(IMG_EXTENSIONS)]
    images.sort(key=lambda found: (_class(found[0]), *os.path.split(found[0])))  # as torchvision's ImageFolder does
    if empty := set(classes) - {_class(name) for name, _ in images}:
        raise FileNotFoundError(f"the class folder {folder.absolute() / min(empty)} has no image; fill it or remove it")
    number = {name: index for index, name in enumerate(classes)}
    return Part(
        folder, classes, [str(root / name) for name, _ in images], [number[_class(n)] for n, _ in images], images
    )


def _class(name: str) -> str:
    """Of ``train/<class>/...``."""
    return name.split("/", 2)[1]


def _misplaced(root: Path, part: str) -> str:
    """What to say where root/part is not there."""
    for above in root.parents[:2]:
        if _is_root(above) and root.relative_to(above).parts[0] in ("train", "test", *VALIDATION):
            return f"data.root={root} is inside of a data set; give data.root={above}"
    inside = [folder for folder in root.glob("*") if _is_root(folder)]
    if len(inside) == 1:
        return f"data.root={root} is one folder too high; give data.root={inside[0]}"
    instead = [name for name in VALIDATION if (root / name).is_dir()]
    if part == "test" and instead:
        return (
            f"no folder {root / part}, but {root / instead[0]}: rename it to test (validation images are held out of "
            "train, as many as data.val_size says)"
        )
    return f"no folder {root / part}; {LAYOUT}"


def _is_root(folder: Path) -> bool:
    return (folder / "train").is_dir() and any((folder / name).is_dir() for name in ("test", *VALIDATION))

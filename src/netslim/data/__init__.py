"""Data modules: sets in memory (order.py says which image comes when), and folders of images."""

from netslim.data.folder import FolderData, image_folder
from netslim.data.memory import InMemoryData
from netslim.data.sources import Images, cifar10, cifar100, digits, fashion_mnist, mnist, svhn, synthetic

__all__ = [
    "FolderData",
    "Images",
    "InMemoryData",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "image_folder",
    "mnist",
    "svhn",
    "synthetic",
]

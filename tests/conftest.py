"""Shared by all tests: one thread (the machine's cores run tests side by side), nothing written outside tmp_path."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

settings.register_profile("netslim", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("netslim")
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _modules_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A test that imports a module it has written leaves none behind: the next test's `mine` is another one."""
    yield
    written = tmp_path_factory.getbasetemp()
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and written in Path(file).parents:
            del sys.modules[name]

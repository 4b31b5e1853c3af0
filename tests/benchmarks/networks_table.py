"""Write the table of src/netslim/engine/README.md#networks: what is removed at 50 %, per coupling, what holds the rest.

    PYTHONPATH=. python tests/benchmarks/networks_table.py

With random γ, so the shares of parameters and multiply-adds are those of no trained network; what can be removed, and
what holds the rest, is that of the architecture. test_libraries.py compares the table with the networks.
"""

from __future__ import annotations

import torch

import netslim
from netslim import files
from tests.engine.conftest import lively
from tests.engine.networks.libraries import HEAD, NETWORKS, README, random, row


def chosen(name: str, coupling: str) -> str:
    x = torch.randn(8, 3, 64, 64, dtype=torch.float64)
    keep = netslim.select_channels(random(name, lively, x), 0.5, x, coupling=coupling)
    return f"| {' | '.join(row(name, coupling, keep))} |\n"


def main() -> None:
    table = "".join(chosen(name, coupling) for name in NETWORKS for coupling in ("keep", "group", "scatter"))
    before, _, after = README.read_text().partition(HEAD)
    files.write_text(README, f"{before}{HEAD}{table}\n{after.partition(chr(10) * 2)[2]}")


if __name__ == "__main__":
    main()

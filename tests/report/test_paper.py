"""The table of the paper's networks, from records made by hand."""

import json
from pathlib import Path

import pytest

from netslim.report import paper


def write(folder: Path, record: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(record))


def test_without_records_our_cells_are_empty_and_the_others_are_as_published(tmp_path: Path) -> None:
    head, rule, *lines = paper.table(tmp_path).splitlines()
    assert len(lines) == 3 * 5
    assert {line.count("|") for line in (head, rule, *lines)} == {12}
    vgg = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:3]]
    assert vgg[0][2:] == ["paper", "CIFAR-10", "", "93.66", "", "", "93.80", "2.30 M", "196 M"]
    assert vgg[1][2:] == ["authors' README", "CIFAR-10", "", "93.30", "32.54", "", "93.78", "2.25 M", ""]
    assert vgg[2] == ["VGG-19", "70 %", "ours", *[""] * 8]


def test_records_become_mean_and_deviation_over_the_seeds(tmp_path: Path) -> None:
    records = tmp_path / "paper_vgg19" / "records"
    for seed, right in enumerate((900, 910, 920)):
        test, low = {"correct": right, "total": 1000}, {"correct": 100, "total": 1000}
        names = {kind: f"{kind}_{seed}" for kind in ("train", "slim", "finetune")}
        run = {"started": "now", "seconds": 1, "command": "c", "versions": {}, "hardware": "h"}
        trained = {"epochs": [{"epoch": 1, "train_accuracy": 0.5}], "test": test, "run": run}
        write(records / f"job_{seed}", {"lambda": 1e-4, "ratio": 0.7, "seed": seed, "command": "c", **names})
        train = {"name": names["train"], "network": "VGG", "data": "CIFAR-10 (JPEG copy)", "budget": 6.6}
        write(records / names["train"], {**train, **trained})
        sizes = {"params": 2_250_000 + seed, "macs": 195_400_000}
        stages = {"dense": {"test": test, **sizes}, "slim": {"test": low, **sizes}, "recalibrated": {"test": test}}
        layers = [{"name": "bn", "channels": 10, "kept": 3}]
        channels = {"threshold": 0.1, "removed": 7, "prunable": 10, "layers": layers}
        write(records / names["slim"], {"name": names["slim"], **stages, **channels, "run": run})
        write(records / names["finetune"], {"name": names["finetune"], **trained})
    cells = [cell.strip() for cell in paper.table(tmp_path).splitlines()[4].split("|")[1:-1]]
    spread = "91.00 ± 1.00"
    found = ["CIFAR-10 (JPEG copy)", "3", spread, "10.00 ± 0.00", spread, spread, "2.25 M", "195 M"]
    assert cells == ["VGG-19", "70 %", "ours", *found]


@pytest.mark.parametrize("row", paper.PUBLISHED, ids=lambda row: f"{row.name} {row.ratio}")
def test_every_row_has_its_experiment(row: paper.Published) -> None:
    experiment = Path(__file__).parents[2] / "conf" / "experiment" / f"{paper.EXPERIMENTS[row.network]}.yaml"
    (ratios,) = [line.split(":")[1] for line in experiment.read_text().splitlines() if line.startswith("      ratio:")]
    assert str(row.ratio) in ratios.strip().split(",")


def test_the_published_page_has_the_table_of_the_published_records() -> None:
    root = Path(__file__).parents[2]
    assert paper.table(root / "outputs" / "published") in (root / "outputs" / "published" / "README.md").read_text()

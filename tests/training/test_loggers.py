"""The same training with every logger. Oracles: the rows of its History, and what the fakes of wandb and mlflow got."""

from __future__ import annotations

import csv as tables
import logging
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import netslim
from netslim.data import InMemoryData, synthetic
from netslim.training import loggers
from netslim.training.fit import fit
from netslim.training.loggers import csv, log_final, mlflow, tensorboard, wandb

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the stage has its folder
TRAINER = partial(
    Trainer, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1
)


class Stop(Callback):
    """A process that dies in an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise OSError("no space left")


def trained(folder: Path, *makers: Any, epochs: int = 2, stop: int | None = None):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    task = netslim.SlimmingTask(net, optimizer=partial(torch.optim.SGD, lr=0.1), strength=1e-3)
    source = partial(synthetic, train=64, test=16, size=4)
    data = InMemoryData(source, title="noise", mean=[0.5] * 3, std=[0.25] * 3, batch_size=16, val_size=16)
    more = [] if stop is None else [Stop(stop)]
    given = {"trainer": TRAINER, "command": "netslim", "seed": 0, "epochs": epochs}
    return fit(folder, task, data, loggers=makers, callbacks=more, **given)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(tables.DictReader(file))


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if row.get(name)]


def test_csv_has_the_numbers_of_the_history(tmp_path):
    history, record = trained(tmp_path / "stage", csv)
    rows = table(tmp_path / "stage" / "csv" / "0")
    for name, key in (
        ("loss/val", "val_loss"),
        ("accuracy/val", "val_accuracy"),
        ("dead_gamma/share", "dead_share"),
    ):
        assert column(rows, name) == pytest.approx([row[key] for row in history.rows])
    assert column(rows, "accuracy/test") == pytest.approx([record["test"]["correct"] / record["test"]["total"]])
    assert not list((tmp_path / "stage").glob("events*"))


def test_several_loggers_at_once_and_the_log_says_once_what_one_cannot_show(tmp_path, caplog):
    loggers._say_once.cache_clear()
    with caplog.at_level(logging.INFO, logger="netslim"):
        history, _ = trained(tmp_path / "stage", csv, tensorboard)
    assert [line for line in caplog.messages if "histograms" in line] == [
        "CSVLogger shows no histograms: the distribution of γ is not in it"
    ]
    events = EventAccumulator(str(tmp_path / "stage"), size_guidance={"histograms": 0}).Reload()
    assert events.Tags()["histograms"] == ["gamma/all", "gamma/network.2"]
    shown = [event.value for event in events.Scalars("loss/val")]
    assert shown == pytest.approx(column(table(tmp_path / "stage" / "csv" / "0"), "loss/val"), rel=1e-6)
    assert shown == pytest.approx([row["val_loss"] for row in history.rows], rel=1e-6)


def test_without_a_logger_the_training_is_the_same_and_nothing_is_written(tmp_path):
    alone, record = trained(tmp_path / "none")
    logged, other = trained(tmp_path / "both", csv, tensorboard)
    assert alone.rows == logged.rows
    assert record["test"] == other["test"]
    assert sorted(path.name for path in (tmp_path / "none").iterdir()) == ["last.ckpt"]


def test_a_resumed_training_keeps_the_curves_of_its_earlier_attempt(tmp_path):
    whole, _ = trained(tmp_path / "whole", csv, epochs=3)
    with pytest.raises(OSError, match="no space"):
        trained(tmp_path / "stage", csv, epochs=3, stop=0)
    with pytest.raises(OSError, match="no space"):
        trained(tmp_path / "stage", csv, epochs=3, stop=1)
    trained(tmp_path / "stage", csv, epochs=3)
    parts = [column(table(tmp_path / "stage" / "csv" / attempt), "loss/val") for attempt in ("0", "1")]
    assert [len(part) for part in parts] == [1, 2]
    assert [loss for part in parts for loss in part] == pytest.approx([row["val_loss"] for row in whole.rows])


def test_curves_are_in_order_after_a_clock_that_was_ahead(tmp_path):
    with pytest.raises(OSError, match="no space"):
        trained(tmp_path / "train_a_1", tensorboard, epochs=3, stop=1)
    (path,) = (tmp_path / "train_a_1").glob("events*")
    path.rename(path.with_name(path.name.replace(path.name.split(".")[3], "9999999999")))
    history, _ = trained(tmp_path / "train_a_1", tensorboard, epochs=3)
    events = EventAccumulator(str(tmp_path / "train_a_1")).Reload()
    assert [event.step for event in events.Scalars("loss/val")] == [0, 1, 2]
    shown = [event.value for event in events.Scalars("loss/val")]
    assert shown == pytest.approx([row["val_loss"] for row in history.rows], rel=1e-6)


@pytest.mark.parametrize(("make", "package"), [(wandb, "wandb"), (mlflow, "mlflow")])
def test_a_package_that_is_not_installed_is_named_before_the_training(make, package, tmp_path, monkeypatch):
    monkeypatch.setattr(f"lightning.pytorch.loggers.{package}._{package.upper()}_AVAILABLE", False)
    with pytest.raises(
        ValueError, match=f"logger={package} needs a package that is not installed.*pip install {package}"
    ):
        trained(tmp_path / "stage", make)
    assert not (tmp_path / "stage" / "last.ckpt").exists()


class Run:
    """What wandb.init gives."""

    def __init__(self, **settings: Any) -> None:
        self.settings, self.logged, self.finished = settings, [], False
        self.config = SimpleNamespace(update=lambda params, **_: self.logged.append(("config", params)))

    def log(self, metrics: dict[str, Any]) -> None:
        assert not self.finished
        self.logged.append(metrics)

    def define_metric(self, *_: Any, **__: Any) -> None: ...

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def wandbs(monkeypatch) -> list[Run]:
    runs: list[Run] = []

    def init(**settings: Any) -> Run:
        assert all(run.finished for run in runs), "a run goes on into the next stage"
        runs.append(Run(**settings))
        return runs[-1]

    fake = ModuleType("wandb")
    vars(fake).update(run=None, init=init, Histogram=lambda numbers: ("histogram", numbers))
    parts = {"wandb.sdk": {}, "wandb.sdk.lib": {"RunDisabled": type(None)}, "wandb.wandb_run": {"Run": Run}}
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", True)
    return runs


def test_weights_and_biases_gets_curves_histograms_and_a_run_per_stage(tmp_path, wandbs):
    history, _ = trained(tmp_path / "sweep" / "train_lambda=0.001", wandb)
    trained(tmp_path / "sweep" / "finetune", partial(wandb, project="mine", entity="us"))
    first, second = wandbs
    assert (first.settings["project"], second.settings["project"], second.settings["entity"]) == (
        "netslim",
        "mine",
        "us",
    )
    assert first.settings["id"] == "sweep-train_lambda-0.001"
    losses = [logged["loss/val"] for logged in first.logged if "loss/val" in logged]
    assert losses == pytest.approx([row["val_loss"] for row in history.rows])
    histograms = [logged["gamma/all"] for logged in first.logged if "gamma/all" in logged]
    assert [(kind, numbers.shape) for kind, numbers in histograms] == [("histogram", (8,))] * 2


def test_what_a_job_ended_with_goes_to_every_logger(tmp_path, wandbs):
    settings, final = {"λ": 1e-4, "ratio": 0.5}, {"final/dense accuracy": 0.9}
    for make in (tensorboard, csv, wandb):
        log_final(make(tmp_path / "job"), settings, final)
    (rows,) = [table(tmp_path / "job" / "csv" / "0")]
    assert column(rows, "final/dense accuracy") == [0.9]
    assert "ratio: 0.5" in (tmp_path / "job" / "csv" / "0" / "hparams.yaml").read_text()
    events = EventAccumulator(str(tmp_path / "job")).Reload()
    assert [event.value for event in events.Scalars("final/dense accuracy")] == pytest.approx([0.9])
    (run,) = wandbs
    assert run.logged == [("config", settings), final]
    assert run.finished


def test_mlflow_gets_curves_and_hyper_parameters(tmp_path, monkeypatch):
    sent: list[tuple[str, str, Any]] = []

    class Client:
        def __init__(self, uri: str) -> None:
            self.uri = uri

        def get_experiment_by_name(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

        def create_run(self, experiment_id: str, tags: Any) -> SimpleNamespace:
            return SimpleNamespace(info=SimpleNamespace(run_id="7"))

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            sent.extend([("metric", item.key, item.value) for item in metrics])
            sent.extend([("param", item.key, item.value) for item in params])

        def get_run(self, run_id: str) -> bool:
            return True

        def set_terminated(self, run_id: str, status: str) -> None: ...

    contents: dict[str, dict[str, Any]] = {
        "mlflow": {"set_tracking_uri": lambda uri: None},
        "mlflow.tracking": {"MlflowClient": Client},
        "mlflow.entities": {"Metric": SimpleNamespace, "Param": SimpleNamespace},
        "mlflow.utils": {},
        "mlflow.utils.mlflow_tags": {"MLFLOW_RUN_NAME": "mlflow.runName"},
        "mlflow.tracking.context": {},
        "mlflow.tracking.context.registry": {"resolve_tags": lambda tags: tags},
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._MLFLOW_AVAILABLE", True)
    monkeypatch.setattr("lightning.pytorch.loggers.mlflow._get_resolve_tags", lambda: lambda tags: tags)
    history, _ = trained(tmp_path / "sweep" / "train", mlflow)
    losses = [value for kind, key, value in sent if (kind, key) == ("metric", "loss/val")]
    assert losses == pytest.approx([row["val_loss"] for row in history.rows])
    log_final(mlflow(tmp_path / "sweep" / "job"), {"ratio": 0.5}, {"final/MACs": 9})
    assert sent[-2:] == [("param", "ratio", "0.5"), ("metric", "final/MACs", 9)]

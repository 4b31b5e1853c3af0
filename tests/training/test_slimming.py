"""The callbacks on a LightningModule of one's own. Oracles: the masked dense network, numpy, batch statistics."""

from functools import partial

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import netslim


class Own(LightningModule):
    """Nothing in it knows of netslim: other attribute names, a dictionary as batch, metrics of its own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU())
        self.head = nn.Linear(12, 4)
        self.example_input_array = torch.zeros(2, 1, 6, 6)

    def forward(self, images):
        return self.head(self.body(self.stem(images)).mean(dim=(2, 3)))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"]), batch["label"])

    def validation_step(self, batch, batch_idx):
        self.log("own/error", (self(batch["image"]).argmax(1) != batch["label"]).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Pictures(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return {"image": image, "label": label}


def pictures(count: int = 96) -> Pictures:
    """Four classes: which quarter of the picture is bright."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(count) % 4
    images = 0.3 * torch.randn(count, 1, 6, 6, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 3 * (label // 2) :, 3 * (label % 2) :][:3, :3] += 1.0
    return Pictures(images, labels)


def fitted(tmp_path, *callbacks, epochs: int = 4, logger: bool = False) -> Own:
    model = Own()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        default_root_dir=tmp_path,
        logger=TensorBoardLogger(tmp_path, name="", version="run") if logger else False,
    )
    trainer.fit(model, DataLoader(pictures(), 16), DataLoader(pictures(), 48))
    return model


def error(model: nn.Module) -> float:
    data = pictures()
    with torch.no_grad():
        return (model.eval()(data.tensors[0]).argmax(1) != data.tensors[1]).float().mean().item()


def test_slimming_at_the_end_of_fit_measures_what_the_masked_network_computes(tmp_path):
    slimming = netslim.Slimming(ratio=0.4)
    dense = fitted(tmp_path, netslim.Sparsity(0.01), slimming)
    images = pictures().tensors[0]
    keep = netslim.select_channels(dense, ratio=0.4, example_input=images[:2])
    masked = netslim.mask(dense, keep)
    result = slimming.result
    assert (result["removed"], result["prunable"]) == (8, 20)
    gammas = torch.cat([dense.stem[1].weight, dense.body[1].weight]).abs().sort().values
    assert result["threshold"] == pytest.approx(gammas[7].item())
    assert [layer["channels"] for layer in result["layers"]] == [8, 12]
    assert sum(layer["kept"] for layer in result["layers"]) == 12
    assert result["dense"]["metrics"]["own/error"] == pytest.approx(error(dense))
    assert result["slim"]["metrics"]["own/error"] == pytest.approx(error(masked))
    assert result["slim"]["params"] == sum(p.numel() for p in slimming.slimmed.parameters())
    assert result["slim"]["macs"] < result["dense"]["macs"]
    assert dense.stem[1].num_features == 8  # the trained module is untouched


def test_kept_counts_are_multiples_at_the_same_budget(tmp_path):
    counts = {}
    for round_to in (1, 4):
        slimming = netslim.Slimming(ratio=0.35, round_to=round_to)
        fitted(tmp_path, slimming, epochs=1)
        counts[round_to] = [layer["kept"] for layer in slimming.result["layers"]]
    assert all(kept % 4 == 0 for kept in counts[4])
    assert (sum(counts[1]), sum(counts[4])) == (20 - 7, 20 - 4)  # 7 are asked for, 8 would be too many


def test_the_recalibrated_module_has_the_training_sets_statistics_and_can_be_fitted_again(tmp_path):
    slimming = netslim.Slimming(ratio=0.4)
    fitted(tmp_path, slimming)
    small, images = slimming.slimmed, pictures().tensors[0]
    with torch.no_grad():
        seen = small.stem[0](images)  # (96, C, 6, 6)
    batches = seen.reshape(6, 16, *seen.shape[1:])  # the loader's six batches of 16
    expected = batches.transpose(1, 2).flatten(2).mean(-1).mean(0)
    torch.testing.assert_close(small.stem[1].running_mean, expected)
    assert isinstance(small, Own)
    before = [p.clone() for p in small.parameters()]
    Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
            enable_model_summary=False, log_every_n_steps=1).fit(small, DataLoader(pictures(), 16))  # fmt: skip
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


def test_gamma_histograms_and_shares_are_in_the_event_file(tmp_path):
    model = fitted(tmp_path, netslim.Sparsity(0.05), netslim.GammaHistogram(), epochs=3, logger=True)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"histograms": 0}).Reload()
    assert events.Tags()["histograms"] == ["gamma/all", "gamma/stem.1", "gamma/body.1"]
    histogram = events.Histograms("gamma/all")
    assert [event.step for event in histogram] == [0, 1, 2]
    sizes = torch.cat([model.stem[1].weight, model.body[1].weight]).detach().abs().numpy()
    last = histogram[-1].histogram_value
    assert last.num == 20
    assert last.sum == pytest.approx(float(sizes.sum()), rel=1e-6)
    edges, counts = np.array(last.bucket_limit), np.array(last.bucket)
    assert counts.tolist() == [
        int(((sizes > low) & (sizes <= high)).sum()) for low, high in zip([-1.0, *edges[:-1]], edges, strict=True)
    ]
    layers = np.split(sizes, [len(model.stem[1].weight)])
    dead = sum(int((layer <= 0.01 * layer.mean()).sum()) for layer in layers)
    assert events.Scalars("dead_gamma/share")[-1].value == pytest.approx(dead / 20)


def test_bad_ratio_and_missing_batchnorm_are_named(tmp_path):
    with pytest.raises(ValueError, match="prune ratio 50 is outside"):
        netslim.Slimming(ratio=50)
    module = Own()
    module.stem[1], module.body[1] = nn.Identity(), nn.Identity()
    with pytest.raises(ValueError, match="no trainable BatchNorm"):
        Trainer(
            max_epochs=1,
            callbacks=[netslim.Sparsity(0.1)],
            logger=False,
            enable_checkpointing=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(module, DataLoader(pictures(), 16))


class Counting(Own):
    """Counts its steps; without an example, so that one comes from the batches."""

    def __init__(self):
        super().__init__()
        self.steps, self.example_input_array = 0, None

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("error", (self(batch[0]).argmax(1) != batch[1]).float().mean())


class Dictionaries(Counting):
    def training_step(self, batch, batch_idx):
        self.steps += 1
        return Own.training_step(self, batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        Own.validation_step(self, batch, batch_idx)


def fit(module, tmp_path, slimming, data=None, **options):
    loader = DataLoader(data or TensorDataset(*pictures().tensors), 16, shuffle=True)
    Trainer(max_epochs=1, accelerator="cpu", callbacks=[slimming], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, **options).fit(
        module, loader, DataLoader(loader.dataset, 48)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"network": "nett"}, "network='nett' is no part of Counting"),
        ({"ratio": 0.95}, "highest reachable ratio"),
        ({"floor": -1}, "floor must be 0 or more"),
        ({"round_to": 0}, "round_to must be 1 or more"),
        ({"split": "test"}, "needs test_dataloader"),
        ({"example_input": torch.zeros(1, 3, 6, 6)}, "does not run on the example input"),
    ],
)
def test_what_would_fail_after_the_training_fails_before_it(options, match, tmp_path):
    module = Counting()
    with pytest.raises(ValueError, match=match):
        fit(module, tmp_path, netslim.Slimming(**{"ratio": 0.5, **options}))
    assert module.steps == 0


def test_batches_that_forward_does_not_take_need_an_example(tmp_path):
    module = Dictionaries()
    with pytest.raises(ValueError, match="give Slimming what it takes as example_input"):
        fit(module, tmp_path, netslim.Slimming(0.5), pictures())
    assert module.steps == 0
    slimming = netslim.Slimming(0.5, example_input=torch.zeros(1, 1, 6, 6))
    fit(module, tmp_path, slimming, pictures())
    assert slimming.slimmed.stem[0].out_channels < 8


@pytest.mark.parametrize("wrong", [{"ratio": "0.5"}, {"ratio": 0.5, "split": "valid"}])
def test_arguments_of_the_wrong_kind(wrong):
    with pytest.raises(ValueError, match=r"prune ratio '0\.5' is outside|split is 'valid'"):
        netslim.Slimming(**wrong)
    assert (netslim.Slimming(np.float32(0.5)).ratio, netslim.Sparsity(np.float32(0.5)).strength) == (0.5, 0.5)
    for strength in ("1e-4", float("inf"), float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            netslim.Sparsity(strength)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_the_example_has_the_trainers_precision(precision, tmp_path):
    slimming = netslim.Slimming(0.5)
    fit(Counting(), tmp_path, slimming, precision=precision)
    assert slimming.slimmed.stem[0].weight.dtype == {"64-true": torch.float64, "bf16-true": torch.bfloat16}[precision]


def test_the_look_at_the_data_changes_nothing(tmp_path):
    trained = []
    for callback in (netslim.Slimming(0.5), netslim.GammaHistogram()):
        torch.manual_seed(0)
        module = Counting()
        fit(module, tmp_path, callback)
        trained.append(module.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_slimming_inside_a_task_names_the_network(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    nn.init.uniform_(net[1].weight)
    task = netslim.SlimmingTask(net, optimizer=partial(torch.optim.SGD, lr=0.1), strength=1e-3)
    slimming = netslim.Slimming(ratio=0.5, network="network")
    Trainer(max_epochs=1, accelerator="cpu", callbacks=[slimming], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False).fit(
        task, DataLoader(TensorDataset(*pictures().tensors), 16), DataLoader(TensorDataset(*pictures().tensors), 16)
    )  # fmt: skip
    assert [layer["name"] for layer in slimming.result["layers"]] == ["1"]
    assert slimming.slimmed.network[1].num_features == 4
    assert slimming.slimmed.strength == 1e-3


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_notebook"])
def test_processes_that_end_with_the_fit_are_refused(strategy, tmp_path):
    """They would take the slim module with them."""
    trainer = Trainer(
        accelerator="cpu", devices=1, strategy=strategy, max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[netslim.Slimming(ratio=0.4)],
    )  # fmt: skip
    with pytest.raises(Exception, match="ValueError: Slimming: the processes of this strategy end with the fit, and"):
        trainer.fit(Own(), DataLoader(pictures(), 16), DataLoader(pictures(), 48))

"""A training with its cuts, step for step against the masked one: removed γ, β, and all that is known of them, held at
0. The averages of the weights too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import netslim
from netslim import GradualSlimming
from netslim.engine.cut.plan import rows_of
from netslim.method.scores import Scores
from netslim.nets import VGG, PreResNet
from tests.training.conftest import QUIET, Killed

X = torch.randn(32, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
DATA = DataLoader(TensorDataset(X, torch.arange(32) % 4), batch_size=16)
EPOCHS = 6
SGD = partial(torch.optim.SGD, lr=0.05, momentum=0.9)


class Own(LightningModule):
    def __init__(self, build: Any, optimizer: Any, ema: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = build().double()
        for layer in netslim.bn_layers(self.net).values():
            nn.init.uniform_(layer.weight, 0.1, 1.0)
        self.ema = AveragedModel(self.net, avg_fn=get_ema_avg_fn(0.9), use_buffers=True) if ema else None
        self.make = optimizer

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("loss/val", F.cross_entropy(self(batch[0]), batch[1]))

    def on_train_batch_end(self, *_: Any) -> None:
        if self.ema is not None:
            self.ema.update_parameters(self.net)

    def configure_optimizers(self) -> Any:
        return self.make(self.net.parameters())


class Kept(Callback):
    """What is kept of every layer after each epoch, in the dense network's channels."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Tensor]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rows.append(rows_of(pl_module.net))


class Masked(Callback):
    """Holds what another training has cut away at 0, in the network, the optimiser and the averages."""

    def __init__(self, rows: list[dict[str, Tensor]], *averaging: Callback) -> None:
        self.rows, self.averaging = rows, averaging

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.hold(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.hold(trainer, pl_module)

    @torch.no_grad()
    def hold(self, trainer: Trainer, module: LightningModule) -> None:
        averages = [each._average_model.module.net for each in self.averaging]
        averages += [module.ema.module] if module.ema is not None else []
        for name in netslim.bn_layers(module.net):
            rows = self.rows[trainer.current_epoch].get(f"{name}.weight")
            for key in ("weight", "bias") if rows is not None else ():
                tensors = [each.get_submodule(name).get_parameter(key) for each in (module.net, *averages)]
                known = trainer.optimizers[0].state[tensors[0]].values()
                for tensor in [*tensors, *(t for t in known if isinstance(t, Tensor) and t.dim())]:
                    gone = torch.ones(len(tensor), dtype=torch.bool)
                    gone[rows] = False
                    tensor[gone] = 0


def fit(module: LightningModule, *callbacks: Callback, **more: Any) -> None:
    ckpt, options = more.pop("ckpt_path", None), {**QUIET, "num_sanity_val_steps": 0, **more}
    trainer = Trainer(accelerator="cpu", max_epochs=EPOCHS, callbacks=list(callbacks), **options)
    trainer.fit(module, DATA, DATA, ckpt_path=ckpt, weights_only=False if ckpt else None)


def over_the_mean(network: nn.Module, batches: Any = (), seed: int = 0) -> Scores:
    sizes = {name: layer.weight.detach().abs() for name, layer in netslim.bn_layers(network).items()}
    return Scores({n: g / g.mean() for n, g in sizes.items()}, {n: g == 0 for n, g in sizes.items()}, "|γ| / mean")


over_the_mean.needs_data = False  # type: ignore[attr-defined]
BUILDS = {"vgg": lambda: VGG([12, "M", 16, 16], num_classes=4), "preresnet": lambda: PreResNet(11, num_classes=4)}


@pytest.mark.parametrize(
    ("build", "optimizer", "score", "average"),
    [
        ("vgg", SGD, None, ""),
        ("vgg", partial(torch.optim.Adam, lr=1e-3, amsgrad=True), None, "callback"),
        ("vgg", SGD, over_the_mean, "module"),
        ("preresnet", partial(torch.optim.AdamW, lr=1e-3), None, "module"),
        ("preresnet", SGD, over_the_mean, "callback"),
    ],
)
def test_step_for_step_as_the_masked_training(build: str, optimizer: Any, score: Any, average: str) -> None:
    ours, theirs = (Own(BUILDS[build], optimizer, average == "module") for _ in range(2))
    averaging = [[EMAWeightAveraging(decay=0.9)] if average == "callback" else [] for _ in range(2)]
    kept = Kept()
    fit(ours, GradualSlimming(0.6, start=0.0, end=0.7, network="net", score=score), kept, *averaging[0])
    widths = [sum(map(len, rows.values())) for rows in kept.rows]
    assert widths[1] > widths[2] > widths[3]  # several cuts
    fit(theirs, *averaging[1], Masked(kept.rows, *averaging[1]))
    pairs = [(ours.net, theirs.net)]
    pairs += [(ours.ema.module, theirs.ema.module)] if average == "module" else []
    for small, masked in pairs:
        torch.testing.assert_close(small.eval()(X), masked.eval()(X), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("average", ["callback", "module"])
def test_averages_are_resumed_with_the_same_bits(average: str, tmp_path: Path) -> None:
    def run(*more: Callback, **options: Any) -> Own:
        module = Own(BUILDS["preresnet"], SGD, average == "module")
        averaging = [EMAWeightAveraging(decay=0.9)] if average == "callback" else []
        fit(module, *averaging, GradualSlimming(0.6, start=0.0, end=0.5, network="net"), *more, **options)
        return module

    saving = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    keep = [ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)]
    whole = run()
    with pytest.raises(RuntimeError, match="killed"):
        run(*keep, Killed(3, 0), **saving)
    resumed = run(*keep, **saving, ckpt_path=tmp_path / "last.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_averages_inside_of_the_network_are_refused() -> None:
    module = Own(BUILDS["vgg"], SGD, True)
    with pytest.raises(ValueError, match=r"Own holds averages of its own weights .*: name the part .* network='net'"):
        fit(module, GradualSlimming(0.5))

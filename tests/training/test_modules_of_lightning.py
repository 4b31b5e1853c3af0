"""The LightningModules of Lightning's documentation: what they log, keep, build and how they optimise."""

from __future__ import annotations

import copy
import queue
import threading

import pytest
import torch
import torchmetrics
from lightning import LightningModule
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import nn
from torch.nn import functional as F

from tests.training.conftest import Case, check, loader, net, samples

INPUTS = list(samples().tensors[0].split(16))


class Plain(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val/loss", F.cross_entropy(self(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Metric(Plain):
    """The usual way to log accuracy: the metric itself is logged, and computed at the end of the epoch."""

    def __init__(self):
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=4)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.accuracy(self(x), y)
        self.log("val/accuracy", self.accuracy, on_step=False, on_epoch=True)


class Metrics(Plain):
    def __init__(self):
        super().__init__()
        metrics = torchmetrics.MetricCollection(
            [torchmetrics.Accuracy("multiclass", num_classes=4), torchmetrics.F1Score("multiclass", num_classes=4)]
        )
        self.train_metrics, self.val_metrics = metrics.clone("train/"), metrics.clone("val/")

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_hat = self(x)
        self.log_dict(self.train_metrics(y_hat, y))
        return F.cross_entropy(y_hat, y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_metrics.update(self(x), y)

    def on_validation_epoch_end(self):
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()


class Manual(Plain):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self(batch[0]), batch[1]))
        self.clip_gradients(optimizer, 1.0, "norm")
        optimizer.step()


class Gan(LightningModule):
    """Two optimisers; the batches are real samples, and forward makes samples from noise."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminator = net(3, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1))
        self.example_input_array = torch.randn(2, 3)

    def forward(self, z):
        return self.generator(z)

    def training_step(self, batch, batch_idx):
        for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
            self.toggle_optimizer(optimizer)
            fake = self.discriminator(self(torch.randn(16, 3)))
            loss = sign * (F.softplus(-fake).mean()) + (sign < 0) * F.softplus(-self.discriminator(batch[0])).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def validation_step(self, batch, batch_idx):
        self.log("val/fooled", (self.discriminator(self(torch.ones(16, 3).cumsum(0))) > 0).float().mean())

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=1e-2) for part in (self.generator, self.discriminator)]


class Beside(Plain):
    """forward runs another network, which has BatchNorm layers, too."""

    def __init__(self):
        super().__init__()
        self.other = net()

    def forward(self, x):
        return self.other(x)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]) + self(batch[0]), batch[1])


class BuiltInSetup(Plain):
    """Not asked for a stage: a second fit would start with new weights."""

    def __init__(self):
        LightningModule.__init__(self)

    def setup(self, stage):
        self.net = net()


class BuiltInConfigureModel(Plain):
    def __init__(self):
        LightningModule.__init__(self)

    def configure_model(self):
        self.net = net()


class BuiltOnce(Plain):
    def __init__(self):
        LightningModule.__init__(self)
        self.net = None

    def configure_model(self):
        if self.net is None:
            self.net = net()


class Hyperparameters(Plain):
    """The network is an argument that is saved, too, and an example for the graph is there."""

    def __init__(self, backbone, rate=0.1):
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = self.hparams.backbone
        self.example_input_array = torch.zeros(2, 6)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)


class Outputs(Plain):
    """Collects outputs for the end of the epoch; keeps what a copy cannot be made of; uses no forward."""

    def __init__(self):
        super().__init__()
        self.outputs, self.lock, self.samples = [], threading.Lock(), samples()

    def validation_step(self, batch, batch_idx):
        with self.lock:
            self.outputs.append(self.net(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self):
        self.log("val/accuracy", torch.cat(self.outputs).float().mean())
        self.outputs.clear()


class NoForward(Outputs):
    forward = LightningModule.forward

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]), batch[1])


class Teacher(Plain):
    """A frozen larger network teaches; a projection outside of the network is trained with it."""

    def __init__(self):
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False).eval()
        self.projection = nn.Linear(4, 4)

    def training_step(self, batch, batch_idx):
        return F.mse_loss(self.projection(self.net(batch[0])), self.teacher(batch[0]))


class Aliases(Plain):
    """Parts of the network under other names, and a head that forward does not run."""

    def __init__(self):
        super().__init__()
        self.body, self.last, self.parts = self.net[:3], self.net[3], [self.net[0]]
        self.scale, self.predictor = self.net[1].weight, nn.Linear(4, 1)

    def training_step(self, batch, batch_idx):
        assert self.last is self.net[3]
        assert self.parts[0] is self.net[0] is self.body[0]
        assert self.scale is self.net[1].weight
        return F.cross_entropy(self.last(self.body(batch[0])), batch[1]) + self.predictor(self(batch[0])).mean() ** 2

    def predict_step(self, batch, batch_idx):
        return self.predictor(self(batch[0]))


class Plateau(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        plan = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plan, "monitor": "val/loss"}}


class Backbone(Plain):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = self.net[:3], self.net[3]
        del self.net

    def forward(self, x):
        return self.head(self.backbone(x))

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Nested(Plain):
    def __init__(self):
        super().__init__()
        self.net = Plain()


class Odd(Outputs):
    """Attributes that refer to the module itself or that cannot be copied, one by one and in containers."""

    def __init__(self):
        super().__init__()
        self.step, self.queue = self.validation_step, queue.SimpleQueue()
        self.numbers, self.things = (i for i in range(3)), {"lock": self.lock, "count": [0]}

    def predict_step(self, batch, batch_idx):
        return self.step(batch, batch_idx)


class OnlyOptional(Plain):
    """forward may also compute the loss."""

    def forward(self, x, y=None):
        y_hat = self.net(x)
        return y_hat if y is None else F.cross_entropy(y_hat, y)


class Prints(Plain):
    """Asks its trainer this and that."""

    def validation_step(self, batch, batch_idx):
        assert self.trainer.checkpoint_callback is None
        stopping = self.trainer.early_stopping_callback
        assert stopping is None or (isinstance(stopping, EarlyStopping) and stopping.monitor == "val/loss")
        assert self.trainer.max_epochs in (1, 2)
        assert self.logger is None
        assert not self.training
        self.print("validating", self.current_epoch, self.global_step)
        super().validation_step(batch, batch_idx)


def data():
    return loader(), loader(seed=2)


def case(module, **settings):
    return lambda tmp_path: Case(module(), data(), **{"inputs": INPUTS, **settings})


CASES = {
    "plain": case(Plain),
    "network named": case(Plain, network="net"),
    "metric": case(Metric),
    "metrics": case(Metrics),
    "manual optimisation": case(Manual),
    "gan": case(Gan, network="generator", x=torch.randn(8, 3), inputs=None, slimming={"recalibration_batches": 0}),
    "forward beside the network": case(Beside, network="net"),
    "built in setup": case(BuiltInSetup),
    "built in setup, network named": case(BuiltInSetup, network="net"),
    "built in configure_model": case(BuiltInConfigureModel),
    "built once": case(BuiltOnce, network="net"),
    "hyper-parameters": case(lambda: Hyperparameters(net()), network="net"),
    "outputs": case(Outputs, oracle="net"),
    "outputs, network named": case(Outputs, network="net"),
    "odd attributes": case(Odd, oracle="net"),
    "odd attributes, network named": case(Odd, network="net"),
    "no forward": case(NoForward, network="net"),
    "teacher": case(Teacher, network="net"),
    "aliases": case(Aliases, network="net"),
    "plateau": case(Plateau),
    "nested": case(Nested, network="net"),
    "nested, inner network named": case(Nested, network="net.net"),
    "optional arguments": case(OnlyOptional),
    "asks its trainer": lambda tmp_path: Case(Prints(), data(), callbacks=[EarlyStopping("val/loss")]),
    "no sanity check": case(Metric, trainer={"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2}),
    "accumulation and clipping": case(Plain, trainer={"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}),
    "bf16": case(Plain, trainer={"precision": "bf16-mixed"}, inputs=None),
    "float64": case(Plain, trainer={"precision": "64-true"}, inputs=None),
    "barebones limits": case(Plain, trainer={"limit_train_batches": 1, "limit_val_batches": 1}, inputs=INPUTS[:1]),
    "max_steps": case(Plain, trainer={"max_steps": 3, "max_epochs": -1}, same_metrics=False),
    "fast_dev_run": case(Plain, trainer={"fast_dev_run": True}, inputs=INPUTS[:1]),
    "early stopping": lambda tmp_path: Case(
        Metric(), data(), callbacks=[EarlyStopping("val/accuracy", mode="min", patience=1)], inputs=INPUTS
    ),
    "best checkpoint": lambda tmp_path: Case(
        Metric(),
        data(),
        callbacks=[ModelCheckpoint(tmp_path, monitor="val/accuracy", save_top_k=1)],
        trainer={"enable_checkpointing": True, "default_root_dir": tmp_path},
        inputs=INPUTS,
    ),
    "stochastic weight averaging": lambda tmp_path: Case(
        Plain(),
        data(),
        callbacks=[StochasticWeightAveraging(0.05, swa_epoch_start=1)],
        trainer={"max_epochs": 3},
        same_metrics=False,
    ),
    "moving average of the weights": lambda tmp_path: Case(
        Plain(), data(), callbacks=[EMAWeightAveraging()], same_metrics=False
    ),
    "backbone fine-tuning": lambda tmp_path: Case(
        Backbone(), data(), callbacks=[BackboneFinetuning(1, lambda epoch: 1.0, train_bn=False)]
    ),
}


@pytest.mark.filterwarnings("ignore:Attribute 'backbone' is an instance of")  # saved as a hyper-parameter, too
@pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")  # a frozen teacher
@pytest.mark.parametrize("name", CASES)
def test_slimming_at_the_end_of_the_fit(name, tmp_path):
    check(CASES[name](tmp_path))


@pytest.mark.parametrize("network", ["", "net"])
def test_a_module_that_was_built_in_setup_is_fitted_from_the_slim_weights(network):
    small = check(case(BuiltInSetup, network=network)(None)).slimmed
    again = copy.deepcopy(small)
    before = copy.deepcopy(again.net.state_dict())
    again.setup("fit")
    assert all(torch.equal(before[name], tensor) for name, tensor in again.net.state_dict().items())
    smaller = check(Case(small, data(), network=network)).slimmed
    assert [each.net[0].out_features for each in (small, smaller)] == [8, 4]

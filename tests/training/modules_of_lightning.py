"""Lightning modules as people write them: patterns of its documentation."""

from __future__ import annotations

import copy
import threading

import torch
import torchmetrics
from lightning import LightningModule
from torch import nn
from torch.nn import functional as F

from tests.training.conftest import net, samples

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

"""Run by test_ddp.py: fit the toy network with Lightning's DDP on two gloo processes, or on one; slim it; save both.

python ddp_fit.py OUT DEVICES ACCUMULATE CLIP SCALE [gradual|auto]
"""

import sys
from functools import partial

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from netslim.training.auto_sparsity import AutoSparsity
from netslim.training.classification import SlimmingTask
from netslim.training.gradual import GradualSlimming
from netslim.training.slimming import Slimming

GLOBAL_BATCH, STEPS = 12, 4


class Frozen(nn.BatchNorm2d):
    """Uses its running statistics in training too: on gloo the processes' batch statistics would differ."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


class Scaled(MixedPrecision):
    """fp16's gradient scaling with float64 arithmetic, so that equality can be exact."""

    def __init__(self, scale: float) -> None:
        super().__init__("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2))

    def autocast_context_manager(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)


class Data(LightningDataModule):
    def train_dataloader(self):
        images = torch.randn(
            GLOBAL_BATCH * STEPS, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
        )
        dataset = TensorDataset(images, torch.arange(len(images)) % 3)
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(dataset, world, rank, shuffle=False)
        return DataLoader(
            dataset, batch_size=GLOBAL_BATCH // world // self.trainer.accumulate_grad_batches, sampler=sampler
        )

    def val_dataloader(self):
        images = torch.randn(6, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        return DataLoader(TensorDataset(images, torch.arange(6) % 3), batch_size=3)


def main(out: str, devices: int, accumulate: float, clip: float, scale: float, how: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), Frozen(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    net.train()
    nn.init.uniform_(net[1].weight, -1, 1)
    task = SlimmingTask(
        net, optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), strength=0 if how == "auto" else 0.05
    )
    slimming = Slimming(ratio=0.5, network="network")
    shrinking = GradualSlimming(ratio=0.5, start=0.0, end=0.5, network="network")
    own = {"gradual": shrinking, "auto": AutoSparsity(ratio=0.5)}
    callbacks = [] if scale else [slimming]  # slimming measures in the trainer's precision: fp16 on a CPU
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=4 if how else 1,
        accumulate_grad_batches=int(accumulate),
        gradient_clip_val=clip or None,
        callbacks=[own[how]] if how else callbacks,
        plugins=[Scaled(scale)] if scale else None,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, Data())
    slimmed = slimming.slimmed.state_dict() if slimming.slimmed else {}
    small = {f"slim {name}": tensor for name, tensor in slimmed.items()}
    torch.save({**net.state_dict(), **small}, f"{out}.rank{trainer.global_rank}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:6]), how="".join(sys.argv[6:]))

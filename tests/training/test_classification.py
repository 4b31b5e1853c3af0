"""Oracle: a plain PyTorch loop with λ·Σ|γ| in the loss, in float64, against the LightningModule with the hook."""

import copy
from functools import partial

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from netslim import Sparsity
from netslim.data import InMemoryData, synthetic
from netslim.method.scales import bn_scales
from netslim.nets import VGG
from netslim.training.classification import SlimmingTask

STRENGTH, RATE = 0.05, 0.1
SGD = partial(torch.optim.SGD, lr=RATE, momentum=0.9, weight_decay=1e-2)


class Scaled(MixedPrecision):
    """fp16's gradient scaling with float64 arithmetic, so that equality can be exact."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2))

    def autocast_context_manager(self):
        return torch.autocast("cpu", enabled=False)


def network() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.BatchNorm1d(5),
        nn.Linear(5, 3),
    )
    nn.init.uniform_(net[1].weight, -1, 1)
    return net.double()


def batches(count: int = 8, size: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(size, 2, 4, 4, generator=generator, dtype=torch.float64),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def loader(data) -> DataLoader:
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=len(data[0][0]))


def plain_loop(net: nn.Module, data, *, strength: float, accumulate: int = 1, clip: float | None = None) -> nn.Module:
    optimizer = SGD(net.parameters())
    for index, (images, labels) in enumerate(data):
        penalty = strength * sum(gamma.abs().sum() for gamma in bn_scales(net))
        ((F.cross_entropy(net(images), labels) + penalty) / accumulate).backward()
        if (index + 1) % accumulate == 0 or index + 1 == len(data):
            if clip is not None:
                nn.utils.clip_grad_norm_(net.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return net


def lightning_loop(task: LightningModule, data, **trainer) -> None:
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    ).fit(task, loader(data))


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "gradscaler"])
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(("accumulate", "count"), [(1, 8), (2, 8), (4, 7)])
def test_hook_equals_the_term_in_the_loss(accumulate, count, clip, scaled):
    data = batches(count)
    task = SlimmingTask(network(), optimizer=SGD, strength=STRENGTH)
    plugins = [Scaled()] if scaled else None
    lightning_loop(task, data, accumulate_grad_batches=accumulate, gradient_clip_val=clip, plugins=plugins)
    oracle = plain_loop(network(), data, strength=STRENGTH, accumulate=accumulate, clip=clip)
    assert largest_difference(task.network, oracle) < 1e-12
    assert (
        largest_difference(task.network, plain_loop(network(), data, strength=0, accumulate=accumulate, clip=clip))
        > 1e-4
    )


MEANS = {
    "contiguous": {"channels_last": False},
    "compiled, eager": {"compile": {"backend": "eager"}},
    "compiled, aot_eager": {"compile": {"backend": "aot_eager", "dynamic": False}},
    "fused": {"optimizer": partial(SGD, fused=True)},
}


@pytest.mark.parametrize("means", MEANS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_makes_it_fast_changes_neither_the_step_nor_the_names(means, accumulate):
    data = batches(5)
    task = SlimmingTask(network(), **{"optimizer": SGD, "strength": STRENGTH, **MEANS[means]})
    lightning_loop(task, data, accumulate_grad_batches=accumulate)
    oracle = plain_loop(network(), data, strength=STRENGTH, accumulate=accumulate)
    assert list(task.network.state_dict()) == list(oracle.state_dict())
    assert largest_difference(task.network, oracle) < 1e-12
    assert (task.network._compiled_call_impl is not None) == ("compile" in MEANS[means])
    weight = task.network[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (means != "contiguous")
    copied = copy.deepcopy(task).network  # what is slimmed is not compiled: its layers have other sizes
    assert copied._compiled_call_impl is None


def test_images_reach_the_network_in_the_asked_layout():
    seen = []
    task = SlimmingTask(network(), optimizer=SGD)
    task.network.register_forward_pre_hook(lambda _, args: seen.append(args[0].stride()))
    task(torch.zeros(2, 2, 4, 4, dtype=torch.float64))
    assert seen == [(32, 1, 8, 2)]


def test_under_bfloat16_the_penalty_is_that_of_the_loss_in_full_precision():
    data = [(images.float(), labels) for images, labels in batches(4)]
    task = SlimmingTask(network().float(), optimizer=SGD, strength=STRENGTH)
    lightning_loop(task, data, precision="bf16-mixed")
    oracle = network().float().to(memory_format=torch.channels_last)
    data = [(images.contiguous(memory_format=torch.channels_last), labels) for images, labels in data]
    low = torch.autocast("cpu", torch.bfloat16)(oracle.forward)
    oracle.forward = lambda images: low(images).float()
    plain_loop(oracle, data, strength=STRENGTH)
    assert largest_difference(task.network, oracle) < 1e-6


@pytest.mark.slow
def test_compiled_by_inductor_a_step_is_that_of_the_term_in_the_loss():
    data = batches(3)
    task = SlimmingTask(network(), optimizer=SGD, strength=STRENGTH, compile={"dynamic": False})
    lightning_loop(task, data)
    assert largest_difference(task.network, plain_loop(network(), data, strength=STRENGTH)) < 1e-10


def test_callback_gives_ones_own_module_the_same_penalty():
    class Own(LightningModule):
        def __init__(self):
            super().__init__()
            self.body = network()

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.body(batch[0]), batch[1])

        def configure_optimizers(self):
            return SGD(self.parameters())

    own = Own()
    lightning_loop(own, batches(), callbacks=[Sparsity(STRENGTH)], accumulate_grad_batches=2)
    assert largest_difference(own.body, plain_loop(network(), batches(), strength=STRENGTH, accumulate=2)) < 1e-12


def test_lambda_zero_is_plain_training_and_the_logged_loss_has_no_penalty():
    data = batches()
    task = SlimmingTask(network(), optimizer=SGD, strength=0.0)
    lightning_loop(task, data)
    assert largest_difference(task.network, plain_loop(network(), data, strength=0.0)) < 1e-12
    with torch.no_grad():
        expected = F.cross_entropy(copy.deepcopy(task.network).eval()(data[0][0]), data[0][1])
    tester = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    tester.test(SlimmingTask(task.network, optimizer=SGD, strength=STRENGTH), loader(data[:1]), verbose=False)
    assert tester.callback_metrics["loss/test"].item() == pytest.approx(expected.item())
    assert tester.callback_metrics["test/total"].item() == len(data[0][1])


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_true_precisions_reach_the_images(precision, dtype):
    """Those of a data module that makes numbers of bytes on the device, after Lightning has converted the batch."""
    source = partial(synthetic, train=32, test=8, size=8)
    data = InMemoryData(source, title="a set", mean=[0.5] * 3, std=[0.25] * 3, batch_size=16)
    task = SlimmingTask(VGG([4, "M", 4], num_classes=4), optimizer=SGD, strength=STRENGTH)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    Trainer(max_epochs=1, accelerator="cpu", precision=precision, **quiet).fit(task, data)
    assert {parameter.dtype for parameter in task.network.parameters()} == {dtype}
    assert task.trainer.callback_metrics["loss/train"].isfinite()


@pytest.mark.parametrize("limits", [{}, {"max_steps": 5}, {"limit_train_batches": 5}])
def test_the_logged_loss_is_the_mean_over_the_images_of_the_epoch(limits):
    data = batches(8)
    task = SlimmingTask(network(), optimizer=partial(torch.optim.SGD, lr=0.0))
    lightning_loop(task, data, **limits)
    losses = [F.cross_entropy(network()(images), labels) for images, labels in data[: 5 if limits else 8]]
    assert task.trainer.callback_metrics["loss/train"].item() == pytest.approx(torch.stack(losses).mean().item())
    right = [(network()(images).argmax(1) == labels).float().mean() for images, labels in data[: 5 if limits else 8]]
    assert task.trainer.callback_metrics["accuracy/train"].item() == pytest.approx(torch.stack(right).mean().item())


def test_smoothing_is_for_training_alone():
    data = batches(1)
    task = SlimmingTask(network(), optimizer=partial(torch.optim.SGD, lr=0.0), label_smoothing=0.3)
    lightning_loop(task, data)
    expected = F.cross_entropy(network()(data[0][0]), data[0][1], label_smoothing=0.3)
    assert task.trainer.callback_metrics["loss/train"].item() == pytest.approx(expected.item())


def test_bad_lambda_is_named():
    with pytest.raises(ValueError, match=r"λ is -0\.1"):
        SlimmingTask(network(), optimizer=SGD, strength=-0.1)
    with pytest.raises(ValueError, match="λ is nan"):
        SlimmingTask(network(), optimizer=SGD, strength=float("nan"))


def test_a_network_without_batchnorm_cannot_be_penalised():
    bare = nn.Sequential(nn.Flatten(), nn.Linear(32, 3)).double()
    with pytest.raises(ValueError, match="no trainable BatchNorm"):
        lightning_loop(SlimmingTask(bare, optimizer=SGD, strength=0.1), batches())


def test_a_rate_of_zero_and_frozen_scales_never_pass_for_a_training_with_the_penalty():
    with pytest.raises(ValueError, match="the learning rate is 0"):
        lightning_loop(SlimmingTask(network(), optimizer=partial(torch.optim.SGD, lr=0.0), strength=0.1), batches())
    frozen = network()
    for gamma in bn_scales(frozen):
        gamma.requires_grad_(False)
    with pytest.raises(ValueError, match=r"λ = 0\.1 never reached a γ: every γ was frozen"):
        lightning_loop(SlimmingTask(frozen, optimizer=SGD, strength=0.1), batches())


def test_the_penalty_follows_what_is_frozen_and_unfrozen():
    class Turns(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            module.network[1].requires_grad_(batch_idx > 3)
            module.network[5].requires_grad_(batch_idx <= 3)

    task = SlimmingTask(network(), optimizer=partial(torch.optim.SGD, lr=RATE), strength=STRENGTH, channels_last=False)
    lightning_loop(task, batches(), callbacks=[Turns()])
    oracle = network()
    optimizer = torch.optim.SGD(oracle.parameters(), lr=RATE)
    for index, (images, labels) in enumerate(batches()):
        oracle[1].requires_grad_(index > 3)
        oracle[5].requires_grad_(index <= 3)
        optimizer.zero_grad()
        penalty = STRENGTH * sum(gamma.abs().sum() for gamma in bn_scales(oracle))
        (F.cross_entropy(oracle(images), labels) + penalty).backward()
        optimizer.step()
    assert largest_difference(task.network, oracle) < 1e-12

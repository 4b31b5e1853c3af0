"""What code asks for decides in which ways it is run; several threads do not disturb each other."""

import sys
import threading

import pytest
import torch
from torch import nn

import netslim


def block(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Centred(nn.Module):
    """Without children. when(self) -> does it subtract the mean over the channels?"""

    def __init__(self, when):
        super().__init__()
        self.when = when

    def forward(self, x):
        return x - x.mean(1, keepdim=True) if self.when(self) else x


def network(when):
    return nn.Sequential(
        block(3, 16), Centred(when), block(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    )


QUESTIONS = {
    "training": lambda layer: layer.training,
    "evaluation": lambda layer: not layer.training,
    "getattr": lambda layer: getattr(layer, "train" + "ing"),
    "gradients": lambda layer: torch.is_grad_enabled(),
    "no gradients": lambda layer: not torch.is_grad_enabled(),
    "both": lambda layer: layer.training and not torch.is_grad_enabled(),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_layer_that_asks_is_run_both_ways(question, oracle, images):
    x = images(8)
    model = oracle.lively(network(QUESTIONS[question]), x)
    keep = netslim.select_channels(model, 0.5, x)
    assert sum(keep.held_back.values()) == 16
    for training in (False, True):
        for gradients in (False, True):
            small, masked = netslim.slim(model, keep, x).train(training), netslim.mask(model, keep).train(training)
            with torch.set_grad_enabled(gradients):
                a, b = small(x), masked(x)
            assert float((a - b).detach().abs().max()) < 1e-9 * float(b.detach().std(0).mean())


def test_what_pytorch_itself_asks_for_costs_nothing(images):
    """no_grad asks whether gradients are recorded; Dropout and BatchNorm for their modes."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.drop, self.runs = block(3, 8), nn.Dropout(), []
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x):
            self.runs.append(1)
            with torch.no_grad():
                x = x * 2
            return self.head(self.drop(self.body(x))), len(self.runs)

    from netslim.engine.cut.emit import Changes, outline
    from netslim.engine.trace.recorder import record
    from netslim.modules import Network

    tape, error = record(outline(Network(Plain()), Changes(), on_meta=False), images(8).float(), modes=(True, False))
    assert (len(tape.passes), error) == (1, "")


@pytest.fixture
def restless():
    """Threads take turns often, so that races show."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(*works):
    faults = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def chain():
    torch.manual_seed(0)
    model = nn.Sequential(block(3, 16), *(block(16, 16) for _ in range(6)), nn.Conv2d(16, 4, 1)).eval()
    for layer in netslim.bn_layers(model).values():
        layer.weight.data = torch.linspace(0.3, 1.3, 16)
    return model


@pytest.mark.usefixtures("restless")
def test_several_threads_slim():
    x = torch.randn(2, 3, 8, 8)
    model = chain()
    expected = netslim.slim(model, netslim.select_channels(model, 0.5, x), x)(x)
    results = []

    def work():
        for _ in range(5):
            results.append(netslim.slim(model, netslim.select_channels(model, 0.5, x), x)(x))

    in_threads(*[work] * 3)
    assert len(results) == 15
    assert all(torch.equal(result, expected) for result in results)


class Random(nn.Module):
    def forward(self, x):
        return x + torch.rand(()) if self.training else x


@pytest.mark.usefixtures("restless")
def test_another_thread_trains_as_if_it_were_alone():
    """It has dropout, asks for its mode, and hooks of the whole process."""
    x = torch.randn(2, 3, 8, 8)

    def train(steps=40):
        torch.manual_seed(1)
        model = nn.Sequential(block(3, 8), nn.Dropout(0.5), Random(), nn.Flatten(), nn.Linear(512, 2))
        optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        for _ in range(steps):
            optimiser.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        return losses

    model = chain()
    alone, together, done = train(), [], threading.Event()

    def slim():
        while not done.is_set():
            netslim.slim(model, netslim.select_channels(model, 0.5, x), x)

    def trains():
        together.extend(train())
        done.set()

    in_threads(trains, slim)
    assert together == alone
